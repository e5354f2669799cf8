"""The methods of Client for what the server keeps beside the model: tags, followers and runs."""

from __future__ import annotations

from collections.abc import Iterator

from mnist37_client._rpc.messages import requests
from mnist37_client._rpc.methods import calls
from mnist37_client._rpc.methods.calls import RunStateName
from mnist37_client._rpc.methods.streams import WatchedRun
from mnist37_client._rpc.transport.blocking_calls import BlockingCalls
from mnist37_client.results import Follower, Progress, Run, Tag


class Catalogue(BlockingCalls):
    """The part of Client that lists and names: tags, followers and runs."""

    def tag_version(
        self, name: str, version: int | str | None = None, *, request_id: str | None = None
    ) -> int:
        """Point a tag to a version, which the server then retains, and return the version.

        Every method that takes a version also takes a tag. A tag that exists is moved.

        Args:
            name: 1 to 128 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`, not all digits.
            version: a retained version, or another tag of it; None means the newest.
            request_id: up to 128 characters; makes the call safe to repeat.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: the server does not retain the version, or there is no such tag.
            Exhausted: there are 100 tags already.
            AlreadyExists: the request_id belongs to another write.
        """
        return self._carry_out(calls.tag_version(self._exchanges, name, version, request_id))

    def followers(self) -> list[Follower]:
        """Return the followers that the server sends its versions to, the first one first."""
        return self._carry_out(calls.followers())

    def tags(self) -> list[Tag]:
        """Return the tags by name, then the server's `best@RUN`, newest run first."""
        return self._carry_out(calls.tags())

    def delete_tag(self, name: str, *, request_id: str | None = None) -> int:
        """Delete a tag and return the version to which it pointed.

        Args:
            name: of the tag.
            request_id: up to 128 characters; makes the call safe to repeat.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: there is no such tag.
            AlreadyExists: the request_id belongs to another write.
        """
        return self._carry_out(calls.delete_tag(self._exchanges, name, request_id))

    def runs(
        self,
        *,
        name: str | None = None,
        state: RunStateName | None = None,
        limit: int | None = calls.RUNS,
    ) -> list[Run]:
        """Return training runs, newest first; those that wait for their turn come before.

        Args:
            name: only runs with this name; None means all.
            state: only runs in this state; None means all.
            limit: the most runs to return, at least 1; None means all that the server retains.

        Raises:
            InvalidInput: an argument is not valid.
        """
        return self._carry_out(calls.runs(name, state, limit))

    def watch_run(
        self, run: int | None = None, *, follow: bool = False
    ) -> Iterator[Run | Progress]:
        """Yield a run, then its curve: the progress of at most 1,001 of its epochs.

        All epochs up to 1,000; of a longer run every second or every fourth and so on, and always
        the first and the last.

        Args:
            run: the run's number; None means the newest run.
            follow: then also yield each new epoch, and the run again at its end. To watch a run
                does not keep it alive: a run stops when only watchers are left.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: the server does not retain the run, or there is no run yet.
        """
        watched = WatchedRun(run, self._exchanges.session)
        for content in self._stream("WatchRun", requests.watch_request(run, follow)):
            yield from watched.parse(content)
