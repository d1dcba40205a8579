"""Edits, deletions, sanctions and follows among arbitrary traffic: what clients are left with is what is so.

Whole connections in memory, and clients that apply frames by the documented rule.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.auth.rights import Rights
from chatroom.core.errors import CloseCode
from chatroom.core.messages import (
    STORED,
    Deleted,
    Draft,
    Edited,
    Message,
    Moderated,
    Outcome,
    Page,
    Record,
)
from chatroom.core.sanctions import REMOVES, Action, Sanctions
from chatroom.engines import changes
from chatroom.engines.memory import MemoryEngine
from tests.support.client_frames import CLOSE, TEXT, read_frames
from tests.support.engines import Answered, Committed, later
from tests.support.line import Caller, House, command, open_house
from tests.support.memory_transport import MemoryTransport

PLENTY = 1 << 40
ROOMS = ("a", "b")
RIGHTS = {
    "ann": Rights.parse({"a": "rwm", "*": "rw"}),
    "cid": Rights.parse({"b": "rwm", "*": "rw"}),
    "bob": Rights.parse({"*": "rw"}),
    "dan": Rights.parse({"*": "rw"}),
}
NAMES = tuple(RIGHTS)


# What is so: the log, as the engine has decided it


@dataclass
class Log:
    """All that was ever stored in a room, and its messages as they are now."""

    records: list[Record] = field(default_factory=list)
    messages: dict[int, Message] = field(default_factory=dict)
    # Texts that were replaced: by the id of what did it, then those of the records that had the text.
    gone: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, record: Record) -> None:
        assert record.id == len(self.records) + 1
        self.records.append(record)
        if isinstance(record, Message):
            self.messages[record.id] = record
        elif isinstance(record, Edited | Deleted):
            old = self.messages[record.about]
            self.gone += [(record.id, held, old.text) for held in {record.about, record.replaces}]
            self.messages[record.about] = changes.as_it_is(old, record)


class SlowEngine(MemoryEngine):
    """Answers late. It writes down what it decides.

    `delays` are the seconds before it stores something, until it tells so, and until it tells what it has
    read.
    """

    def __init__(self, delays: tuple[float, float, float], per_room: int, now_ms: Callable[[], int]) -> None:
        numbers = count(1)
        super().__init__(lambda: f"epoch{next(numbers)}", per_room=per_room, now_ms=now_ms)
        self._before, self._after, self._reading = delays
        self.logs: dict[str, Log] = {room: Log() for room in ROOMS}

    def _append(self, draft: Draft) -> Outcome:
        outcome = super()._append(draft)
        if isinstance(outcome, STORED):
            self.logs[draft.room].add(outcome)
        return outcome

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        def answered(outcomes: list[Outcome] | Exception) -> None:
            self._later(self._after, partial(committed, outcomes))

        self._later(self._before, partial(super().append, drafts, answered))

    def open(self, room: str, opened: Answered) -> None:
        super().open(room, lambda head: self._later(self._after, partial(opened, head)))

    @staticmethod
    def _later(seconds: float, call: Callable[[], None]) -> None:
        if seconds:
            later(partial(trio.sleep, seconds), call)
        else:
            call()

    async def read(self, *asked: Any, **bounds: Any) -> list[Record]:
        found = await super().read(*asked, **bounds)
        await trio.sleep(self._reading)
        return found

    async def history(self, *asked: Any, **bounds: Any) -> Page:
        page = await super().history(*asked, **bounds)
        await trio.sleep(self._reading)
        return page


Gone = set[tuple[str, int, str]]
"""Rooms and ids of records, and the texts that are gone from them."""


# What a client makes of it


@dataclass
class Known:
    """A message, as a client shows it."""

    text: str
    changed: int  # by the record of this id; 0: it wasn't
    deleted: bool


@dataclass
class Stay:
    """A client in a room, from `welcome` or `switched` on."""

    room: str
    epoch: str
    next: int
    last_id: int  # at the beginning: what comes behind it is news
    messages: dict[int, Known]


class Client:
    """A client that comes back, and knows how far it has got in each room."""

    def __init__(self, world: "World", name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.number = number
        self.cids = count(1)
        self.places: dict[str, Stay] = {}
        self.last_cids: list[tuple[str, dict[str, Any], str]] = []
        self._connect_fresh()

    def _connect_fresh(self) -> None:
        self.caller: Caller | None = None
        self.parsed = 0  # bytes of what has come that were looked at
        self.stay: Stay | None = None
        self.asked: Counter[str] = Counter()
        self.fresh: set[str] = set()
        self.answered: Counter[str] = Counter()
        self.stored: set[tuple[str, str, int]] = set()  # cid, room, id of records of its own
        self.marks: list[tuple[int, Gone]] = []
        self.gone_when_asked: dict[str, Gone] = {}
        self.switching = ""
        self.follows: dict[str, tuple[int, int]] = {}
        self.followed_since: dict[str, int] = {}
        self.removed = False

    async def connect(self, room: str, size: int, *, resume: bool, tls: bool) -> None:
        self._connect_fresh()
        place = self.places.get(room) if resume else None
        if place is None:
            self.places.pop(room, None)
        transport = MemoryTransport(room=200 + size, tls=tls)  # the answer to the handshake
        transport.patience = 1e6
        self.caller = await self.world.house.call(
            self.name,
            room=room,
            rights=RIGHTS[self.name],
            transport=transport,
            since=None if place is None else place.next - 1,
            epoch=None if place is None else place.epoch,
        )

    @property
    def lasts(self) -> bool:
        return self.caller is not None and self.caller.end.ending is None

    @property
    def room(self) -> str:
        assert self.caller is not None
        current = self.caller.member.current
        return current.room.name if current is not None else ROOMS[0]

    @property
    def is_switching(self) -> bool:
        """Whether a switch isn't answered yet, as far as it knows."""
        return self.switching != "" and not self.answered[self.switching]

    def send(self, event: str, *, retry: tuple[str, dict[str, Any], str] | None = None, **data: Any) -> None:
        assert self.caller is not None
        if retry is not None:
            event, data, cid = retry
        else:
            cid = f"{self.number}-{next(self.cids)}"
            self.fresh.add(cid)
            if event in ("message", "edit", "delete"):
                self.last_cids.append((event, data, cid))
        self.asked[cid] += 1
        self.gone_when_asked[cid] = self.world.gone()
        self.caller.transport.arrive(command(event, cid, **data))

    def mark(self) -> None:
        """From here on nothing is sent that is gone by now."""
        assert self.caller is not None
        outbound = self.caller.connection._wire.outbound
        queued = sum(len(data) for data, _ in outbound._queue) - outbound._at
        sent = len(self.caller.transport.taken) + queued + len(self.caller.transport._rest)
        self.marks.append((sent, self.world.gone()))

    # What comes

    def receive(self) -> None:
        """Look at everything that has come."""
        assert self.caller is not None
        assert self.caller.error is None, self.caller.error
        taken = bytes(self.caller.transport.taken)
        if not self.parsed:
            head, found, _ = taken.partition(b"\r\n\r\n")
            self.parsed = len(head) + 4 if found else 0
        frames, rest = read_frames(taken[self.parsed :]) if self.parsed else ([], b"")
        at = self.parsed
        for frame in frames:
            size = len(frame.payload)
            length = size + (2 if size < 126 else 4 if size < 1 << 16 else 10)
            if frame.opcode == TEXT:
                self._see(json.loads(frame.payload), at)
            elif frame.opcode == CLOSE and frame.close_code == CloseCode.REMOVED:
                moderates = self.stay is not None and RIGHTS[self.name].can(self.stay.room, "m")
                assert self.is_switching or not moderates, "sanctions don't bite moderators"
            at += length
        self.parsed = len(taken) - len(rest)

    def _see(self, frame: dict[str, Any], at: int) -> None:
        event, data, cid = frame["event"], frame["data"], frame.get("cid")
        match event:
            case "welcome" | "switched":
                self._enter(frame)
            case "message" | "edited" | "deleted" | "moderated":
                self._record(frame, at)
                return
            case "history":
                self._page(frame)
            case "activity":
                if data["room"] in self.follows:
                    assert not self.is_banned(data["room"], data["last_id"])
                    self.follows[data["room"]] = (data["last_id"], data["messages"])
                return
            case "ack" if "rooms" in data:
                self.follows = {each["room"]: (each["last_id"], each["messages"]) for each in data["rooms"]}
                self.followed_since = {each["room"]: each["last_id"] for each in data["rooms"]}
            case "joined" | "left" | "typing" | "members" | "ack" | "error" | "sanctions" | "pong":
                pass
            case _:
                raise AssertionError(frame)
        if cid is not None:
            self.answered[cid] += 1

    def _enter(self, frame: dict[str, Any]) -> None:
        assert self.stay is None or self.stay.next == self.stay_end(), "all of the old room comes first"
        room = frame["room"] if frame["event"] == "welcome" else frame["data"]["room"]
        first = frame["last_id"] - frame["replay"] + 1
        before = self.places.get(room)
        known: dict[int, Known] = {}
        if frame.get("recovered"):
            assert before is not None
            assert (before.epoch, before.next) == (frame["epoch"], first)
            known = before.messages
        self.stay = self.places[room] = Stay(room, frame["epoch"], first, frame["last_id"], known)
        self.removed = False

    def stay_end(self) -> int:
        assert self.stay is not None
        return self.stay.next

    def _record(self, frame: dict[str, Any], at: int) -> None:
        stay, data, number = self.stay, frame["data"], frame["id"]
        assert stay is not None
        assert (frame["room"], number) == (stay.room, stay.next), "a gap, a repetition or a stranger"
        stay.next += 1
        if frame["event"] in ("message", "edited"):
            gone = next((gone for sent, gone in reversed(self.marks) if sent <= at), Gone())
            assert (stay.room, number, data["text"]) not in gone, "it was gone before it was read"
        match frame["event"]:
            case "message":
                self._know(number, frame, data["text"])
            case "edited" | "deleted" if (known := stay.messages.get(data["id"])) is not None:
                if number > known.changed:
                    deleted = frame["event"] == "deleted"
                    stay.messages[data["id"]] = Known(data.get("text", ""), number, deleted)
            case "moderated" if data["username"] == self.name and number > stay.last_id:
                self.removed |= data["action"] in REMOVES
        by = data["username"] if frame["event"] == "message" else data["by"]
        if by == self.name and frame.get("cid") in self.asked:
            self.stored.add((frame["cid"], stay.room, number))

    def _know(self, number: int, message: dict[str, Any], text: str) -> None:
        assert self.stay is not None
        changed = message.get("deleted") or message.get("edited") or 0
        self.stay.messages[number] = Known(text, changed, "deleted" in message)

    def _page(self, frame: dict[str, Any]) -> None:
        found = frame["data"]["messages"]
        assert self.stay is not None
        assert frame["room"] == self.stay.room
        numbers = [each["id"] for each in found]
        assert numbers == sorted(set(numbers))
        gone = self.gone_when_asked[frame["cid"]]
        for each in found:
            had = (self.stay.room, each["id"], each["text"])
            assert had not in gone, "it was gone before it was asked for"
            self._know(each["id"], each, each["text"])

    # In the end

    def check(self) -> None:
        """It is still there, and has got everything."""
        stay, log = self.stay, None
        assert stay is not None
        log = self.world.engine.logs[stay.room]
        assert stay.next == len(log.records) + 1
        for number, known in stay.messages.items():
            message = log.messages[number]
            changed = message.deleted or message.edited or 0
            assert known == Known(message.text, changed, message.deleted is not None)
        moderates = RIGHTS[self.name].can(stay.room, "m")
        assert moderates or not self.removed, "it was told to leave"
        for cid, times in self.asked.items():
            stored = len([each for each in self.stored if each[0] == cid])
            if cid in self.fresh:
                assert self.answered[cid] + stored == times, cid
            else:
                assert self.answered[cid] <= times <= self.answered[cid] + stored, cid
        self._check_follows()

    def is_banned(self, room: str, upto: int) -> bool:
        """Whether a ban has ended that it follows a room, up to this record."""
        since = self.followed_since[room]
        records = self.world.engine.logs[room].records[since:upto]
        actions = [(each.action, each.target) for each in records if isinstance(each, Moderated)]
        return (Action.BAN, self.name) in actions and not RIGHTS[self.name].can(room, "m")

    def _check_follows(self) -> None:
        for room, told in self.follows.items():
            log = self.world.engine.logs[room]
            if self.is_banned(room, len(log.records)):
                continue
            since = self.followed_since[room]
            last = max((number for number in log.messages if number > since), default=told[0])
            assert told == (last, len(log.messages)), room


