"""What a connection still has to get, piece by piece and in order, whatever of it is at hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from chatroom.connections.backlog import CHUNK, Backlog, Step
from chatroom.core.errors import CloseCode, Disconnect, Trimmed
from chatroom.core.messages import Draft, Message
from chatroom.engines.memory import MemoryEngine
from chatroom.protocol import events
from chatroom.rooms.broadcast import RoomEvent
from chatroom.rooms.ring import RingBudget
from chatroom.rooms.room import Member, Room, Subscription
from chatroom.websocket.framing import Pieces, text_frame
from chatroom.websocket.outbound import Outbound
from tests.support.engines import append, open_room
from tests.support.harness import broadcast_of, split_frames
from tests.support.memory_transport import MemoryTransport

PLENTY = 1 << 30


@dataclass
class Told:
    """A message sink that only notes what it is told."""

    opened_times: int = 0
    wire: Outbound | None = None

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        assert self.wire is not None
        return self.wire.offer(data, ends)

    def replied(self) -> None:
        self.opened_times += 1

    def wake(self) -> None: ...
    def answer(self, payload: bytes) -> None: ...
    def settled(self) -> None: ...
    def reply(self, payload: bytes) -> None: ...
    def end(self, why: Disconnect) -> None: ...


@dataclass
class FixedJoinReply:
    """A join reply of a test's: it begins after `after`, or where the log does, and says `what`."""

    after: int
    what: bytes
    recovered: bool | None = None
    history: int = 50
    first: int = 0

    def begin(self, subscription: Subscription) -> None:
        subscription.cursor, subscription.seen = self.after, subscription.room.number
        if self.first > self.after + 1:
            subscription.cursor = max(self.first - 1, subscription.room.head - self.history)
            self.recovered = self.recovered and False

    def give(self, subscription: Subscription) -> Pieces:
        subscription.room.begin_subscription(subscription)
        replay = b"%d" % (subscription.room.head - subscription.cursor)
        return (text_frame(self.what.replace(b"REPLAY", replay + f" {self.recovered}".encode())),)


@dataclass
class Stage:
    """One member with a backlog, and rooms whose logs are written by the test."""

    ring_bytes: int = PLENTY
    keep: int = 500
    space: int = PLENTY
    tls: bool = False
    gone: list[Subscription] = field(default_factory=list)
    given: int = 0
    engine: MemoryEngine | None = None

    def __post_init__(self) -> None:
        self.engine = self.engine or MemoryEngine(lambda: "e", per_room=self.keep)
        self.budget = RingBudget(self.ring_bytes)
        self.transport = MemoryTransport(room=self.space, tls=self.tls)
        self.wire = Outbound(self.transport, lambda: None)
        self.sink = Told(wire=self.wire)
        self.member = Member("alice", self.sink)
        self.backlog = Backlog(self.member, self.wire, self.engine, self)

    def release(self, subscription: Subscription) -> None:
        self.gone.append(subscription)

    def delivered(self, count: int) -> None:
        self.given += count

    async def room(self, name: str = "r", messages: int = 0) -> Room:
        room = Room(name, await open_room(self.engine, name), self.budget)
        await self.post(room, messages)
        return room

    async def post(self, room: Room, times: int = 1) -> None:
        for _ in range(times):
            number = room.head + 1
            (outcome,) = await append(self.engine, [Draft(room.name, "bob", str(number), None, number)])
            assert isinstance(outcome, Message)
            room.show(outcome)
        room.pop_broadcast()

    def subscribe(self, room: Room, cursor: int = 0, join_reply: bytes = b"welcome") -> Subscription:
        subscription = Subscription(self.member, room, FixedJoinReply(cursor, join_reply))
        self.member.subscriptions.append(subscription)
        room.subscriptions[subscription] = None
        room.roster.enter("alice")
        return subscription

    async def play(self) -> list[Step]:
        """Take steps until there is nothing to do, as a writer does."""
        steps = []
        while (step := self.backlog.step()) is not Step.IDLE:
            steps.append(step)
            if step is Step.READ:
                await self.backlog.read_on()
            await self.wire.flush()
        return steps

    @property
    def got(self) -> list[str]:
        """What has come, with messages shortened to their texts."""
        payloads, rest = split_frames(bytes(self.transport.taken))
        assert rest == b""
        return [
            payload.partition(b'"text":"')[2].partition(b'"')[0].decode() or payload.decode()
            for payload in payloads
        ]


