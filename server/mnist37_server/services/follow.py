"""The RPC Follow: the versions of the model for its followers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import grpc
from google.protobuf.duration_pb2 import Duration
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.domain.commands.checks import check_length
from mnist37_server.domain.position import Position
from mnist37_server.engine.followers import Followers
from mnist37_server.engine.snapshot_feed import View
from mnist37_server.errors import CallerCancelled, InvalidArgument
from mnist37_server.services.messages.responses import ORIGINS, duration_message

NAME_LENGTH_MAX, ADDRESS_LENGTH_MAX = 128, 256  # characters
INTERVAL_MAX_SECONDS = 1.0


def follow(
    followers: Followers, request: pb.FollowRequest, context: grpc.ServicerContext
) -> Iterator[pb.FollowResponse]:
    """Yield the newest version, and then each committed version as it comes.

    Raises:
        InvalidArgument: a value is out of its range.
        Exhausted: there are too many followers.
        Unavailable: this is a follower that has no version yet.
    """
    for field, text, maximum in (
        ("id", request.id, NAME_LENGTH_MAX),
        ("address", request.address, ADDRESS_LENGTH_MAX),
    ):
        if text:
            check_text(field, text, maximum)
    follower = followers.connect(request.id, request.address, parse_interval(request))
    try:
        if not context.add_callback(partial(followers.disconnect, follower)):
            raise CallerCancelled("the caller left")
        held = Position(request.position.start, request.position.version)
        previous: int | None = None  # the version that the follower has
        for view in followers.updates(follower):
            if previous is None:
                is_held = view.lineage.contains(held, view.snapshot.version)
                previous = held.version if is_held else None
                yield follow_message(view, previous, is_first=True)
            else:
                yield follow_message(view, previous)
            previous = view.snapshot.version
    finally:
        followers.disconnect(follower)


def follow_message(
    view: View, previous: int | None, *, is_first: bool = False
) -> pb.FollowResponse:
    """Return the message of a version.

    Args:
        view: the version, and what is known about it.
        previous: the version that the follower has; None if it has none of this history.
        is_first: whether it is the first message of its stream, which has the starts and the way.
    """
    snapshot, lineage, age, is_heard, route = view
    message = pb.FollowResponse(
        position=pb.Position(start=lineage.start, version=snapshot.version),
        parameters=b"" if snapshot.version == previous else snapshot.content,
        origin=ORIGINS[snapshot.origin],
        run=snapshot.run,
        starts=(
            [pb.Position(start=start, version=version) for start, version in lineage.starts]
            if is_first
            else []
        ),
    )
    if route.followers:  # the owner needs no such fields
        message.age.CopyFrom(duration_message(age))
        message.owner_lost = not is_heard
        if is_first:
            message.owner = route.owner
            message.followers.extend(route.followers)
    return message


def check_text(field: str, text: str, maximum: int) -> None:
    """Raise InvalidArgument unless a text is short and can be printed."""
    check_length(field, text, maximum)
    if not text.isprintable():
        raise InvalidArgument(field, "has characters that cannot be printed", "must have none")


def parse_interval(request: pb.FollowRequest) -> float:
    """Return the least seconds between two messages that a follower wants.

    Raises:
        InvalidArgument: they are not 0 to 1.
    """
    duration: Duration = request.min_interval
    seconds = duration.seconds + duration.nanos / 1e9
    if not 0 <= seconds <= INTERVAL_MAX_SECONDS:
        raise InvalidArgument("min_interval", f"got {seconds:g} s", "must be 0 to 1 second")
    return seconds