# What happens


@dataclass
class World:
    house: House
    engine: SlowEngine
    clients: list[Client] = field(default_factory=list)
    texts: Any = field(default_factory=lambda: count(1))

    def pick(self, index: int) -> Client | None:
        """A client that is connected and in a room."""
        able = [
            each
            for each in self.clients
            if each.lasts and each.caller is not None and each.caller.member.current is not None
        ]
        return able[index % len(able)] if able else None

    def text(self) -> str:
        return f"text {next(self.texts)}"

    def gone(self) -> Gone:
        """The texts that are replaced or deleted, and everybody has been told so."""
        found = Gone()
        for name, log in self.engine.logs.items():
            room = self.house.harness.rooms.get(name)
            head = len(log.records) if room is None else room.head
            found |= {(name, held, text) for number, held, text in log.gone if number <= head and text}
        return found

    async def rest(self) -> None:
        """Let everything come to rest, and look at what has come."""
        for _ in range(3):
            await trio.sleep(3)
            await self.house.harness.settle()
        for client in self.clients:
            if client.caller is not None:
                client.mark()
                client.receive()


index = st.integers(0, 30)
sizes = st.sampled_from([0, 100, 1000, PLENTY, PLENTY])
operations = st.one_of(
    st.tuples(st.just("join"), st.sampled_from(NAMES), st.sampled_from(ROOMS), sizes, st.booleans()),
    st.tuples(st.just("say"), index, st.integers(1, 4)),
    st.tuples(st.just("edit"), index, index),
    st.tuples(st.just("delete"), index, index),
    st.tuples(st.just("edit"), index, index),
    st.tuples(st.just("retry"), index, index, st.booleans()),
    st.tuples(
        st.just("moderate"), index, st.sampled_from(Action), st.sampled_from(NAMES),
        st.sampled_from([None, 1, 60]),
    ),
    st.tuples(st.just("history"), index, st.sampled_from(["before", "after", ""]), index),
    st.tuples(st.just("ask"), index, st.sampled_from(["members", "sanctions", "ping"])),
    st.tuples(st.just("switch"), index, st.sampled_from(ROOMS), st.booleans()),
    st.tuples(st.just("follow"), index, st.lists(st.sampled_from(ROOMS), unique=True)),
    st.tuples(st.just("room"), index, st.sampled_from([50, 300, 2000])),
    st.tuples(st.just("drop"), index),
    st.tuples(st.just("back"), index, sizes, st.booleans()),
    st.tuples(st.just("clock"), st.sampled_from([500, 5000, 60_000])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 1.0])),
    st.tuples(st.just("rest")),
)  # fmt: skip

