"""The built server on its errors: what they say, what they don't, and how many are too many."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw import close, frame
from tests.support.scene import Scene, Served, served


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


@pytest.mark.parametrize("cid", ["c", "c" * 64, "\U0001f600" * 64, " ", "\x00\x1f", '"\\', "\u202e"])
def test_every_fitting_string_is_a_cid(scene: Scene, cid: str) -> None:
    chat = scene.join("alice")
    chat.send("ping", cid)
    assert chat.receive() == {"event": "pong", "data": {}, "cid": cid}
    chat.say("hello", cid)
    assert chat.expect("message")["cid"] == cid
    chat.say("hello", cid)
    assert chat.expect("ack", duplicate=True)["cid"] == cid


@pytest.mark.parametrize(
    ("event", "shown_as"),
    [
        ("nope", "nope"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64),
        ("\U0001f600" * 5000, "\U0001f600" * 64),
        ("<b>\u202e\x00\n", "<b>\u202e\x00\n"),
        ("", ""),
    ],
)
def test_an_unknown_event_is_named_up_to_64_characters(scene: Scene, event: str, shown_as: str) -> None:
    answer = scene.join("alice").ask(event)
    assert answer["data"] == {"message": f"Unknown event: {shown_as}"}


def test_no_other_input_comes_back(scene: Scene) -> None:
    chat = scene.join("alice")
    for text in (
        '{"event":"message","data":{"text":["s3cret"]},"s3cret2":1}',
        '{"event":"switch_room","data":{"room":"s3cret\\u0000"}}',
        '{"event":"s3cret',
        '{"event":"auth","data":{"token":"s3cret"}}',
        '{"event":"history","data":{"limit":"s3cret"}}',
        '{"event":"ping","cid":["s3cret"]}',
        '{"event":5,"data":"s3cret"}',
    ):
        chat.send_text(text)
        answer = chat.receive_text()
        assert answer.startswith('{"event":"error"')
        assert "s3cret" not in answer


def test_the_eleventh_fault_in_a_minute_ends_it(scene: Scene) -> None:
    chat = scene.join("alice")
    faults = ["{", '{"event":"nope"}', "[]", '{"event":"typing"}', "NaN"]
    for fault in faults * 2:
        chat.send_text(fault)
        assert chat.receive()["event"] == "error"
    chat.say("still here")
    assert chat.texts(1) == ["still here"]
    chat.send_text("{")
    code, reason = chat.closing()
    assert code == 1008
    assert "malformed" in reason


def test_what_is_well_formed_is_no_fault(scene: Scene) -> None:
    chat = scene.join("alice")
    chat.say("one", "c1")
    chat.texts(1)
    for _ in range(12):
        assert chat.ask("message", text="x" * 4001)["code"] == "too_long"
        assert chat.ask("auth", token="wrong")["code"] == "forbidden"
        chat.say("two", "c1")
        assert chat.receive()["code"] == "cid_conflict"
    assert chat.settle() == []


def test_faults_without_a_pause(scene: Scene) -> None:
    """A thousand in one write: ten answers, one close, and what came behind is not answered."""
    raw = scene.raw()
    raw.send(frame("{") * 1000)
    for _ in range(10):
        assert raw.read_text()["code"] == "bad_json"
    assert raw.read_closing()[0] == 1008


def test_the_largest_frame_is_taken(scene: Scene) -> None:
    chat = scene.join("alice")
    size = 64 * 1024
    text = json.dumps({"event": "ping", "x": ""})
    chat.send_text(text[:-2] + "y" * (size - len(text)) + text[-2:])
    assert chat.receive()["event"] == "pong"
    raw = scene.raw("bob")
    raw.send(frame(b"\xf0\x9f\x98\x80" * (size // 4)))
    assert raw.read_text()["code"] == "bad_json"
    raw.send(close(1000))
    assert raw.read_closing()[0] == 1000