def event(text: str, position: int, *, presence: bool = False) -> RoomEvent:
    return RoomEvent(text_frame(text.encode()), position, presence=presence)


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def test_who_is_nowhere_has_nothing_to_get() -> None:
    stage = Stage()
    assert stage.backlog.step() is Step.IDLE
    assert not stage.backlog.complete  # it is still on its way in


async def test_a_subscription_begins_with_its_opening_and_goes_live_when_all_is_given() -> None:
    stage = Stage()
    subscription = stage.subscribe(await stage.room(messages=5), cursor=2)
    assert stage.backlog.step() is Step.MORE
    assert (stage.got, stage.sink.opened_times, subscription.live) == (["welcome"], 1, False)
    await stage.play()
    assert stage.got == ["welcome", "3", "4", "5"]
    assert (subscription.live, stage.backlog.complete, subscription.cursor, stage.given) == (True, True, 5, 3)
    assert stage.backlog.step() is Step.IDLE


async def test_what_the_ring_has_is_not_asked_of_the_log() -> None:
    stage = Stage()
    stage.subscribe(await stage.room(messages=300))
    assert Step.READ not in await stage.play()
    assert stage.got == ["welcome", *numbers(1, 300)]


async def test_what_the_ring_has_forgotten_comes_from_the_log_and_the_rest_from_the_ring() -> None:
    stage = Stage(ring_bytes=8000)  # about 60 messages
    room = await stage.room(messages=450)
    stage.subscribe(room)
    steps = await stage.play()
    assert steps.count(Step.READ) == 2
    assert steps[-1] is Step.MORE
    assert stage.got == ["welcome", *numbers(1, 450)]
    assert stage.given == 450


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_piece_is_of_bounded_size_whatever_it_comes_from(tls: bool) -> None:
    for ring_bytes in (0, PLENTY):
        stage = Stage(ring_bytes=ring_bytes, tls=tls, space=0)
        room = await stage.room()
        outcomes = await append(
            stage.engine, [Draft("r", "bob", f"{number:-<8000}", None, 1) for number in range(100)]
        )
        for outcome in outcomes:
            assert isinstance(outcome, Message)
            room.show(outcome)
        room.pop_broadcast()
        subscription = stage.subscribe(room)
        stage.backlog.step()
        if stage.backlog.step() is Step.READ:
            await stage.backlog.read_on()
        assert 1 <= subscription.cursor <= 8, "of a peer that takes nothing, a small piece is held"


class CountingEngine(MemoryEngine):
    """Counts what is read of it."""

    def __init__(self) -> None:
        super().__init__(lambda: "e")
        self.given: list[int] = []
        self.bytes = 0

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        found = await super().read(*asked, **bounds)
        self.given += [message.id for message in found]
        self.bytes += sum(len(message.text.encode()) for message in found)
        return found


async def long_texts(stage: Stage, count: int = 120, text: str = "x" * 4000) -> Room:
    """A room with long texts that has left its ring's memory."""
    room = await stage.room()
    for outcome in await append(stage.engine, [Draft("r", "bob", text, None, 1) for _ in range(count)]):
        assert isinstance(outcome, Message)
        room.show(outcome)
    room.pop_broadcast()
    room.ring.clear()
    return room


