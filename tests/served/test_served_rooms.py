"""The built server, event by event: switch_room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scene import Scene, Served, served

TYPING_SECONDS = 3.0


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


# switch_room


def test_a_switch_is_seen_in_both_rooms(scene: Scene) -> None:
    alice, bob = scene.pair()
    other = scene.room + "-2"
    carol = scene.join("carol", other)
    carol.say("hello")
    carol.texts(1)
    alice.send("switch_room", "s1", room=other)
    raw = alice.receive_text()
    epoch = carol.welcome["epoch"]
    assert raw == (
        f'{{"event":"switched","data":{{"room":"{other}"}},"members":["carol"],"epoch":"{epoch}",'
        '"last_id":1,"replay":1,"cid":"s1"}'
    )
    alice.expect("message", text="hello")
    bob.expect("left", username="alice")
    carol.expect("joined", username="alice")
    bob.say("behind your back")
    bob.texts(1)
    alice.say("hi")
    assert (alice.texts(1), carol.texts(1)) == (["hi"], ["hi"])
    assert bob.settle() == alice.settle() == []


def test_a_switch_without_a_room_goes_to_general(scene: Scene) -> None:
    alice, bob = scene.pair()
    alice.send("switch_room")
    frame = alice.receive()
    assert (frame["event"], frame["data"]) == ("switched", {"room": "general"})
    assert "cid" not in frame
    assert "recovered" not in frame
    bob.expect("left", username="alice")


def test_a_switch_to_the_current_room_changes_nothing(scene: Scene) -> None:
    alice, bob = scene.pair()
    alice.say("one")
    alice.texts(1)
    alice.send("switch_room", room=scene.room)
    assert alice.settle() == []
    assert alice.ask("switch_room", room=scene.room)["event"] == "ack"
    assert alice.ask("switch_room", room=scene.room, since=0, epoch="x")["data"] == {}
    assert [frame["event"] for frame in bob.settle()] == ["message"]


def test_the_name_of_a_room_is_normalised(scene: Scene) -> None:
    alice = scene.join("alice", scene.room + "-e\u0301")
    assert alice.welcome["room"] == scene.room + "-\u00e9"
    assert alice.ask("switch_room", room=scene.room + "-\u00e9")["event"] == "ack"


@pytest.mark.parametrize(
    "room",
    [
        "",
        " ",
        "x" * 65,
        "a\u200bb",
        "tab\tbed",
        "nul\x00",
        "\ufffe",
        "\ud83d",
        5,
        None,
        ["general"],
        {},
        True,
    ],
)
def test_a_switch_to_what_can_be_no_room(scene: Scene, room: object) -> None:
    alice, bob = scene.pair()
    frame = alice.ask("switch_room", room=room)
    assert (frame["event"], frame["code"]) == ("error", "bad_data")
    alice.say("still here")
    assert alice.texts(1) == bob.texts(1) == ["still here"]


def test_longest_names(scene: Scene) -> None:
    alice = scene.join("u" * 32)
    room = "\U00020000" * 64
    frame = alice.ask("switch_room", room=room)
    assert frame["data"] == {"room": room}


def test_switching_back_resumes(scene: Scene) -> None:
    alice, bob = scene.pair()
    bob.say("one")
    bob.texts(1)
    seen = alice.expect("message")["id"]
    alice.ask("switch_room", room=scene.room + "-2")
    bob.expect("left")
    for text in ("two", "three"):
        bob.say(text)
    bob.texts(2)
    epoch = bob.welcome["epoch"]
    frame = alice.ask("switch_room", room=scene.room, since=seen, epoch=epoch)
    assert (frame["last_id"], frame["replay"], frame["recovered"]) == (3, 2, True)
    assert alice.texts(2) == ["two", "three"]
    alice.ask("switch_room", room=scene.room + "-2")
    frame = alice.ask("switch_room", room=scene.room, since=seen, epoch="other")
    assert (frame["replay"], frame["recovered"]) == (3, False)
    assert alice.texts(3) == ["one", "two", "three"]
    alice.ask("switch_room", room=scene.room + "-2")
    frame = alice.ask("switch_room", room=scene.room, epoch=epoch)
    assert "recovered" not in frame


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"since": 1}, "epoch"),
        ({"since": -1, "epoch": "x"}, "since"),
        ({"since": "1", "epoch": "x"}, "since"),
        ({"since": 1.0, "epoch": "x"}, "since"),
        ({"since": True, "epoch": "x"}, "since"),
        ({"since": None, "epoch": "x"}, "since"),
        ({"since": 1, "epoch": 5}, "epoch"),
    ],
)
def test_a_switch_with_a_wrong_place_to_resume_from(
    scene: Scene, data: dict[str, object], field: str
) -> None:
    alice = scene.join("alice")
    frame = alice.ask("switch_room", room=scene.room + "-2", **data)
    assert (frame["event"], frame["code"], frame["field"]) == ("error", "bad_data", field)
    assert alice.ask("switch_room", room=scene.room)["event"] == "ack"


def test_to_and_fro_without_an_end(scene: Scene) -> None:
    alice, bob = scene.pair()
    rooms = [scene.room + "-2", scene.room]
    for number in range(40):
        alice.say(str(number))
        alice.send("switch_room", room=rooms[number % 2])
    seen = []
    while len(seen) < 40:
        frame = alice.receive()
        if frame["event"] == "message" and frame["data"]["text"] not in seen:
            seen.append(frame["data"]["text"])
    assert seen == [str(number) for number in range(40)], "an echo before the switch was lost"
    events = [frame["event"] for frame in bob.settle()]
    assert events == ["message", "left", "joined"] * 20
