"""The built server, event by event: typing, history, members, ping, auth."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Chat
from tests.support.scene import Scene, Served, served

TYPING_GAP = 2.5
TYPING_SECONDS = 3.0


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


# typing


def test_typing_byte_by_byte(scene: Scene) -> None:
    alice, bob = scene.pair()
    tab = scene.join("alice")
    alice.send("typing", active=True)
    alice.send("typing", active=False)
    expected = '{{"event":"typing","data":{{"username":"alice","active":{}}},"room":"{}"}}'
    assert bob.receive_text() == expected.format("true", scene.room)
    assert bob.receive_text() == expected.format("false", scene.room)
    assert alice.settle() == tab.settle() == []
    assert scene.join("carol").settle() == [], "typing was stored"


def test_typing_again_is_dropped_for_two_and_a_half_seconds(scene: Scene) -> None:
    alice, bob = scene.pair()
    begun = time.monotonic()
    assert alice.ask("typing", active=True)["event"] == "ack"
    assert alice.ask("typing", active=True) == {"event": "ack", "data": {}, "cid": "ask-2"}
    passed = 1
    while time.monotonic() < begun + TYPING_GAP + 0.5:
        alice.ask("typing", active=True)
        time.sleep(0.05)
    took = time.monotonic() - begun
    frames = bob.settle()
    assert passed < len(frames) <= 1 + took // TYPING_GAP


def test_a_false_between_lets_the_next_true_pass_but_four_in_three_seconds_are_all(scene: Scene) -> None:
    alice, bob = scene.pair()
    begun = time.monotonic()
    for _ in range(10):
        assert alice.ask("typing", active=True)["event"] == "ack"
        assert alice.ask("typing", active=False)["event"] == "ack"
    assert time.monotonic() < begun + TYPING_SECONDS
    assert [frame["data"]["active"] for frame in bob.settle()] == [True, False, True, False]


@pytest.mark.parametrize("active", ["true", 1, 0, None, [], {}])
def test_typing_is_true_or_false(scene: Scene, active: object) -> None:
    alice, bob = scene.pair()
    frame = alice.ask("typing", active=active)
    assert (frame["code"], frame["field"]) == ("bad_data", "active")
    assert bob.settle() == []


def test_typing_needs_to_say_which(scene: Scene) -> None:
    assert scene.join("alice").ask("typing")["field"] == "active"


# history


def test_history_has_what_was_said_just_before_it_and_comes_behind_that(scene: Scene) -> None:
    alice = scene.join("alice")
    for number in range(60):
        alice.say(f"number {number}")
        alice.send("history", limit=1)
        assert alice.expect("message")["data"]["text"] == f"number {number}"
        (newest,) = alice.expect("history")["data"]["messages"]
        assert newest["text"] == f"number {number}"


@pytest.fixture
def full(scene: Scene) -> Chat:
    """Somebody in a room with 300 messages; the even ones had a cid."""
    alice = scene.join("alice")
    for number in range(1, 301):
        alice.say(f"t{number}", None if number % 2 else f"c{number}")
    alice.texts(300)
    return alice


@pytest.mark.parametrize(
    ("query", "first", "last", "more"),
    [
        ({}, 251, 300, True),
        ({"limit": 1}, 300, 300, True),
        ({"limit": 200}, 101, 300, True),
        ({"limit": 201}, 101, 300, True),
        ({"limit": 2**63 - 1}, 101, 300, True),
        ({"before": 51}, 1, 50, False),
        ({"before": 52}, 2, 51, True),
        ({"before": 10, "limit": 3}, 7, 9, True),
        ({"before": 301}, 251, 300, True),
        ({"before": 2**63 - 1}, 251, 300, True),
        ({"before": 2}, 1, 1, False),
        ({"before": 1}, 1, 0, False),
        ({"before": 0}, 1, 0, False),
        ({"after": 0}, 1, 50, True),
        ({"after": 240}, 241, 290, True),
        ({"after": 250}, 251, 300, False),
        ({"after": 299, "limit": 200}, 300, 300, False),
        ({"after": 300}, 1, 0, False),
        ({"after": 2**63 - 1}, 1, 0, False),
    ],
)
def test_pages_of_history(full: Chat, query: dict[str, int], first: int, last: int, more: bool) -> None:
    frame = full.ask("history", **query)
    assert frame["event"] == "history"
    assert list(frame) == ["event", "data", "room", "cid"]
    items = frame["data"]["messages"]
    assert [item["id"] for item in items] == list(range(first, last + 1))
    assert frame["data"]["more"] is more
    for item in items:
        odd = item["id"] % 2
        assert list(item) == ["id", "ts", "username", "text"] + ([] if odd else ["cid"])
        assert (item["text"], item["username"]) == (f"t{item['id']}", "alice")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"before": 5, "after": 5}, None),
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": 2.0}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": None}, "limit"),
        ({"before": -1}, "before"),
        ({"before": "x"}, "before"),
        ({"before": None}, "before"),
        ({"after": False}, "after"),
        ({"after": 1.5}, "after"),
    ],
)
def test_wrong_questions_of_history(scene: Scene, query: dict[str, object], field: str | None) -> None:
    frame = scene.join("alice").ask("history", **query)
    assert (frame["event"], frame["code"]) == ("error", "bad_data")
    assert field is None or frame["field"] == field


def test_history_without_a_cid(scene: Scene) -> None:
    alice = scene.join("alice")
    alice.send("history")
    assert alice.receive_text() == (
        f'{{"event":"history","data":{{"messages":[],"more":false}},"room":"{scene.room}"}}'
    )


# members, ping


def test_members_byte_by_byte(scene: Scene) -> None:
    alice, bob = scene.pair()
    scene.join("bob")
    bob.send("members", "m1")
    assert bob.receive_text() == (
        f'{{"event":"members","data":{{"members":["alice","bob"]}},"room":"{scene.room}","cid":"m1"}}'
    )
    alice.send("members")
    assert "cid" not in alice.expect("members", members=["alice", "bob"])


def test_ping_byte_by_byte(scene: Scene) -> None:
    alice = scene.join("alice")
    alice.send_text('{"event":"ping"}')
    assert alice.receive_text() == '{"event":"pong","data":{}}'
    alice.send_text('{"event":"ping","cid":"\\u00e9\\"x"}')
    assert alice.receive_text() == '{"event":"pong","data":{},"cid":"é\\"x"}'


def test_answers_come_in_the_order_of_the_questions(scene: Scene) -> None:
    alice = scene.join("alice")
    events = ["ping", "members", "history", "typing", "switch_room"] * 20
    for number, event in enumerate(events):
        more = (
            {"active": True} if event == "typing" else {"room": scene.room} if event == "switch_room" else {}
        )
        alice.send(event, str(number), **more)
    assert [alice.receive()["cid"] for _ in events] == [str(number) for number in range(len(events))]


# auth


def test_a_fresh_token_for_the_same_name(scene: Scene) -> None:
    alice = scene.join("alice")
    frame = alice.ask("auth", token="dev-token")
    assert frame["event"] == "ack"
    frame = alice.ask("auth", token="token-mallory")
    assert (frame["event"], frame["code"]) == ("error", "forbidden")
    assert "token-mallory" not in str(frame)
    for wrong in (5, None, []):
        assert alice.ask("auth", token=wrong)["field"] == "token"
    assert alice.ask("auth")["field"] == "token"
    alice.say("still here")
    assert alice.texts(1) == ["still here"]