@pytest.mark.parametrize(
    "text", ["x" * 4000, "é" * 4000, "\x01" * 4000, "x"], ids=["x", "é", "escaped", "short"]
)
@pytest.mark.parametrize(
    ("space", "tls"), [(PLENTY, False), (20_000, False), (2000, False), (PLENTY, True), (2000, True)],
    ids=["quick", "slow", "very slow", "tls", "very slow tls"],
)  # fmt: skip
async def test_what_is_caught_up_with_is_read_and_encoded_once(
    text: str, space: int, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CountingEngine()
    stage = Stage(engine=engine, space=space, tls=tls)
    room = await long_texts(stage, text=text)
    subscription = stage.subscribe(room)
    encoded: list[int] = []
    encode = events.record
    monkeypatch.setattr(
        events, "record", lambda room, record: encoded.append(record.id) or encode(room, record)
    )
    async with trio.open_nursery() as nursery:

        async def take() -> None:
            while not subscription.live:
                stage.transport.give_room(space)
                await trio.lowlevel.checkpoint()

        if space < PLENTY:
            nursery.start_soon(take)
        await stage.play()
    assert subscription.live
    assert len(stage.got) == 121
    assert engine.given == encoded == list(range(1, 121))


async def test_a_read_is_of_about_what_is_given_at_a_time() -> None:
    engine = CountingEngine()
    stage = Stage(engine=engine, space=0)
    stage.subscribe(await long_texts(stage))
    assert stage.backlog.step() is Step.READ
    await stage.backlog.read_on()
    assert CHUNK <= engine.bytes < CHUNK + 4000


async def test_many_slow_readers_of_one_room_have_it_read_about_once() -> None:
    """They are at many places, all of them near each other."""
    engine = CountingEngine()
    stage = Stage(engine=engine, space=30_000)
    room = await long_texts(stage)
    readers = [Stage(engine=engine, space=20_000 + 700 * number) for number in range(20)]
    for reader in readers:
        subscription = reader.subscribe(room)
        subscription.member = reader.member
    steps = 0
    while moving := [reader for reader in readers if not reader.member.subscriptions[0].live]:
        for reader in moving:
            steps += 1
            assert steps < 20 * 300
            if reader.wire.pending:
                reader.transport.give_room(60_000)
                await reader.wire.flush()
            elif reader.backlog.step() is Step.READ:
                await reader.backlog.read_on()
    assert all(reader.given == 120 for reader in readers)
    assert len(engine.given) < 4 * 120, "not 20 times"


async def test_a_cursor_behind_what_is_kept_ends_the_connection_and_never_skips() -> None:
    stage = Stage(ring_bytes=0, keep=10)
    room = await stage.room(messages=20)
    subscription = stage.subscribe(room, cursor=20)
    assert stage.backlog.step() is Step.MORE
    await stage.post(room, 15)
    subscription.seen = room.number
    assert stage.backlog.step() is Step.READ
    with pytest.raises(Disconnect) as caught:
        await stage.backlog.read_on()
    assert caught.value.code == CloseCode.TOO_FAR_BEHIND
    assert (subscription.cursor, stage.got) == (20, ["welcome"])


@pytest.mark.parametrize(
    ("cursor", "recovered", "history", "expected"),
    [
        (9, None, 50, ["10 None", *numbers(11, 20)]),
        (0, True, 50, ["10 False", *numbers(11, 20)]),
        (0, True, 4, ["4 False", *numbers(17, 20)]),
        (5, False, 15, ["10 False", *numbers(11, 20)]),
    ],
)
async def test_a_subscription_whose_first_message_is_gone_before_it_begins_begins_with_the_first_that_is_kept(
    cursor: int, recovered: bool | None, history: int, expected: list[str]
) -> None:
    """What the engine said of the first id was old."""
    stage = Stage(ring_bytes=0, keep=10)
    subscription = stage.subscribe(await stage.room(messages=20), cursor=cursor)
    subscription.join_reply = FixedJoinReply(cursor, b"REPLAY", recovered, history)
    await stage.play()
    assert stage.got == expected
    assert (stage.sink.opened_times, subscription.live) == (1, True)


async def test_a_subscription_begins_as_the_room_stands_when_its_first_message_is_at_hand() -> None:
    stage = Stage(ring_bytes=0, keep=10)
    room = await stage.room(messages=20)
    subscription = stage.subscribe(room, cursor=9, join_reply=b"REPLAY")
    assert stage.backlog.step() is Step.READ
    await stage.post(room, 5)
    await stage.backlog.read_on()
    assert (subscription.join_reply.first, stage.got) == (16, [])
    await stage.play()
    assert stage.got == ["10 None", *numbers(16, 25)]


async def test_a_subscription_whose_first_message_is_never_there_does_not_begin() -> None:
    class LyingEngine(MemoryEngine):
        async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
            raise Trimmed(15)

    stage = Stage(ring_bytes=0, engine=LyingEngine(lambda: "e"))
    stage.subscribe(await stage.room(messages=20), cursor=9)
    with pytest.raises(Disconnect) as caught:
        await stage.play()
    assert caught.value.code == CloseCode.TOO_FAR_BEHIND
    assert stage.got == []


async def test_a_subscription_of_which_all_is_gone_begins_with_nothing() -> None:
    class EmptyEngine(MemoryEngine):
        async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
            raise Trimmed(21)

    stage = Stage(ring_bytes=0, engine=EmptyEngine(lambda: "e"))
    subscription = stage.subscribe(await stage.room(messages=20), cursor=9)
    subscription.join_reply = FixedJoinReply(9, b"REPLAY")
    await stage.play()
    assert stage.got == ["0 None"]
    assert subscription.live


class HoleyEngine(MemoryEngine):
    """Breaks the port's word: it leaves out the first `missing` messages that it is asked for."""

    missing = 1

    async def read(self, *asked: Any, **bounds: Any) -> list[Message]:
        return (await super().read(*asked, **bounds))[self.missing :]


@pytest.mark.parametrize("missing", [1, 500])
async def test_a_hole_in_the_log_ends_the_connection_and_is_not_passed_over(missing: int) -> None:
    engine = HoleyEngine(lambda: "e")
    engine.missing = missing
    stage = Stage(ring_bytes=0, engine=engine)
    subscription = stage.subscribe(await stage.room(messages=20))
    assert stage.backlog.step() is Step.READ
    with pytest.raises(Disconnect) as caught:
        await stage.backlog.read_on()
    assert caught.value.code == CloseCode.INTERNAL_ERROR
    assert (subscription.cursor, stage.got) == (0, [])


async def test_what_was_queued_comes_at_its_place() -> None:
    stage = Stage()
    subscription = stage.subscribe(await stage.room(messages=5))
    stage.backlog.step()
    subscription.lag(
        broadcast_of(event("at 0", 0), event("at 0, too", 0), event("at 3", 3), event("at 5", 5))
    )
    await stage.play()
    assert stage.got == ["welcome", "at 0", "at 0, too", "1", "2", "3", "at 3", "4", "5", "at 5"]
    assert subscription.live


async def test_what_was_queued_at_one_place_is_one_write() -> None:
    stage = Stage()
    subscription = stage.subscribe(await stage.room())
    stage.backlog.step()
    subscription.lag(broadcast_of(*[event(str(number), 0) for number in range(50)]))
    assert await stage.play() == [Step.MORE]
    assert stage.got == ["welcome", *numbers(0, 49)]


async def test_an_answer_that_was_queued_is_known_when_it_is_handed_on() -> None:
    stage = Stage()
    subscription = stage.subscribe(await stage.room(messages=2))
    stage.backlog.step()
    subscription.lag(broadcast_of(event("at 0", 0)))
    subscription.answer_behind((text_frame(b"members"),), 1)
    assert [stage.backlog.step() for _ in range(2)] == [Step.MORE] * 2
    assert (stage.got, stage.sink.opened_times) == (["welcome", "at 0", "1"], 1)
    await stage.play()
    assert (stage.got[3:], stage.sink.opened_times) == (["members", "2"], 2)


async def test_what_was_posted_and_has_no_outcome_yet_is_not_complete() -> None:
    stage = Stage()
    room = await stage.room()
    stage.subscribe(room)
    await stage.play()
    assert stage.backlog.complete
    stage.member.outstanding = 1
    assert not stage.backlog.complete
    stage.member.outstanding = 0
    room.tell_typing("bob", True)
    room.pop_broadcast()
    assert not stage.backlog.complete, "a fan-out is on its way"


async def test_a_subscription_that_a_fan_out_has_not_come_to_gets_what_came_before_and_is_not_live() -> None:
    stage = Stage()
    room = await stage.room(messages=3)
    subscription = stage.subscribe(room)
    stage.backlog.step()
    await stage.post(room, 2)
    await stage.play()
    assert (stage.got, subscription.live) == (["welcome", "1", "2", "3"], False)
    subscription.seen = room.number
    subscription.lag(broadcast_of(event("at 3", 3)))
    await stage.play()
    assert (stage.got[4:], subscription.live) == (["at 3", "4", "5"], True)


async def test_a_subscription_with_bytes_on_their_way_is_not_live_yet() -> None:
    stage = Stage(space=0)
    subscription = stage.subscribe(await stage.room())
    assert stage.backlog.step() is Step.MORE
    assert stage.backlog.step() is Step.MORE  # flush, and ask again
    assert not subscription.live
    stage.transport.give_room(PLENTY)
    await stage.play()
    assert subscription.live


async def test_after_presence_was_dropped_the_members_are_told_before_the_subscription_is_live() -> None:
    stage = Stage()
    room = await stage.room(messages=1)
    room.roster.enter("bob")
    subscription = stage.subscribe(room)
    subscription.presence_dropped = True
    await stage.play()
    assert stage.got == [
        "welcome",
        "1",
        '{"event":"members","data":{"members":["alice","bob"]},"room":"r"}',
    ]
    assert (subscription.presence_dropped, subscription.live) == (False, True)


async def test_who_is_told_the_members_is_not_told_what_the_list_says_already() -> None:
    stage = Stage()
    room = await stage.room()
    subscription = stage.subscribe(room)
    subscription.presence_dropped = True
    bob = Member("bob", Told())
    room.enter(Subscription(bob, room, FixedJoinReply(0, b"")))
    room.tell_joined("bob")
    await stage.play()
    assert stage.got[1:] == ['{"event":"members","data":{"members":["alice","bob"]},"room":"r"}']
    assert subscription.live
    room.tell_typing("bob", True)
    room.pop_broadcast()
    await stage.play()
    assert stage.got[2:] == ['{"event":"typing","data":{"username":"bob","active":true},"room":"r"}']
    assert subscription.live


async def test_a_switch_ends_the_range_of_the_old_subscription_and_does_not_discard_it() -> None:
    stage = Stage(space=0)
    old, new = await stage.room("old", messages=3), await stage.room("new", messages=2)
    first = stage.subscribe(old)
    old.end_subscription(first)
    old.leave(first)
    await stage.post(old, 2)
    second = stage.subscribe(new, join_reply=b"switched")
    assert not stage.backlog.complete
    stage.transport.give_room(PLENTY)
    await stage.play()
    assert stage.got == ["welcome", "1", "2", "3", "switched", "1", "2"]
    assert (stage.gone, stage.member.subscriptions) == ([first], [second])
    assert stage.backlog.complete


async def test_a_subscription_that_was_live_may_end_without_anything_left_to_give() -> None:
    stage = Stage()
    old = await stage.room("old", messages=1)
    first = stage.subscribe(old)
    await stage.play()
    old.end_subscription(first)
    old.leave(first)
    stage.subscribe(await stage.room("new"), join_reply=b"switched")
    await stage.play()
    assert stage.got == ["welcome", "1", "switched"]
    assert stage.gone == [first]


@pytest.mark.parametrize("how", ["broken", "shut"])
async def test_where_nothing_can_be_sent_the_reader_is_released_and_nothing_else_is_done(how: str) -> None:
    stage = Stage()
    old, new = await stage.room("old", messages=3), await stage.room("new")
    stage.subscribe(old)
    if how == "broken":
        stage.transport.fail()
        stage.wire.put(b"x")
    else:
        stage.wire.close(1000, "bye")
    assert stage.backlog.step() is Step.IDLE
    told = stage.sink.opened_times
    assert told >= 1
    stage.subscribe(new)  # a switch that was under way
    assert stage.backlog.step() is Step.IDLE
    assert stage.sink.opened_times > told
    assert (stage.given, stage.got) == (0, [])
