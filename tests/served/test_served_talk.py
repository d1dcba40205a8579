"""The built server, event by event: welcome, message, presence."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scene import Scene, Served, served


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


# welcome


def test_the_first_frame_of_a_new_room(scene: Scene) -> None:
    alice = scene.join("alice")
    expected = (
        rf'\{{"event":"welcome","data":\{{"message":"Welcome to #{scene.room}, alice!","members":\[\]\}},'
        rf'"room":"{scene.room}","username":"alice","epoch":"[^"]+","last_id":0,"replay":0,'
        r'"limits":\{"text":4000,"frame":65536,"rate":0,"burst":20,"unanswered":32\}\}'
    )
    assert re.fullmatch(expected, alice.raw_welcome)
    assert alice.settle() == []


def test_the_room_and_the_name_have_defaults(scene: Scene) -> None:
    with Scene(scene.server):
        chat = scene.join("", "general")
        assert chat.welcome["data"]["message"] == "Welcome to #general, anonymous!"
        assert (chat.welcome["username"], chat.welcome["room"]) == ("anonymous", "general")


def test_members_are_the_others_sorted_with_ones_own_other_tab(scene: Scene) -> None:
    for name in ("zoe", "bob", "Änne", "bob", "adam"):
        scene.join(name)
    assert scene.join("carol").welcome["data"]["members"] == ["adam", "bob", "zoe", "Änne"]
    assert scene.join("carol").welcome["data"]["members"] == ["adam", "bob", "carol", "zoe", "Änne"]


def test_the_last_fifty_are_replayed(scene: Scene) -> None:
    alice = scene.join("alice")
    for number in range(60):
        alice.say(f"text {number}")
    said = [alice.receive_text() for _ in range(60)]
    bob = scene.join("bob")
    assert (bob.welcome["last_id"], bob.welcome["replay"]) == (60, 50)
    assert "recovered" not in bob.welcome
    assert [bob.receive_text() for _ in range(50)] == said[10:], "replayed in other bytes than live"
    assert bob.settle() == []


def test_fewer_messages_than_fifty_are_all_replayed(scene: Scene) -> None:
    alice = scene.join("alice")
    alice.say("one")
    alice.say("two")
    alice.texts(2)
    bob = scene.join("bob")
    assert bob.welcome["replay"] == 2
    assert bob.texts(2) == ["one", "two"]


# message


def test_a_message_byte_by_byte(scene: Scene) -> None:
    alice, bob = scene.pair()
    before = time.time_ns() // 1_000_000
    alice.say(' says "hi" \\ to\tall \n')
    raw = alice.receive_text()
    after = time.time_ns() // 1_000_000
    found = re.fullmatch(
        r'\{"event":"message","data":\{"username":"alice","text":"says \\"hi\\" \\\\ to\\tall"\},'
        rf'"room":"{scene.room}","id":1,"ts":(\d+)\}}',
        raw,
    )
    assert found
    assert before <= int(found[1]) <= after
    assert bob.receive_text() == raw


def test_the_cid_stands_in_the_frame_of_all_live_and_replayed(scene: Scene) -> None:
    alice, bob = scene.pair()
    alice.say("hello", cid="c-1")
    raw = alice.receive_text()
    assert raw.endswith(',"cid":"c-1"}')
    assert bob.receive_text() == raw
    carol = scene.join("carol")
    assert carol.receive_text() == raw


def test_ids_are_dense_and_the_same_for_all(scene: Scene) -> None:
    people = [scene.join(f"user{number}") for number in range(4)]
    for person in people:
        for number in range(25):
            person.say(f"{number}", cid=f"c{number}" if number % 2 else None)
    seen = [person.messages(100) for person in people]
    assert [frame["id"] for frame in seen[0]] == list(range(1, 101))
    assert all(frames == seen[0] for frames in seen)
    for person in ("user0", "user3"):
        own = [frame["data"]["text"] for frame in seen[0] if frame["data"]["username"] == person]
        assert own == [str(number) for number in range(25)]


def test_name_id_and_time_are_the_servers(scene: Scene) -> None:
    alice, bob = scene.pair()
    forged = {
        "event": "message",
        "data": {"text": "hi", "username": "bob", "id": 99, "ts": 1},
        "username": "bob",
        "id": 99,
        "ts": 1,
        "room": "elsewhere",
    }
    alice.send_text(json.dumps(forged))
    frame = bob.expect("message", username="alice", text="hi")
    assert frame["id"] == 1
    assert frame["ts"] > 1_600_000_000_000
    assert frame["room"] == scene.room


def test_nothing_leaves_its_room(scene: Scene) -> None:
    alice, bob = scene.pair()
    stranger = scene.join("stranger", scene.room + "-x")
    alice.say("secret")
    alice.send("typing", active=True)
    bob.expect("message")
    bob.expect("typing")
    assert stranger.settle() == []
    assert stranger.ask("history")["data"] == {"messages": [], "more": False}
    assert stranger.ask("members")["data"] == {"members": ["stranger"]}


def test_a_message_without_words_is_ignored(scene: Scene) -> None:
    alice, bob = scene.pair()
    for text in ("", "   ", "\t\r\n", "\u3000\u2003\x1f"):
        alice.say(text)
    alice.send("message")
    assert alice.settle() == []
    assert bob.settle() == []
    frame = alice.ask("message", text=" ")
    assert (frame["event"], frame["code"], frame["field"]) == ("error", "bad_data", "text")


@pytest.mark.parametrize("letter", ["x", "ß", "\u20ac", "\U0001f600", "\u202e"])
def test_the_length_counts_code_points_after_stripping(scene: Scene, letter: str) -> None:
    alice = scene.join("alice")
    alice.say("\n " + letter * 4000 + " \t")
    assert alice.expect("message")["data"]["text"] == letter * 4000
    frame = alice.ask("message", text=letter * 4001)
    assert (frame["event"], frame["code"], frame["limit"]) == ("error", "too_long", 4000)
    assert alice.settle() == []


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script> & 'quotes'",
        "\u202egnp.exe\u202c \u200b\u200d \u2066x\u2069 \ufeff.",
        "nul \x00 bell \x07 escape \x1b[31m delete \x7f next \x85 line \u2028 paragraph \u2029.",
        "e\u0301 is not \u00e9, \ufb01 is not fi",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0010ffff \uffff",
    ],
)
def test_text_is_delivered_verbatim(scene: Scene, text: str) -> None:
    alice, bob = scene.pair()
    alice.say(text)
    assert alice.texts(1) == bob.texts(1) == [text]
    assert scene.join("carol").texts(1) == [text]
    alice.expect("joined")
    assert alice.ask("history")["data"]["messages"][0]["text"] == text


# joined and left


def test_presence_byte_by_byte(scene: Scene) -> None:
    alice = scene.join("alice")
    bob = scene.join("bob")
    assert alice.receive_text() == f'{{"event":"joined","data":{{"username":"bob"}},"room":"{scene.room}"}}'
    bob.close()
    assert alice.receive_text() == f'{{"event":"left","data":{{"username":"bob"}},"room":"{scene.room}"}}'


def test_presence_is_per_username(scene: Scene) -> None:
    alice = scene.join("alice")
    tabs = [scene.join("bob") for _ in range(3)]
    alice.expect("joined", username="bob")
    tabs[0].close()
    tabs[2].send("switch_room", room=scene.room + "-x")
    tabs[2].expect("switched")
    assert alice.settle() == []
    assert alice.ask("members")["data"]["members"] == ["alice", "bob"]
    tabs[1].close()
    alice.expect("left", username="bob")
    assert alice.settle() == []
    assert scene.join("bob").welcome["data"]["members"] == ["alice"]
    alice.expect("joined", username="bob")


def test_ones_own_other_tab_is_no_news(scene: Scene) -> None:
    first = scene.join("alice")
    second = scene.join("alice")
    assert first.settle() == second.settle() == []
    second.close()
    third = scene.join("bob")
    first.expect("joined", username="bob")
    assert third.welcome["data"]["members"] == ["alice"]


@pytest.mark.parametrize("how", ["close", "end", "reset"])
def test_left_however_it_went(scene: Scene, how: str) -> None:
    alice = scene.join("alice")
    raw = scene.raw("bob")
    alice.expect("joined", username="bob")
    {"close": lambda: raw.send(b"\x88\x80\x01\x02\x03\x04"), "end": raw.close, "reset": raw.reset}[how]()
    alice.expect("left", username="bob")


def test_names_are_told_apart_as_written(scene: Scene) -> None:
    """Case is kept; a composed and a decomposed letter are the same; invisible ones are refused."""
    scene.join("Bob")
    scene.join("Re\u0301ne\u0301e")
    assert scene.join("bob").welcome["data"]["members"] == ["Bob", "R\u00e9n\u00e9e"]
