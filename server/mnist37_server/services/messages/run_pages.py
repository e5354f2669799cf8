"""The pages of ListRuns: the runs that wait, then those that have begun, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.domain.commands.checks import check_range
from mnist37_server.engine.read_model import ReadModel
from mnist37_server.errors import InvalidArgument
from mnist37_server.services.messages.requests import field_or_default
from mnist37_server.services.messages.responses import queued_run_message, run_message, run_state

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1_000
# The first part of a page token, by the first part of a key: whether the run is queued.
TOKEN_KINDS = {True: "queued", False: "run"}


class Entry(NamedTuple):
    """A run of the list."""

    key: tuple[bool, int]  # whether it is queued, and its position or number; the list descends
    name: str | None
    state: pb.RunState
    message: Callable[[], pb.Run]


def list_runs(model: ReadModel, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
    """Return a page of the runs.

    Raises:
        InvalidArgument: a filter, the size or the token of the page is not valid.
    """
    size = field_or_default(request, "page_size", PAGE_SIZE)
    check_range("page_size", size, 1, PAGE_SIZE_MAX)
    states: set[int] = set(request.states or pb.RunState.values())
    for unknown in states.difference(pb.RunState.values()):
        names = ", ".join(pb.RunState.keys()[1:])
        raise InvalidArgument("states", f"got {unknown}", f"must be of {names}")
    before = _parse_token(request.page_token) if request.page_token else None
    matches = [
        entry
        for entry in _entries(model)
        if entry.state in states
        and (not request.HasField("name") or entry.name == request.name)
        and (before is None or entry.key < before)
    ]
    page = matches[:size]
    is_last = len(page) == len(matches)
    return pb.ListRunsResponse(
        runs=[entry.message() for entry in page],
        next_page_token="" if is_last else _token(page[-1].key),
    )


def _entries(model: ReadModel) -> Iterator[Entry]:
    # The queue comes first: a run that begins in between may come twice, but is not left out.
    for queued in reversed(model.queued_runs()):
        message = partial(queued_run_message, queued)
        yield Entry((True, queued.position), queued.request.name, pb.RUN_STATE_QUEUED, message)
    for record, under_way in model.runs():
        message = partial(run_message, record, under_way)
        state = run_state(record, under_way)
        yield Entry((False, record.number), record.request.name, state, message)


def _token(key: tuple[bool, int]) -> str:
    is_queued, number = key
    return f"{TOKEN_KINDS[is_queued]}-{number}"


def _parse_token(token: str) -> tuple[bool, int]:
    kind, _, number = token.partition("-")
    for is_queued, name in TOKEN_KINDS.items():
        if kind == name and number.isascii() and number.isdecimal() and len(number) <= 20:
            return is_queued, int(number)
    shown = repr(token) if len(token) <= 40 else f"{len(token):,} characters"
    raise InvalidArgument("page_token", f"got {shown}", "must be the next_page_token of an answer")
