"""Following: members are told of the activity of other rooms.

1. All rooms of a `follow` are opened before it takes effect; if one can't be, nothing changes. A followed
   room is in use: its refcount counts each of its followers.
2. A follower that isn't live is told when it has caught up, of each room once: see `Member.missed`.
3. Whether a follower may read the room is asked each time it is told.
4. A ban ends it, and so does the end of the connection.

It doesn't know how rooms are opened, nor what is said in them.
"""

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

import trio

from chatroom.core.errors import CommandError, ErrorCode, Unavailable
from chatroom.core.messages import Denial
from chatroom.core.sanctions import Sanction
from chatroom.protocol import events
from chatroom.rooms.activity import Activity, Followers
from chatroom.rooms.entries import Follow, FollowedRoom
from chatroom.rooms.room import Member, Room
from chatroom.websocket.framing import text_frame


class Following:
    """Who follows which room, for the rooms of one node. `active`: rooms whose followers are to be told."""

    def __init__(
        self,
        touch: Callable[[Room], Room],
        ban: Callable[[Member, Room], Sanction | None],
        unavailable: Callable[[str, str | None], bytes],
    ) -> None:
        """`touch`: a room has changed. `ban` is that of a member from a room, if one is in force.

        `unavailable` makes an answer of that code, and counts it.
        """
        self._touch = touch
        self._ban = ban
        self._unavailable = unavailable
        self.active: set[Room] = set()
        self._turns: list[tuple[float, int, Room]] = []  # when each is told, perhaps with some that aren't
        self._orders = count()

    # The command

    def open(self, entry: FollowedRoom) -> None:
        """One more room of a `follow` is open. The refcount that counted the entry now counts the follow."""
        assert entry.opened is not None, "the broker has opened it"
        entry.follow.opened.append(entry.opened)
        self._end_opening(entry.follow)

    def fail(self, follow: Follow, why: Exception) -> None:
        """A room of a `follow` can't be opened."""
        follow.failure = why
        self._end_opening(follow)

    def give_up(self, follow: Follow, left: int) -> None:
        """The last `left` rooms of a `follow` will not be opened, since its connection ends."""
        follow.failure = Unavailable("the connection ends")
        self._end_opening(follow, left)

    def _end_opening(self, follow: Follow, ended: int = 1) -> None:
        follow.missing -= ended
        if not follow.missing:
            self.follow(follow)

    def follow(self, follow: Follow) -> None:
        """All rooms of a `follow` are open, or can't be."""
        member = follow.member
        error = self._why_not(follow)
        if error is not None or member.gone:
            for room in follow.opened:
                self._stop_using(room)
        else:
            self._set(member, follow.opened)
        if not member.gone:
            member.sink.reply(error or _answer(follow))
            _tell_later(member)  # activity is newer than the answer, and comes behind it

    def _why_not(self, follow: Follow) -> bytes | None:
        """The error that answers a `follow` that can't be carried out."""
        replaced = any(room.replaced for room in follow.opened)  # perhaps since it was opened
        if replaced or isinstance(follow.failure, Unavailable):
            return self._unavailable("A room can't be read now", follow.cid)
        if follow.failure is not None:
            return events.error(CommandError(ErrorCode.INTERNAL, "A room can't be opened", cid=follow.cid))
        for room in follow.opened:
            if (ban := self._ban(follow.member, room)) is not None:
                return events.error(
                    CommandError(ErrorCode.FORBIDDEN, Denial.BANNED.value, until=ban.until, cid=follow.cid)
                )
        return None

    def _set(self, member: Member, rooms: Sequence[Room]) -> None:
        old, member.follows = member.follows, tuple(rooms)
        for room in rooms:
            if room not in old:
                if room.followers is None:
                    room.followers = Followers()
                room.followers.add(member)
        for room in old:
            if room in member.follows:
                self._stop_using(room)  # it is counted anew
            else:
                self._unfollow(member, room)

    def _unfollow(self, member: Member, room: Room) -> None:
        assert room.followers is not None, "it has this one"
        room.followers.discard(member)
        if member.missed is not None:
            member.missed.pop(room, None)
        if not room.followers:
            room.followers = room.activity = None
            self.active.discard(room)
        self._stop_using(room)

    def _stop_using(self, room: Room) -> None:
        room.refcount -= 1
        self._touch(room)

    def forget(self, member: Member) -> None:
        """A member is gone."""
        for room in member.follows:
            self._unfollow(member, room)
        member.follows = ()

    def end(self, room: Room, username: str) -> None:
        """A name was banned from a room."""
        assert room.followers is not None, "it has some"
        for member in room.followers.present():
            if member.username == username and not member.rights.can(room.name, "m"):
                member.follows = tuple(each for each in member.follows if each is not room)
                self._unfollow(member, room)

    # Telling

    def note(self, room: Room) -> None:
        """Something was said in a room that has followers."""
        if room not in self.active:
            self.active.add(room)
            heappush(self._turns, (room.activity_due, next(self._orders), room))

    @property
    def due(self) -> float:
        """When `tell` has something to do; infinity for not before more is said."""
        turns = self._turns
        while turns and turns[0][2] not in self.active:
            heappop(turns)
        return turns[0][0] if turns else math.inf

    def tell(self) -> None:
        """Tell of the activity of rooms whose turn it is."""
        now = trio.current_time()
        while self.due <= now:
            _, _, room = heappop(self._turns)
            self.active.remove(room)
            assert room.followers is not None, "else it isn't active"
            activity = room.pop_activity(now)
            frame = text_frame(events.activity(room.name, *activity))
            for member in room.followers.present():
                if member.rights.can(room.name, "r"):
                    _tell(member, room, activity, frame)


def _tell(member: Member, room: Room, activity: Activity, frame: bytes) -> None:
    subscription = member.current
    assert subscription is not None, "a member that follows is in a room"
    if subscription.live and member.missed is None and subscription.offer(frame, (len(frame),)):
        return
    if member.missed is None:
        member.missed = {}
    missed = member.missed.pop(room, None)
    member.missed[room] = activity if missed is None else missed.then(activity)
    _tell_later(member)


def _tell_later(member: Member) -> None:
    """What the member is told from now on comes from its writer, behind the answers that wait."""
    assert member.current is not None, "a member that follows is in a room"
    member.current.live = False
    member.sink.wake()


def _answer(follow: Follow) -> bytes:
    by_name = {room.name: room for room in follow.opened}
    rooms = [by_name[name] for name in follow.rooms]
    heads = [events.FollowedHead(room.name, room.epoch, room.head, room.messages) for room in rooms]
    return events.followed(heads, follow.cid)
