"""The built server against every shape of JSON: the protocol's answer, and the connection stands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Chat
from tests.support.scene import Scene, Served, served

PING = '"event":"ping"'


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    """A ping whose frame has `depth` levels, itself being the first."""
    return f'{{{PING},"x":{opening * (depth - 1)}{closing * (depth - 1)}}}'


INVALID = [
    "",
    " ",
    "hello",
    "{",
    "}",
    "[1,",
    '{"event":"ping"',
    '{"event":"ping",}',
    "{'event':'ping'}",
    "{event:1}",
    '{"event":"ping"} x',
    '{"event":"ping"}{"event":"ping"}',
    '\ufeff{"event":"ping"}',
    "// x\n{}",
    '{"event":"p\x01ng"}',
    '{"event":"a\nb"}',
    '{"event":"\x7f\x00"}',
    '{"event":"\\x41"}',
    '{"event":"\\u12"}',
    f'{{{PING},"x":NaN}}',
    f'{{{PING},"x":Infinity}}',
    f'{{{PING},"x":-Infinity}}',
    "NaN",
    f'{{{PING},"x":1e999}}',
    f'{{{PING},"x":-1e999}}',
    f'{{{PING},"x":1{"0" * 400}.0}}',
    f'{{{PING},"x":{2**63}}}',
    f'{{{PING},"x":{-(2**63) - 1}}}',
    f'{{{PING},"x":{2**64}}}',
    f'{{{PING},"x":{10**400}}}',
    f'{{{PING},"x":{"9" * 60000}}}',
    str(10**400),
    f'{{{PING},"x":01}}',
    f'{{{PING},"x":+1}}',
    f'{{{PING},"x":.5}}',
    f'{{{PING},"x":0x10}}',
    f'{{{PING},"x":\u0661}}',
    f'{{{PING},"x":True}}',
    "nul",
    nested(17),
    nested(17, '{"a":', "}").replace(":}", ":0}"),
    nested(30000),
    "[" * 17 + "]" * 17,
    "[" * 60000,
    '{"a":' * 10000,
    # What is no JSON has no cid to repeat, whatever stands in it.
    '{"event":"ping","cid":"c1","x":NaN}',
]

FINE = [
    nested(16),
    nested(16, '{"a":', "}").replace(":}", ":0}"),
    f'{{{PING},"x":{2**63 - 1}}}',
    f'{{{PING},"x":{-(2**63)}}}',
    f'{{{PING},"x":1e308}}',
    f'{{{PING},"x":1e-999}}',
    f'{{{PING},"x":-0}}',
    f'{{{PING},"x":0.1}}',
    f'{{{PING},"x":[{",".join(["[]"] * 1000)}]}}',
    f" \t\r\n{{{PING}}}\n ",
    f'{{{PING},"data":{{}},"extra":null,"id":5}}',
    f'{{{PING},"x":"\\ud83d\\ude00"}}',
    '{"\\u0065vent":"p\\u0069ng"}',
    f'{{{PING},"x":"\u202e\u2066 \ufeff \u0085 \u2028"}}',
    f'{{{PING},"x":"{"[" * 50}"}}',
]

# A frame, then code, field and cid of the answer; a field of "?" may be any or none.
ANSWERS: list[tuple[str, str, str | None, str | None]] = [
    # No object
    ("[]", "bad_data", "?", None),
    ("[[1]]", "bad_data", "?", None),
    ("null", "bad_data", "?", None),
    ("true", "bad_data", "?", None),
    ("0", "bad_data", "?", None),
    ("-1.5", "bad_data", "?", None),
    ('"ping"', "bad_data", "?", None),
    ('[{"event":"ping","cid":"c1"}]', "bad_data", "?", None),
    # Events
    ("{}", "bad_event", None, None),
    ('{"cid":"c1"}', "bad_event", None, "c1"),
    ('{"event":null,"cid":"c1"}', "bad_event", None, "c1"),
    ('{"event":5}', "bad_event", None, None),
    ('{"event":["ping"]}', "bad_event", None, None),
    ('{"event":{}}', "bad_event", None, None),
    ('{"event":true}', "bad_event", None, None),
    ('{"event":"","cid":"c1"}', "bad_event", None, "c1"),
    ('{"event":"PING","cid":"c1"}', "bad_event", None, "c1"),
    ('{"event":" ping"}', "bad_event", None, None),
    ('{"event":"welcome"}', "bad_event", None, None),
    ('{"event":"joined","data":{"username":"bob"}}', "bad_event", None, None),
    ('{"event":"__class__"}', "bad_event", None, None),
    ('{"event":"nope","data":null,"cid":"c1"}', "bad_event", None, "c1"),
    ('{"event":"nope","cid":5}', "bad_event", None, None),
    # data
    ('{"event":"ping","data":null,"cid":"c1"}', "bad_data", "data", "c1"),
    ('{"event":"ping","data":[]}', "bad_data", "data", None),
    ('{"event":"members","data":"x","cid":"c1"}', "bad_data", "data", "c1"),
    ('{"event":"history","data":5,"cid":"c1"}', "bad_data", "data", "c1"),
    ('{"event":"message","data":false,"cid":"c1"}', "bad_data", "data", "c1"),
    ('{"event":"message","data":"hello"}', "bad_data", "data", None),
    ('{"event":"message","data":{"text":5},"cid":"c1"}', "bad_data", "text", "c1"),
    ('{"event":"message","data":{"text":null},"cid":"c1"}', "bad_data", "text", "c1"),
    ('{"event":"message","data":{"text":["x"]}}', "bad_data", "text", None),
    ('{"event":"message","data":{"text":{}}}', "bad_data", "text", None),
    ('{"event":"message","data":{"text":true}}', "bad_data", "text", None),
    ('{"event":"message","cid":"c1"}', "bad_data", "text", "c1"),
    # cid
    ('{"event":"ping","cid":""}', "bad_data", "cid", None),
    ('{"event":"ping","cid":null}', "bad_data", "cid", None),
    ('{"event":"ping","cid":5}', "bad_data", "cid", None),
    ('{"event":"ping","cid":["c1"]}', "bad_data", "cid", None),
    ('{"event":"ping","cid":{}}', "bad_data", "cid", None),
    ('{"event":"ping","cid":false}', "bad_data", "cid", None),
    (f'{{"event":"ping","cid":"{"c" * 65}"}}', "bad_data", "cid", None),
    ('{"event":"message","data":{"text":"x"},"cid":0}', "bad_data", "cid", None),
    ('{"event":"message","data":{"text":"  "},"cid":0}', "bad_data", "cid", None),
    # A key given twice
    ('{"event":"ping","event":"ping","cid":"c1"}', "bad_data", "event", "c1"),
    ('{"event":"ping","event":"nope"}', "bad_data", "event", None),
    ('{"event":"ping","x":1,"x":1,"cid":"c1"}', "bad_data", "frame", "c1"),
    ('{"event":"ping","cid":"c1","cid":"c1"}', "bad_data", "cid", None),
    ('{"event":"ping","cid":"c1","c\\u0069d":"c2"}', "bad_data", "cid", None),
    ('{"event":"message","data":{"text":"a","text":"b"},"cid":"c1"}', "bad_data", "text", "c1"),
    ('{"event":"message","data":{"text":"a"},"data":{"text":"b"},"cid":"c1"}', "bad_data", "data", "c1"),
    ('{"event":"ping","x":{"cid":"a","cid":"b"},"cid":"c1"}', "bad_data", "cid", "c1"),
    ('{"event":"ping","x":[[{"y":1,"y":2}]],"cid":"c1"}', "bad_data", "frame", "c1"),
    ('[{"a":1,"a":2,"cid":"c1"}]', "bad_data", "?", None),
    ('{"event":"ping","x":1,"x":2,"cid":5}', "bad_data", "frame", None),
    # Lone surrogates
    ('{"event":"message","data":{"text":"a\\ud800"},"cid":"c1"}', "bad_data", "?", "c1"),
    ('{"event":"message","data":{"text":"\\udc00\\ud800"},"cid":"c1"}', "bad_data", "?", "c1"),
    ('{"event":"message","data":{"text":"x","\\udfff":1},"cid":"c1"}', "bad_data", "?", "c1"),
    ('{"event":"p\\ud83dng","cid":"c1"}', "bad_data", "?", "c1"),
    ('{"event":"ping","cid":"c\\ud83d"}', "bad_data", "?", None),
    ('{"event":"ping","\\ud83d":1,"cid":"c1"}', "bad_data", "?", "c1"),
    ('{"event":"ping","x":[[["\\uDBFF"]]],"cid":"c1"}', "bad_data", "?", "c1"),
    ('{"event":"ping","\\ud83d":1,"\\ud83d":2,"cid":"c1"}', "bad_data", "?", "c1"),
    ('["\\ud83d"]', "bad_data", "?", None),
    ('"\\ud83d"', "bad_data", "?", None),
]


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[Served]:
    with served("--rate", "0") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def shown(text: str) -> str:
    return repr(text if len(text) < 90 else f"{text[:60]}…{len(text)}")


def each_ten(scene: Scene, number: int) -> Iterator[Chat]:
    """A client for each of so many faults, and a new one whenever ten have been answered."""
    for index in range(number):
        if index % 10 == 0:
            chat = scene.join(f"user{index // 10}", f"{scene.room}-{index}")
        yield chat


def test_what_is_no_json(scene: Scene) -> None:
    for text, chat in zip(INVALID, each_ten(scene, len(INVALID)), strict=True):
        chat.send_text(text)
        answer = chat.receive_text()
        assert answer == '{"event":"error","data":{"message":"Invalid JSON"},"code":"bad_json"}', shown(text)


def test_what_is_json_after_all(scene: Scene) -> None:
    chat = scene.join("alice")
    for text in FINE:
        chat.send_text(text)
        assert chat.receive_text() == '{"event":"pong","data":{}}', shown(text)


def test_what_is_json_and_wrong(scene: Scene) -> None:
    for (text, code, field, cid), chat in zip(ANSWERS, each_ten(scene, len(ANSWERS)), strict=True):
        chat.send_text(text)
        answer = chat.receive()
        assert (answer["event"], answer["code"], answer.get("cid")) == ("error", code, cid), (text, answer)
        if field != "?":
            assert answer.get("field") == field, (text, answer)
        if code == "bad_data":
            assert isinstance(answer["field"], str), (text, answer)
        assert list(answer["data"]) == ["message"]
    assert scene.join("alice").settle() == []
