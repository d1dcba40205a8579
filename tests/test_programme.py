"""What a connection still has to get, piece by piece and in order, whatever of it is at hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from chatroom.adapters.memory import MemoryEngine
from chatroom.adapters.wire import Wire
from chatroom.pure.frames import text_frame
from chatroom.pure.ring import RingBudget
from chatroom.tasks.programme import Programme, Step
from chatroom.tasks.room import Room
from chatroom.tasks.stay import Item, Member, Stay
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect
from chatroom.values.limits import Limits
from chatroom.values.messages import Draft, Message, Stored
from tests.support.hall import split_frames
from tests.support.memory_transport import MemoryTransport

PLENTY = 1 << 30


@dataclass
class Told:
    """An outlet that only notes what it is told."""

    opened_times: int = 0
    wire: Wire | None = None

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        assert self.wire is not None
        return self.wire.offer(data, ends)

    def opened(self) -> None:
        self.opened_times += 1

    def wake(self) -> None: ...
    def answer(self, payload: bytes) -> None: ...
    def settled(self) -> None: ...
    def reply(self, payload: bytes) -> None: ...
    def end(self, why: Disconnect) -> None: ...


@dataclass
class Stage:
    """One member with a programme, and rooms whose logs are written by the test."""

    ring_bytes: int = PLENTY
    keep: int = 500
    space: int = PLENTY
    direct: bool = True
    let_go: list[Stay] = field(default_factory=list)
    delivered: int = 0
    engine: MemoryEngine | None = None

    def __post_init__(self) -> None:
        self.engine = self.engine or MemoryEngine(lambda: "e", per_room=self.keep)
        self.budget = RingBudget(self.ring_bytes)
        self.transport = MemoryTransport(room=self.space, direct=self.direct)
        self.wire = Wire(
            self.transport, Limits(), initial=b"", on_pending=lambda: None, on_fault=lambda _: None
        )
        self.outlet = Told(wire=self.wire)
        self.member = Member("alice", self.outlet)
        self.programme = Programme(
            self.member, self.wire, self.engine, let_go=self.let_go.append, delivered=self._count
        )

    def _count(self, number: int) -> None:
        self.delivered += number

    async def room(self, name: str = "r", messages: int = 0) -> Room:
        room = Room(name, await self.engine.open(name), self.budget)
        await self.post(room, messages)
        return room

    async def post(self, room: Room, times: int = 1) -> None:
        for _ in range(times):
            number = room.head + 1
            (outcome,) = await self.engine.append([Draft(room.name, "bob", str(number), None, number)])
            assert isinstance(outcome, Stored)
            room.store(outcome.message)
        room.take_broadcast(0.0)

    def stay(self, room: Room, cursor: int = 0, opening: bytes = b"welcome") -> Stay:
        stay = Stay(self.member, room, cursor, text_frame(opening))
        stay.seen = room.number
        self.member.stays.append(stay)
        room.stays[stay] = None
        room.roster.enter("alice")
        return stay

    async def play(self) -> list[Step]:
        """Take steps until there is nothing to do, as a writer does."""
        steps = []
        while (step := self.programme.step()) is not Step.IDLE:
            steps.append(step)
            if step is Step.READ:
                await self.programme.read_on()
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


def item(text: str, position: int, *, presence: bool = False) -> Item:
    return Item(text_frame(text.encode()), position, presence=presence)


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def test_who_is_nowhere_has_nothing_to_get() -> None:
    stage = Stage()
    assert stage.programme.step() is Step.IDLE
    assert not stage.programme.complete  # it is still on its way in


async def test_a_stay_begins_with_its_opening_and_goes_live_when_all_is_given() -> None:
    stage = Stage()
    stay = stage.stay(await stage.room(messages=5), cursor=2)
    assert stage.programme.step() is Step.MORE
    assert (stage.got, stage.outlet.opened_times, stay.live) == (["welcome"], 1, False)
    await stage.play()
    assert stage.got == ["welcome", "3", "4", "5"]
    assert (stay.live, stage.programme.complete, stay.cursor, stage.delivered) == (True, True, 5, 3)
    assert stage.programme.step() is Step.IDLE


async def test_what_the_ring_has_is_not_asked_of_the_log() -> None:
    stage = Stage()
    stage.stay(await stage.room(messages=300))
    assert Step.READ not in await stage.play()
    assert stage.got == ["welcome", *numbers(1, 300)]


async def test_what_the_ring_has_forgotten_comes_from_the_log_and_the_rest_from_the_ring() -> None:
    stage = Stage(ring_bytes=5000)  # about 60 messages
    room = await stage.room(messages=450)
    stage.stay(room)
    steps = await stage.play()
    assert steps.count(Step.READ) == 2
    assert steps[-1] is Step.MORE
    assert stage.got == ["welcome", *numbers(1, 450)]
    assert stage.delivered == 450


@pytest.mark.parametrize("direct", [True, False], ids=["plain", "tls"])
async def test_a_piece_is_of_bounded_size_whatever_it_comes_from(direct: bool) -> None:
    for ring_bytes in (0, PLENTY):
        stage = Stage(ring_bytes=ring_bytes, direct=direct, space=0)
        room = await stage.room()
        outcomes = await stage.engine.append(
            [Draft("r", "bob", f"{number:-<8000}", None, 1) for number in range(100)]
        )
        for outcome in outcomes:
            assert isinstance(outcome, Stored)
            room.store(outcome.message)
        room.take_broadcast(0.0)
        stay = stage.stay(room)
        stage.programme.step()
        if stage.programme.step() is Step.READ:
            await stage.programme.read_on()
        assert 1 <= stay.cursor <= 8, "of a peer that takes nothing, a small piece is held"


async def test_a_cursor_behind_what_is_kept_ends_the_connection_and_never_skips() -> None:
    stage = Stage(ring_bytes=0, keep=10)
    stay = stage.stay(await stage.room(messages=20), cursor=9)
    assert stage.programme.step() is Step.MORE
    assert stage.programme.step() is Step.READ
    with pytest.raises(Disconnect) as caught:
        await stage.programme.read_on()
    assert caught.value.code == CloseCode.TOO_FAR_BEHIND
    assert (stay.cursor, stage.got) == (9, ["welcome"])


class HoleyEngine(MemoryEngine):
    """Breaks the port's word: it leaves out the first `missing` messages that it is asked for."""

    missing = 1

    async def read(self, room: str, after: int, upto: int, limit: int) -> list[Message]:
        return (await super().read(room, after, upto, limit))[self.missing :]