DELAYS = [
    (0.0, 0.0, 0.0),
    (0.3, 0.0, 0.0),
    (0.0, 0.3, 0.0),
    (0.05, 0.2, 0.1),
    (0.0, 0.0, 0.5),
    (0.0, 0.1, 0.5),
]
BEGINNING = [
    ("join", "ann", "a", PLENTY, False),
    ("join", "cid", "b", PLENTY, False),
    ("join", "bob", "a", 300, False),
    ("join", "dan", "a", PLENTY, True),
    ("say", 2, 3),
]


async def perform(world: World, operation: tuple[Any, ...]) -> None:
    match operation:
        case ("join", name, room, size, tls):
            client = Client(world, name, len(world.clients))
            world.clients.append(client)
            await client.connect(room, size, resume=False, tls=tls)
        case ("back", at, size, tls):
            able = [each for each in world.clients if not each.lasts]
            if able:
                client = able[at % len(able)]
                client.receive()
                room = next(iter(client.places), "a") if at % 2 else "a"
                await client.connect(room, size, resume=at % 5 > 0, tls=tls)
        case ("room", at, size):
            if world.clients and (caller := world.clients[at % len(world.clients)].caller) is not None:
                caller.transport.give_room(size)
        case ("clock", ms):
            world.house.harness.now_ms += ms
        case ("wait", seconds):
            await trio.sleep(seconds)
            await trio.testing.wait_all_tasks_blocked()
            for each in world.clients:
                each.mark()
        case ("rest",):
            await world.rest()
        case (_, at, *more):
            if (client := world.pick(at)) is not None:
                act(world, client, operation[0], *more)


