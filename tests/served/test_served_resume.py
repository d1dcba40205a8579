"""The built server: coming back without a gap and without a repetition, and saying a thing once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Chat
from tests.support.scene import Scene, Served, served


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def talk(chat: Chat, number: int) -> None:
    """Say so many things, each one's text being its id in a new room."""
    first = chat.welcome["last_id"] + 1
    for said in range(first, first + number):
        chat.say(str(said))
    assert chat.texts(number) == [str(said) for said in range(first, first + number)]


# Coming back


@pytest.mark.parametrize(
    ("kept", "since", "recovered", "replayed"),
    [
        (3, 0, True, 3),
        (3, 2, True, 1),
        (3, 3, True, 0),
        (3, 4, False, 3),
        (3, 10**30, False, 3),
        (0, 0, True, 0),
        (0, 1, False, 0),
        (120, 20, True, 100),
        (120, 0, True, 120),
        (120, 121, False, 50),
        (500, 0, True, 500),
        (501, 1, True, 500),
        (501, 0, False, 50),
        (700, 150, False, 50),
        (700, 200, True, 500),
    ],
)
def test_what_is_recovered(scene: Scene, kept: int, since: int, recovered: bool, replayed: int) -> None:
    alice = scene.join("alice")
    epoch = alice.welcome["epoch"]
    talk(alice, kept)
    bob = scene.join("bob", since=since, epoch=epoch)
    alice.expect("joined")
    alice.say("live")
    welcome = bob.welcome
    assert (welcome["recovered"], welcome["replay"], welcome["last_id"]) == (recovered, replayed, kept)
    expected = [str(said) for said in range(kept - replayed + 1, kept + 1)]
    assert bob.texts(replayed + 1) == [*expected, "live"]
    assert bob.settle() == []


@pytest.mark.parametrize("epoch", ["x", "\u00e9 ", "e" * 500])
def test_another_epoch_is_not_recovered(scene: Scene, epoch: str) -> None:
    alice = scene.join("alice")
    talk(alice, 60)
    bob = scene.join("bob", since=60, epoch=epoch)
    assert (bob.welcome["recovered"], bob.welcome["replay"]) == (False, 50)
    assert bob.texts(50) == [str(said) for said in range(11, 61)]


def test_an_epoch_alone_is_no_resume(scene: Scene) -> None:
    alice = scene.join("alice")
    talk(alice, 2)
    bob = scene.join("bob", epoch=alice.welcome["epoch"])
    assert "recovered" not in bob.welcome
    assert bob.welcome["replay"] == 2


def test_leading_zeros_and_empty_values(scene: Scene) -> None:
    alice = scene.join("alice")
    talk(alice, 3)
    bob = scene.join("bob", since="0" * 4000 + "2", epoch=alice.welcome["epoch"])
    assert (bob.welcome["recovered"], bob.welcome["replay"]) == (True, 1)
    carol = scene.join("carol", since="", epoch="")
    assert "recovered" not in carol.welcome


def test_a_room_survives_its_last_member(scene: Scene) -> None:
    alice = scene.join("alice")
    talk(alice, 3)
    alice.close()
    bob = scene.join("bob", since=1, epoch=alice.welcome["epoch"])
    assert bob.welcome["recovered"] is True
    assert bob.texts(2) == ["2", "3"]


def test_a_room_without_messages_may_come_back(scene: Scene) -> None:
    """It is freed; what is said of since=0 must be true all the same."""
    epoch = scene.join("alice").welcome["epoch"]
    for chat in (scene.join("bob", since=0, epoch=epoch), scene.join("carol", since=0, epoch="other")):
        assert chat.welcome["last_id"] == 0
        assert chat.welcome["recovered"] is (
            chat.welcome["epoch"] == epoch and chat.welcome["username"] == "bob"
        )


def test_a_restart_is_another_epoch(pyz: Path) -> None:
    epochs = []
    for _ in range(2):
        with served("--db", "none", "--rate", "0") as server, Scene(server) as scene:
            since = {"since": 2, "epoch": epochs[0]} if epochs else {}
            alice = scene.join("alice", "general", **since)
            if epochs:
                assert alice.welcome["recovered"] is False
            epochs.append(alice.welcome["epoch"])
            talk(alice, 3)
    assert epochs[0] != epochs[1]


def test_history_option(pyz: Path) -> None:
    with served("--history", "3", "--rate", "0") as server, Scene(server) as scene:
        alice = scene.join("alice")
        talk(alice, 10)
        assert scene.join("bob").texts(3) == ["8", "9", "10"]
        carol = scene.join("carol", since=2, epoch=alice.welcome["epoch"])
        assert (carol.welcome["recovered"], carol.welcome["replay"]) == (True, 8)
    with served("--history", "0", "--rate", "0") as server, Scene(server) as scene:
        talk(scene.join("alice"), 10)
        bob = scene.join("bob")
        assert (bob.welcome["replay"], bob.settle()) == (0, [])


# Once


def test_a_retry_is_stored_once(scene: Scene) -> None:
    alice, bob = scene.pair()
    alice.say("hello", "c1")
    alice.expect("message", text="hello")
    alice.say(" hello ", "c1")
    assert alice.receive_text() == '{"event":"ack","data":{"id":1,"duplicate":true},"cid":"c1"}'
    alice.say("other", "c1")
    frame = alice.expect("error")
    assert (frame["code"], frame["cid"]) == ("cid_conflict", "c1")
    assert "hello" not in json.dumps(frame)
    alice.say("next")
    assert alice.expect("message", text="next")["id"] == 2
    assert bob.texts(2) == ["hello", "next"]


def test_a_retry_from_another_connection(scene: Scene) -> None:
    alice = scene.join("alice")
    alice.say("hello", "c1")
    alice.texts(1)
    alice.close()
    again = scene.join("alice")
    again.texts(1)
    again.say("hello", "c1")
    again.expect("ack", id=1, duplicate=True)


def test_a_cid_is_its_senders_and_its_rooms(scene: Scene) -> None:
    alice, bob = scene.pair()
    alice.say("hello", "c1")
    bob.say("hello", "c1")
    bob.texts(2)
    alice.texts(2)
    alice.ask("switch_room", room=scene.room + "-2")
    alice.say("hello", "c1")
    assert alice.expect("message")["id"] == 1


def test_retries_in_one_write(scene: Scene) -> None:
    alice = scene.join("alice")
    for _ in range(50):
        alice.say("hello", "c1")
        alice.say("other", "c1")
    frames = [alice.receive() for _ in range(100)]
    assert sum(frame["event"] == "message" for frame in frames) == 1
    assert sum(frame["event"] == "ack" for frame in frames) == 49
    assert sum(frame.get("code") == "cid_conflict" for frame in frames) == 50
    assert all(frame["cid"] == "c1" for frame in frames)
    assert alice.ask("history")["data"]["messages"][0]["text"] == "hello"


def test_a_retry_counts_as_long_as_the_message_is_kept(pyz: Path) -> None:
    with served("--db", "none", "--rate", "0") as server, Scene(server) as scene:
        alice = scene.join("alice")
        alice.say("hello", "c1")
        alice.texts(1)
        for _ in range(499):
            alice.say("x")
        alice.texts(499)
        alice.say("hello", "c1")
        alice.expect("ack", id=1, duplicate=True)
        alice.say("x")
        alice.texts(1)
        alice.say("hello", "c1")
        assert alice.expect("message", text="hello")["id"] == 502
