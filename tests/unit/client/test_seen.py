"""The file of how far rooms were seen."""

import fcntl
import json
import stat
from pathlib import Path

import pytest

from chatroom.client import seen as module
from chatroom.client.cursor import Position
from chatroom.client.seen import Seen

SERVER = "ws://chat.example"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seen.json"


def test_what_was_seen_is_known_in_the_next_run(path: Path) -> None:
    seen = Seen(path, SERVER)
    assert seen.get("alice", "ops") is None
    seen.put("alice", "ops", Position("e", 7))
    seen.put("alice", "ops", Position("e", 9))
    assert Seen(path, SERVER).get("alice", "ops") == Position("e", 9)


def test_each_server_name_and_room_is_another_matter(path: Path) -> None:
    Seen(path, SERVER).put("alice", "ops", Position("e", 7))
    assert Seen(path, "ws://other").get("alice", "ops") is None
    assert Seen(path, SERVER).get("bob", "ops") is None
    assert Seen(path, SERVER).get("alice", "lunch") is None


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    Seen(path, SERVER).put("alice", "ops", Position("e", 7))
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600


def test_two_programs_write_to_one_file(path: Path) -> None:
    first, second = Seen(path, SERVER), Seen(path, "ws://other")
    first.put("alice", "ops", Position("e", 7))
    second.put("alice", "ops", Position("f", 8))
    assert first.get("alice", "ops") == Position("e", 7)
    assert second.get("alice", "ops") == Position("f", 8)


def test_the_file_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    seen = Seen(path, SERVER)
    for room in ("a", "b", "c", "a", "d"):
        seen.put("alice", room, Position("e", 1))
    assert [seen.get("alice", room) is not None for room in "abcd"] == [True, False, True, True]


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"[]", b"\xff", b"[" * 100_000, b'{"x": [1, 2]}', b"{}"]
)
def test_a_damaged_file_says_nothing(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    seen = Seen(path, SERVER)
    assert seen.get("alice", "ops") is None
    seen.put("alice", "ops", Position("e", 7))
    assert seen.get("alice", "ops") == Position("e", 7)


@pytest.mark.parametrize("value", [None, 7, ["e"], ["e", -1], ["e", "7"], [7, 7], {"e": 7}])
def test_a_damaged_entry_says_nothing(path: Path, value: object) -> None:
    path.write_text(json.dumps({json.dumps([SERVER, "alice", "ops"]): value}))
    assert Seen(path, SERVER).get("alice", "ops") is None


def test_without_a_place_nothing_is_known(path: Path) -> None:
    for place in (None, path / "no" / "such"):
        seen = Seen(place, SERVER)
        seen.put("alice", "ops", Position("e", 7))
        assert seen.get("alice", "ops") is None


def test_a_program_that_keeps_the_lock_is_not_waited_for(path: Path) -> None:
    seen = Seen(path, SERVER)
    seen.put("alice", "ops", Position("e", 7))
    with open(f"{path}.lock", "r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        seen.put("alice", "ops", Position("e", 8))
        assert seen.get("alice", "ops") == Position("e", 7)
    seen.put("alice", "ops", Position("e", 9))
    assert seen.get("alice", "ops") == Position("e", 9)