@pytest.mark.parametrize("missing", [1, 500])
async def test_a_hole_in_the_log_ends_the_connection_and_is_not_passed_over(missing: int) -> None:
    engine = HoleyEngine(lambda: "e")
    engine.missing = missing
    stage = Stage(ring_bytes=0, engine=engine)
    stay = stage.stay(await stage.room(messages=20))
    assert [stage.programme.step(), stage.programme.step()] == [Step.MORE, Step.READ]
    with pytest.raises(Disconnect) as caught:
        await stage.programme.read_on()
    assert caught.value.code == CloseCode.INTERNAL_ERROR
    assert (stay.cursor, stage.got) == (0, ["welcome"])


async def test_what_was_withheld_comes_at_its_place() -> None:
    stage = Stage()
    stay = stage.stay(await stage.room(messages=5))
    stay.lag([item("at 0", 0), item("at 0, too", 0), item("at 3", 3), item("at 5", 5)], 0)
    await stage.play()
    assert stage.got == ["welcome", "at 0", "at 0, too", "1", "2", "3", "at 3", "4", "5", "at 5"]
    assert stay.live


async def test_what_was_withheld_at_one_place_is_one_write() -> None:
    stage = Stage()
    stay = stage.stay(await stage.room())
    stay.lag([item(str(number), 0) for number in range(50)], 0)
    assert await stage.play() == [Step.MORE] * 2
    assert stage.got == ["welcome", *numbers(0, 49)]


async def test_an_answer_that_was_withheld_is_known_when_it_is_handed_on() -> None:
    stage = Stage()
    stay = stage.stay(await stage.room(messages=2))
    stay.lag([item("at 0", 0), Item(text_frame(b"members"), 1, reply=True)], 0)
    assert [stage.programme.step() for _ in range(3)] == [Step.MORE] * 3
    assert (stage.got, stage.outlet.opened_times) == (["welcome", "at 0", "1"], 1)
    await stage.play()
    assert (stage.got[3:], stage.outlet.opened_times) == (["members", "2"], 2)