def act(world: World, client: Client, what: str, *more: Any) -> None:
    log = world.engine.logs[client.room]
    match what, *more:
        case ("say", times):
            for _ in range(times):
                client.send("message", text=world.text())
        case ("edit" | "delete", at):
            own = [each.id for each in log.messages.values() if each.username == client.name][-6:]
            number = own[at % len(own)] if own and at % 5 else 1 + at % (len(log.records) + 2)
            client.send(what, id=number, **({"text": world.text()} if what == "edit" else {}))
        case ("retry", at, other) if client.last_cids:
            event, data, cid = client.last_cids[at % len(client.last_cids)]
            if other and "text" in data:
                data = data | {"text": world.text()}
            client.send("", retry=(event, data, cid))
        case ("moderate", action, target, seconds):
            data = {} if seconds is None or action not in ("mute", "ban") else {"seconds": seconds}
            client.send("moderate", action=action, username=target, **data)
        case ("history", way, at):
            bound = {way: at} if way else {}
            client.send("history", **bound, limit=1 + at % 7)
        case ("ask", event):
            client.send(event)
        case ("switch", room, resume):
            client.receive()
            place = client.places.get(room)
            # In its own room, or before an earlier switch, it learns more than it knows now.
            if place is None or not resume or client.stay is place or client.is_switching:
                client.send("switch_room", room=room)
            else:
                client.send("switch_room", room=room, since=place.next - 1, epoch=place.epoch)
            client.switching = list(client.asked)[-1]
        case ("follow", rooms):
            client.send("follow", rooms=rooms)
        case ("drop",):
            assert client.caller is not None
            client.caller.transport.fail()


