"""The built server in a flood: who joins, switches or stops reading misses nothing and gets nothing twice."""

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import target
from tests.support.raw import CLOSE, TEXT, Raw, command, seed
from tests.support.scene import Scene, Served, await_true, gauges, served, snapshot

WIDE = "\U0001f600" * 3900
"""As many bytes as a text can have: some hundred of them are more than any socket takes."""


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0", "--log-level", "warning") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


@contextmanager
def flood(scene: Scene, *rooms: str) -> Iterator[None]:
    """Two speakers in each room, who go on as long as this lasts, a few messages ahead of their echoes."""
    over = threading.Event()
    failures: list[BaseException] = []

    def speak(raw: Raw, name: str) -> None:
        try:
            number = 0
            while not over.is_set():
                raw.send(*(command("message", text=f"{name} {number + i}") for i in range(5)))
                number += 5
                echoes = 0
                while echoes < 5:
                    found = raw.read_text()
                    echoes += found["event"] == "message" and found["data"]["username"] == name
        except BaseException as failure:
            failures.append(failure)

    speakers = []
    for index, room in enumerate(rooms * 2):
        raw = scene.raw(f"speaker{index}", room)
        speakers.append(threading.Thread(target=speak, args=(raw, f"speaker{index}")))
    for speaker in speakers:
        speaker.start()
    try:
        yield
    finally:
        over.set()
        for speaker in speakers:
            speaker.join()
    assert failures == []


def await_head(scene: Scene, least: int) -> None:
    """Wait until the flood has come so far."""
    witness = scene.join("witness")
    await_true(lambda: witness.messages(1)[0]["id"] >= least, "the flood rises")
    witness.vanish()


def stored(raw: Raw, number: int) -> list[int]:
    """The ids of the next messages."""
    ids: list[int] = []
    while len(ids) < number:
        found = raw.read_text()
        if found["event"] == "message":
            ids.append(found["id"])
    return ids


def enter(raw: Raw, where: str) -> dict[str, Any]:
    raw.upgrade(where)
    return raw.read_text()


# Joining


def test_joiners_find_no_seam_between_replay_and_live(scene: Scene) -> None:
    with flood(scene, scene.room):
        await_head(scene, 60)
        for number in range(60):
            raw = scene.visitor()
            welcome = enter(raw, target(scene.room, f"joiner{number}"))
            first = welcome["last_id"] - welcome["replay"] + 1
            assert welcome["replay"] == 50
            frames = [raw.read_text() for _ in range(50)]
            assert [frame["event"] for frame in frames] == ["message"] * 50
            ids = [frame["id"] for frame in frames] + stored(raw, 30)
            assert ids == list(range(first, first + 80))
            raw.close()


def test_those_who_come_back_miss_nothing(scene: Scene) -> None:
    """Each comes back with the last id that it has seen, at once or a while later."""
    chance = random.Random(seed())
    with flood(scene, scene.room):
        raw = scene.visitor()
        welcome = enter(raw, target(scene.room, "traveller"))
        seen = welcome["last_id"] - welcome["replay"]
        for _ in range(50):
            ids = stored(raw, chance.randrange(1, 120))
            assert ids == list(range(seen + 1, ids[-1] + 1))
            seen = ids[-1]
            raw.reset()
            raw = scene.visitor()
            welcome = enter(raw, target(scene.room, "traveller", since=seen, epoch=welcome["epoch"]))
            assert welcome["recovered"] is True
            assert welcome["last_id"] - welcome["replay"] == seen


# Switching


def test_switchers_lose_no_echo_and_see_each_room_whole(scene: Scene) -> None:
    """What is sent just before a switch is echoed before `switched`, and nothing of the old room after it."""
    rooms = (scene.room, scene.room + "-2")
    with flood(scene, *rooms):
        for room in rooms:
            witness = scene.join("witness", room)
            witness.messages(60)
            witness.vanish()
        raw = scene.visitor()
        welcome = enter(raw, target(rooms[0], "switcher"))
        here, seen = rooms[0], welcome["last_id"] - welcome["replay"]
        for number in range(60):
            there = rooms[(number + 1) % 2]
            own = f"own-{number}"
            raw.send(
                command("message", own, text=own), command("switch_room", f"switch-{number}", room=there)
            )
            echoed = False
            while (found := raw.read_text())["event"] != "switched":
                assert found.get("room", here) == here, found
                if found["event"] == "message":
                    assert found["id"] == seen + 1
                    seen = found["id"]
                    echoed |= found.get("cid") == own
            assert echoed, f"the echo of {own} was lost"
            assert found["cid"] == f"switch-{number}"
            here, seen = there, found["last_id"] - found["replay"]
            for _ in range(found["replay"] + number % 7):
                found = raw.read_text()
                assert found["room"] == here
                if found["event"] == "message":
                    assert found["id"] == seen + 1
                    seen = found["id"]