async def test_what_was_posted_and_has_no_outcome_yet_is_not_complete() -> None:
    stage = Stage()
    room = await stage.room()
    stage.stay(room)
    await stage.play()
    assert stage.programme.complete
    stage.member.outstanding = 1
    assert not stage.programme.complete
    stage.member.outstanding = 0
    room.tell_typing("bob", True)
    room.take_broadcast(0.0)
    assert not stage.programme.complete, "a fan-out is on its way"


async def test_a_stay_that_a_fan_out_has_not_come_to_is_not_live_yet() -> None:
    stage = Stage()
    room = await stage.room(messages=3)
    stay = stage.stay(room)
    stay.seen -= 1
    await stage.play()
    assert (stay.live, stay.cursor) == (False, 3)
    stay.seen = room.number
    await stage.play()
    assert stay.live


async def test_a_stay_with_bytes_on_their_way_is_not_live_yet() -> None:
    stage = Stage(space=0)
    stay = stage.stay(await stage.room())
    assert stage.programme.step() is Step.MORE
    assert stage.programme.step() is Step.MORE  # flush, and ask again
    assert not stay.live
    stage.transport.give_room(PLENTY)
    await stage.play()
    assert stay.live


async def test_after_presence_was_dropped_the_members_are_told_before_the_stay_is_live() -> None:
    stage = Stage()
    room = await stage.room(messages=1)
    room.roster.enter("bob")
    stay = stage.stay(room)
    stay.missed = True
    await stage.play()
    assert stage.got == [
        "welcome",
        "1",
        '{"event":"members","data":{"members":["alice","bob"]},"room":"r"}',
    ]
    assert (stay.missed, stay.live) == (False, True)


async def test_the_members_are_not_told_while_a_broadcast_is_about_to_tell_of_one() -> None:
    stage = Stage()
    room = await stage.room()
    stay = stage.stay(room)
    stay.missed = True
    room.tell_typing("bob", True)
    await stage.play()
    assert (stage.got, stay.live) == (["welcome"], False)
    room.take_broadcast(0.0)
    stay.seen = room.number
    await stage.play()
    assert len(stage.got) == 2
    assert stay.live


async def test_a_switch_ends_the_range_of_the_old_stay_and_does_not_discard_it() -> None:
    stage = Stage(space=0)
    old, new = await stage.room("old", messages=3), await stage.room("new", messages=2)
    first = stage.stay(old)
    old.end_stay(first)
    old.leave(first, quiet=True)
    await stage.post(old, 2)
    second = stage.stay(new, opening=b"switched")
    assert not stage.programme.complete
    stage.transport.give_room(PLENTY)
    await stage.play()
    assert stage.got == ["welcome", "1", "2", "3", "switched", "1", "2"]
    assert (stage.let_go, stage.member.stays) == ([first], [second])
    assert stage.programme.complete


async def test_a_stay_that_was_live_may_end_without_anything_left_to_give() -> None:
    stage = Stage()
    old = await stage.room("old", messages=1)
    first = stage.stay(old)
    await stage.play()
    old.end_stay(first)
    old.leave(first, quiet=True)
    stage.stay(await stage.room("new"), opening=b"switched")
    await stage.play()
    assert stage.got == ["welcome", "1", "switched"]
    assert stage.let_go == [first]


@pytest.mark.parametrize("how", ["broken", "shut"])
async def test_where_nothing_can_be_sent_the_reader_is_let_go_and_nothing_else_is_done(how: str) -> None:
    stage = Stage()
    old, new = await stage.room("old", messages=3), await stage.room("new")
    stage.stay(old)
    if how == "broken":
        stage.transport.fail()
        stage.wire.put(b"x")
    else:
        stage.wire.close(1000, "bye")
    assert stage.programme.step() is Step.IDLE
    told = stage.outlet.opened_times
    assert told >= 1
    stage.stay(new)  # a switch that was under way
    assert stage.programme.step() is Step.IDLE
    assert stage.outlet.opened_times > told
    assert (stage.delivered, stage.got) == (0, [])
