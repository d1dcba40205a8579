"""The built server after two thousand resets at random stages: nothing of them is left."""

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.client import target
from tests.support.raw import TEXT, Raw, command, frame, handshake, head, seed
from tests.support.scene import Scene, Served, await_empty, await_true, gauges, served

AT_ONCE = 20
FULL = "full"
"""The one room in which something is said: what it keeps is kept on purpose, up to 500 messages."""
MIB = 1 << 20


class Rude:
    """Clients that end with a reset, each at a stage chosen by chance."""

    def __init__(self, server: Served, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self._names = 0
        self.stages: list[Callable[[Raw], None]] = [
            self.silent,
            self.half_a_head,
            self.plain_request,
            self.handshake_unread,
            self.refused,
            self.after_101,
            self.mid_frame,
            self.mid_message,
            self.in_a_room,
            self.with_unread_data,
            self.glued,
            self.switching,
            self.rushing,
            self.half_closed,
        ]

    def _target(self, room: str | None = None) -> str:
        """A handshake, by default for a room in which nothing is ever said."""
        self._names += 1
        if room is None:
            room = f"room-{self._chance.randrange(30)}" if self._names % 2 else f"once-{self._names}"
        return target(room, f"user-{self._names % 500}")

    def silent(self, raw: Raw) -> None:
        """Nothing was sent."""

    def half_a_head(self, raw: Raw) -> None:
        whole = handshake(self._target())
        raw.send(whole[: self._chance.randrange(1, len(whole))])

    def plain_request(self, raw: Raw) -> None:
        raw.send(head("GET / HTTP/1.1", ("Host", "localhost")))

    def handshake_unread(self, raw: Raw) -> None:
        raw.send(handshake(self._target()))

    def refused(self, raw: Raw) -> None:
        raw.send(handshake("/?token=wrong"))
        if self._chance.random() < 0.5:
            raw.read_answer()

    def after_101(self, raw: Raw) -> None:
        raw.upgrade(self._target())

    def mid_frame(self, raw: Raw) -> None:
        raw.upgrade(self._target())
        whole = frame(b"x" * self._chance.choice((10, 1000, 60_000)))
        raw.send(whole[: self._chance.randrange(1, len(whole))])

    def mid_message(self, raw: Raw) -> None:
        raw.upgrade(self._target())
        raw.send(frame(b"x", first=TEXT) + frame(b"x", first=0) * self._chance.randrange(60))

    def in_a_room(self, raw: Raw) -> None:
        raw.upgrade(self._target())
        assert raw.read_text()["event"] == "welcome"

    def with_unread_data(self, raw: Raw) -> None:
        raw.upgrade(self._target(FULL))
        raw.send(command("message", text="y" * 1000) * self._chance.randrange(20))

    def glued(self, raw: Raw) -> None:
        raw.send(handshake(self._target(FULL)) + command("message", text="hi") * 3 + command("history"))

    def switching(self, raw: Raw) -> None:
        raw.upgrade(self._target(FULL))
        room = f"room-{self._chance.randrange(30)}"
        raw.send(command("message", text="bye"), command("switch_room", room=room), command("members", "m"))

    def rushing(self, raw: Raw) -> None:
        """Commands for a room that it may never see, behind a switch that is never answered."""
        raw.upgrade(self._target(FULL))
        rest = [command("message", text="y" * 100), *(command("members") for _ in range(10))]
        self._chance.shuffle(rest)
        raw.send(command("message", text="z"), command("switch_room", room=f"{FULL}-2"), *rest)

    def half_closed(self, raw: Raw) -> None:
        raw.upgrade(self._target())
        raw.half_close()

    def crowd(self, size: int, stages: Sequence[Callable[[Raw], None]] = ()) -> None:
        """So many of them, a few at a time."""
        for _ in range(size // AT_ONCE):
            raws = [Raw(self._server.port) for _ in range(AT_ONCE)]
            for raw in raws:
                self._chance.choice(stages or self.stages)(raw)
            self._chance.shuffle(raws)
            for raw in raws:
                raw.reset()


def rss(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def settled(measure: Callable[[], int], below: int) -> int:
    """The measure, once it is below, or else after a moment: what was freed may be given back late."""
    deadline = time.monotonic() + 3
    while (found := measure()) > below and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


STAGES = 14


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0", "--log-level", "warning") as server:
        yield server


@pytest.mark.parametrize("stage", range(STAGES))
def test_resets_at_each_stage(server: Served, stage: int) -> None:
    rude = Rude(server, random.Random(seed()))
    assert len(rude.stages) == STAGES
    with Scene(server):
        rude.crowd(60, rude.stages[stage : stage + 1])
    await_empty(server, 2)


def test_a_third_thousand_of_resets_leaves_nothing(pyz: Path) -> None:
    chance = random.Random(seed())
    with served("--rate", "0", "--log-level", "warning") as server, Scene(server) as scene:
        scene.pair()
        speaker = scene.join("speaker", FULL)
        for _ in range(500):
            speaker.say("y" * 1000)
        speaker.messages(500)
        speaker.close()
        rude = Rude(server, chance)
        for _ in range(2):  # the allocator takes most of what it needs
            rude.crowd(1000)
            await_empty(server, 4)
        before = gauges(server)
        memory, files = rss(server.pid), descriptors(server.pid)
        rude.crowd(1000)
        await_empty(server, 4)
        assert settled(lambda: descriptors(server.pid), files) <= files
        grown = settled(lambda: rss(server.pid), memory + 2 * MIB) - memory
        assert grown < 2 * MIB, f"{grown} bytes more"
        for name in ("connections", "rooms", "presences", "tasks", "lagging_members"):
            # The last request before this one may still be on its way out.
            await_true(lambda n=f"chatroom_{name}": gauges(server)[n] <= before[n], f"{name} return")
        assert gauges(server)['chatroom_drops_total{reason="internal_error"}'] == 0


def test_more_thousands_of_empty_rooms_leave_nothing(pyz: Path) -> None:
    """A room in which nothing was said is freed when its last member has gone on.

    What a room left behind would be there after each round; what the allocator takes once is not.
    """
    with served("--rate", "0", "--log-level", "warning") as server, Scene(server) as scene:
        nomad = scene.raw("nomad")
        measured = []
        for first in range(0, 16_000, 4_000):
            for number in range(first, first + 4_000, 100):
                nomad.send(*(command("switch_room", room=f"room-{number + index}") for index in range(100)))
                for index in range(100):
                    assert nomad.read_text()["data"] == {"room": f"room-{number + index}"}
            assert gauges(server)["chatroom_rooms"] <= 3
            measured.append(rss(server.pid))
        assert min(after - before for before, after in pairwise(measured)) < MIB // 8