# Not reading


def say_wide(speaker: Raw, number: int, batch: int = 50) -> None:
    """So many wide messages, by somebody who reads their echoes and is alone in having spoken."""
    for first in range(1, number + 1, batch):
        size = min(batch, number + 1 - first)
        speaker.send(*(command("message", text=WIDE) for _ in range(size)))
        assert stored(speaker, size) == list(range(first, first + size))


def test_one_that_pauses_gets_every_message_once_and_in_order(scene: Scene) -> None:
    slow, speaker = scene.raw("slow", receive_buffer=4096), scene.raw("speaker")
    say_wide(speaker, 390)
    assert gauges(scene.server)["chatroom_lagging_members"] == 1
    assert stored(slow, 390) == list(range(1, 391))
    await_true(lambda: snapshot(scene.server)["chatroom_lagging_members"] == 0, "it is up to date")
    slow.send(command("message", text="awake"))
    assert stored(slow, 1) == stored(speaker, 1) == [391]


def test_readers_of_every_speed_get_the_same(scene: Scene) -> None:
    """Each reads now and then, by chance; a pause is never longer than what is kept."""
    chance = random.Random(seed())
    speaker = scene.raw("speaker")
    readers = [scene.raw(f"reader{number}", receive_buffer=4096 << number) for number in range(6)]
    seen: list[list[int]] = [[] for _ in readers]
    text = WIDE[:2000]
    for first in range(1, 1001, 20):
        speaker.send(*(command("message", text=text) for _ in range(20)))
        assert stored(speaker, 20) == list(range(first, first + 20))
        for reader, ids in zip(readers, seen, strict=True):
            behind = first + 19 - len(ids)
            if behind > 440 or chance.random() < 0.3:
                ids.extend(stored(reader, chance.randint(behind // 2, behind)))
    for reader, ids in zip(readers, seen, strict=True):
        assert ids + stored(reader, 1000 - len(ids)) == list(range(1, 1001))
    await_true(lambda: snapshot(scene.server)["chatroom_lagging_members"] == 0, "all are up to date")


@pytest.mark.usefixtures("measured")
def test_one_that_pauses_too_long_is_told_so(pyz: Path) -> None:
    """Whatever it has got is without a gap; and it is told that there is one now."""
    with served("--db", "none", "--rate", "0") as server, Scene(server) as scene:
        slow = scene.raw("slow", receive_buffer=4096)
        epoch = scene.join("witness").welcome["epoch"]
        say_wide(scene.raw("speaker"), 1500)
        ids: list[int] = []
        code = 0
        while not code:
            found = slow.read_frame()
            assert found is not None
            opcode, payload = found
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
            elif opcode == TEXT and (value := json.loads(payload))["event"] == "message":
                ids.append(value["id"])
        assert code == 4008
        assert ids == list(range(1, len(ids) + 1))
        assert 0 < len(ids) < 1000
        again = scene.visitor()
        welcome = enter(again, target(scene.room, "slow", since=ids[-1], epoch=epoch))
        assert (welcome["recovered"], welcome["replay"], welcome["last_id"]) == (False, 50, 1500)


def test_members_follow_where_presence_was_dropped(scene: Scene) -> None:
    """After more comings than it can be told of when it wakes up, one list makes it up."""
    slow = scene.raw("slow", receive_buffer=4096)
    say_wide(scene.raw("speaker"), 390)
    for number in range(400):
        comer = scene.visitor()
        enter(comer, target(scene.room, f"comer{number}"))
        if number % 2:
            comer.reset()
    staying = 2 + 200 + 2  # with the bystanders
    await_true(lambda: snapshot(scene.server)["chatroom_connections"] == staying, "the others have left")
    known: set[str] = set()
    told = 0
    while (found := slow.read_text())["event"] != "members":
        told += keep(known, found)
    assert "cid" not in found
    assert told < 600, "nothing was dropped, so nothing was to be made up for"
    known = set(found["data"]["members"])
    slow.send(command("members", "m1"))
    while (found := slow.read_text()).get("cid") != "m1":
        keep(known, found)
    assert set(found["data"]["members"]) == known
    assert len(known) == 202


def keep(known: set[str], found: dict[str, Any]) -> bool:
    """Keep a list of members as a client does; whether the frame concerned it."""
    if found["event"] == "joined":
        known.add(found["data"]["username"])
    elif found["event"] == "left":
        known.discard(found["data"]["username"])
    return found["event"] in ("joined", "left")
