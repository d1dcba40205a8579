"""The opening of a subscription: `welcome`, or `switched`, made when it is given, as the room stands then."""

from functools import partial

from chatroom.engines.engine import Engine
from chatroom.protocol import events
from chatroom.rooms.entries import Enter
from chatroom.rooms.replay import Resume, start_of_replay
from chatroom.rooms.subscription import Subscription
from chatroom.websocket.frames import Pieces, text_frame_of


class Welcome:
    """See Opening."""

    __slots__ = ("_engine", "_entry", "_history", "_limits", "_recovered", "first")

    def __init__(self, entry: Enter, engine: Engine, history: int, limits: str) -> None:
        self._entry = entry
        self._engine = engine
        self._history = history
        self._limits = limits
        self._recovered: bool | None = None
        self.first = 0

    def begin(self, subscription: Subscription) -> None:
        """See Opening."""
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
        """See Opening."""
        room, username = subscription.room, subscription.member.username
        room.open(subscription)
        members = room.roster.others(username)
        if self._entry.switch:
            event = partial(events.switched, room.name, members, self._entry.cid)
        else:
            event = partial(events.welcome, room.name, username, members, limits=self._limits)
        replay = room.head - subscription.cursor
        return text_frame_of(
            event(epoch=room.epoch, last_id=room.head, replay=replay, recovered=self._recovered)
        )