def check_log(room: str, log: Log) -> None:
    """Nobody has said or changed anything that sanctions forbade at that moment."""
    sanctions = Sanctions()
    for record in log.records:
        if isinstance(record, Moderated):
            assert RIGHTS[record.username].can(room, "m")
            sanctions.apply(record.action, changes.sanction_of(record))
        elif not RIGHTS[record.username].can(room, "m"):
            found = sanctions.forbids(record.username, record.ts)
            muted = found is not None and found.action is Action.MUTE
            assert found is None or (muted and isinstance(record, Deleted))


async def run(
    script: list[tuple[Any, ...]], ring_bytes: int, delays: tuple[float, float, float], keep: int
) -> None:
    clock: list[Callable[[], int]] = []
    engine = SlowEngine(delays, keep, lambda: clock[0]())  # noqa: PLW0108  (it has none yet)
    async with open_house(engine=engine, ring_bytes=ring_bytes, history=5) as house:
        clock.append(lambda: house.harness.now_ms)
        world = World(house, engine)
        for operation in [*BEGINNING, *script]:
            await perform(world, operation)
        await world.rest()
        for client in world.clients:
            if client.caller is not None:
                client.caller.transport.give_room(PLENTY)
        await world.rest()
        for client in world.clients:
            if client.lasts:
                client.check()
                assert client.caller is not None
                current = client.caller.member.current
                assert current is not None
                ban = current.room.sanctions.find(Action.BAN, client.name, house.harness.now_ms)
                assert ban is None or RIGHTS[client.name].can(current.room.name, "m")
        for name, log in engine.logs.items():
            check_log(name, log)
            if (room := house.harness.rooms.get(name)) is not None:
                assert (room.head, room.messages) == (len(log.records), len(log.messages))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(operations, min_size=40, max_size=80),
    st.sampled_from([0, 1500, 1 << 20]),
    st.sampled_from(DELAYS),
    st.sampled_from([6, 12, 500]),
)
def test_whatever_happens_clients_know_the_messages_as_they_are(
    script: list[tuple[Any, ...]], ring_bytes: int, delays: tuple[float, float, float], keep: int
) -> None:
    trio.run(run, script, ring_bytes, delays, keep, clock=trio.testing.MockClock(autojump_threshold=0))
