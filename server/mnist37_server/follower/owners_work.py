"""The methods of a model that a follower does not have: each refuses, and names the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from mnist37_server.domain.commands.commands import Request
from mnist37_server.errors import FailedPrecondition, Reason

if TYPE_CHECKING:
    from mnist37_server.engine.writes.subscription import Subscription


class OwnersWork:
    """The writes, the lists and the runs of a model, all of which are refused here."""

    @property
    def owner(self) -> str:
        """Return the address of the owner."""
        raise NotImplementedError

    def _refuse(self) -> NoReturn:
        raise FailedPrecondition(
            "this server is a follower, which answers Predict, PredictStream, GetLoss and GetModel;"
            f" ask the owner of the model, {self.owner}",
            Reason.NOT_OWNER,
            owner=self.owner,
        )

    def submit(
        self,
        request: Request,  # noqa: ARG002
        request_id: str | None = None,  # noqa: ARG002
        caller: Subscription | None = None,  # noqa: ARG002
    ) -> Subscription:
        """Refuse: only the owner writes."""
        self._refuse()

    def cancel(self, caller: Subscription) -> None:
        """Do nothing: no caller waits for a write here."""

    def versions(self, limit: int) -> NoReturn:  # noqa: ARG002
        """Refuse: only the owner knows which versions are retained."""
        self._refuse()

    def tags(self) -> NoReturn:
        """Refuse: only the owner has the tags."""
        self._refuse()

    def queued_runs(self) -> NoReturn:
        """Refuse: only the owner runs."""
        self._refuse()

    def runs(self) -> NoReturn:
        """Refuse: only the owner has the runs."""
        self._refuse()

    def watch(self, number: int | None) -> NoReturn:  # noqa: ARG002
        """Refuse: only the owner has the runs."""
        self._refuse()
