"""The reply to a join, `welcome` or `switched`, and where the replay behind it begins.

1. The reply is made when it is given, as the room stands then.
2. A replay begins after the id that the client names (`since`), or some messages before the end.
3. A recovery is whole or none: what can't be given without a gap is not called recovered.

It doesn't know how messages reach the client.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chatroom.engines.engine import Engine
from chatroom.protocol import events
from chatroom.rooms.entries import Enter
from chatroom.rooms.room import Subscription
from chatroom.websocket.framing import Pieces, text_frame_of

MAX_RECOVERED = 500
"""The most messages that a resume brings."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A client's claim: the last id that it saw, and the epoch that it was told with that id."""

    since: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Start:
    """The id after which the reader begins. `recovered` is None if the client asked for no resume."""

    after: int
    recovered: bool | None


def start_of_replay(resume: Resume | None, *, epoch: str, first_id: int, last_id: int, history: int) -> Start:
    """Where to begin in a room whose log keeps `first_id` to `last_id`.

    `history` is the number of messages in the usual replay.
    """
    # The engine may have stored and trimmed more than the room has shown.
    usual = min(max(last_id - history, first_id - 1, 0), last_id)
    if resume is None:
        return Start(usual, None)
    missing = last_id - resume.since
    if resume.epoch == epoch and 0 <= missing <= MAX_RECOVERED and resume.since + 1 >= first_id:
        return Start(resume.since, True)
    return Start(usual, False)


class WelcomeOrSwitched:
    """See JoinReply."""

    __slots__ = ("_engine", "_entry", "_history", "_limits", "_recovered", "first")

    def __init__(self, entry: Enter, engine: Engine, history: int, limits: str) -> None:
        self._entry = entry
        self._engine = engine
        self._history = history
        self._limits = limits
        self._recovered: bool | None = None
        self.first = 0

    def begin(self, subscription: Subscription) -> None:
        """See JoinReply."""
        room, since = subscription.room, self._entry.since
        start = start_of_replay(
            None if since is None else Resume(since, self._entry.epoch or ""),
            epoch=room.epoch,
            first_id=max(self.first, self._engine.first_id(room.name)),
            last_id=room.head,
            history=self._history,
        )
        subscription.cursor, subscription.seen, self._recovered = start.after, room.number, start.recovered

    def give(self, subscription: Subscription) -> Pieces:
        """See JoinReply."""
        room, username = subscription.room, subscription.member.username
        room.begin_subscription(subscription)
        if subscription.member.silent:
            event: Callable[..., Pieces] = partial(events.opened, room.name, username)
        elif self._entry.switch:
            event = partial(events.switched, room.name, room.roster.others(username), self._entry.cid)
        else:
            members = room.roster.others(username)
            event = partial(events.welcome, room.name, username, members, limits=self._limits)
        replay = room.head - subscription.cursor
        return text_frame_of(
            event(epoch=room.epoch, last_id=room.head, replay=replay, recovered=self._recovered)
        )
