"""Each event's exact bytes, and that hostile text can't break out of them."""

import json
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatroom.core.errors import CommandError, ErrorCode
from chatroom.core.limits import Limits
from chatroom.core.messages import Deleted, Edited, Message, Moderated, Page
from chatroom.core.sanctions import Action, Sanction
from chatroom.protocol import events

TS = 1_764_000_001_000
BOBS = Message(1740, TS, "bob", "héllo", None)
MINE = Message(1741, TS + 1, "alice", "hi", "c-1")
OPENING = {"epoch": "k3f9", "last_id": 44, "replay": 2}
TOLD = events.limits_json(Limits(), unanswered=32)

EXACT: list[tuple[bytes, str]] = [
    (
        b"".join(events.welcome("general", "alice", (b'["bob"]',), **OPENING, recovered=None, limits=TOLD)),
        '{"event":"welcome","data":{"message":"Welcome to #general, alice!","members":["bob"]},'
        '"room":"general","username":"alice","epoch":"k3f9","last_id":44,"replay":2,'
        '"limits":{"text":4000,"frame":65536,"rate":5,"burst":20,"unanswered":32}}',
    ),
    (
        b"".join(events.welcome("general", "alice", (b"[", b"]"), **OPENING, recovered=True, limits=TOLD)),
        '{"event":"welcome","data":{"message":"Welcome to #general, alice!","members":[]},'
        '"room":"general","username":"alice","epoch":"k3f9","last_id":44,"replay":2,"recovered":true,'
        '"limits":{"text":4000,"frame":65536,"rate":5,"burst":20,"unanswered":32}}',
    ),
    (
        b"".join(events.switched("ops", (b'["bob"]',), "s", **OPENING, recovered=False)),
        '{"event":"switched","data":{"room":"ops"},"members":["bob"],'
        '"epoch":"k3f9","last_id":44,"replay":2,"recovered":false,"cid":"s"}',
    ),
    (
        b"".join(events.switched("ops", (b"[]",), None, **OPENING, recovered=None)),
        '{"event":"switched","data":{"room":"ops"},"members":[],"epoch":"k3f9","last_id":44,"replay":2}',
    ),
    (
        events.record("general", BOBS),
        '{"event":"message","data":{"username":"bob","text":"héllo"},'
        '"room":"general","id":1740,"ts":1764000001000}',
    ),
    (
        events.record("general", MINE),
        '{"event":"message","data":{"username":"alice","text":"hi"},'
        '"room":"general","id":1741,"ts":1764000001001,"cid":"c-1"}',
    ),
    (
        events.record("general", MINE._replace(text="ho", edited=1851)),
        '{"event":"message","data":{"username":"alice","text":"ho"},'
        '"room":"general","id":1741,"ts":1764000001001,"edited":1851,"cid":"c-1"}',
    ),
    (
        events.record("general", BOBS._replace(text="", edited=1851, deleted=1852)),
        '{"event":"message","data":{"username":"bob","text":""},'
        '"room":"general","id":1740,"ts":1764000001000,"deleted":1852}',
    ),
    (
        events.record("general", Edited(1851, 1764000001002, "alice", "hello!", "e1", 1843, 1843)),
        '{"event":"edited","data":{"id":1843,"username":"alice","text":"hello!","by":"alice"},'
        '"room":"general","id":1851,"ts":1764000001002,"cid":"e1"}',
    ),
    (
        events.record("general", Deleted(1852, 1764000001003, "carol", "", "d1", 1843, "alice", 1851)),
        '{"event":"deleted","data":{"id":1843,"username":"alice","by":"carol"},'
        '"room":"general","id":1852,"ts":1764000001003,"cid":"d1"}',
    ),
    (
        events.record(
            "general",
            Moderated(1853, 1764000001004, "carol", "flooding", "m1", Action.MUTE, "bob", 1764000600000),
        ),
        '{"event":"moderated","data":{"action":"mute","username":"bob","by":"carol",'
        '"until":1764000600000,"reason":"flooding"},'
        '"room":"general","id":1853,"ts":1764000001004,"cid":"m1"}',
    ),
    (
        events.record("general", Moderated(1854, 1764000001005, "carol", "", None, Action.KICK, "bob", None)),
        '{"event":"moderated","data":{"action":"kick","username":"bob","by":"carol"},'
        '"room":"general","id":1854,"ts":1764000001005}',
    ),
    (
        events.sanctions("general", [Sanction(Action.BAN, "bob", "carol", 1764000600000, "spam")], None, "s"),
        '{"event":"sanctions","data":{"sanctions":[{"action":"ban","username":"bob","by":"carol",'
        '"until":1764000600000,"reason":"spam"}]},"room":"general","cid":"s"}',
    ),
    (
        events.sanctions("general", [], [Moderated(9, 8, "carol", "", "m", Action.KICK, "bob", None)], None),
        '{"event":"sanctions","data":{"sanctions":[],"past":[{"id":9,"ts":8,"action":"kick",'
        '"username":"bob","by":"carol"}]},"room":"general"}',
    ),
    (
        events.error(CommandError(ErrorCode.FORBIDDEN, "Muted", until=1764000600000, cid="c")),
        '{"event":"error","data":{"message":"Muted"},"code":"forbidden","until":1764000600000,"cid":"c"}',
    ),
    (events.joined("general", "alice"), '{"event":"joined","data":{"username":"alice"},"room":"general"}'),
    (events.left("general", "alice"), '{"event":"left","data":{"username":"alice"},"room":"general"}'),
    (
        events.typing("general", "alice", True),
        '{"event":"typing","data":{"username":"alice","active":true},"room":"general"}',
    ),
    (
        events.typing("general", "alice", False),
        '{"event":"typing","data":{"username":"alice","active":false},"room":"general"}',
    ),
    (
        b"".join(events.members("general", (b'["alice","bob"]',), "m1")),
        '{"event":"members","data":{"members":["alice","bob"]},"room":"general","cid":"m1"}',
    ),
    (
        b"".join(events.members("general", (b"[]",))),
        '{"event":"members","data":{"members":[]},"room":"general"}',
    ),
    (
        events.history("general", Page((BOBS, MINE), more=True), "h1"),
        '{"event":"history","data":{"messages":['
        '{"id":1740,"ts":1764000001000,"username":"bob","text":"héllo"},'
        '{"id":1741,"ts":1764000001001,"username":"alice","text":"hi","cid":"c-1"}],"more":true},'
        '"room":"general","cid":"h1"}',
    ),
    (
        events.history("general", Page((), more=False), None),
        '{"event":"history","data":{"messages":[],"more":false},"room":"general"}',
    ),
    (events.pong(None), '{"event":"pong","data":{}}'),
    (events.pong("p"), '{"event":"pong","data":{},"cid":"p"}'),
    (events.ack("a"), '{"event":"ack","data":{},"cid":"a"}'),
    (events.ack(None), '{"event":"ack","data":{}}'),
    (events.renewed(1764007200, "c"), '{"event":"ack","data":{"exp":1764007200},"cid":"c"}'),
    (events.renewed(1764007200, None), '{"event":"ack","data":{"exp":1764007200}}'),
    (events.expiring(60), '{"event":"expiring","data":{"in":60}}'),
    (events.duplicate(1843, "c"), '{"event":"ack","data":{"id":1843,"duplicate":true},"cid":"c"}'),
    (
        events.error(CommandError(ErrorCode.BAD_JSON, "Invalid JSON")),
        '{"event":"error","data":{"message":"Invalid JSON"},"code":"bad_json"}',
    ),
    (
        events.error(CommandError(ErrorCode.BAD_DATA, "no", field="text", cid="c")),
        '{"event":"error","data":{"message":"no"},"code":"bad_data","field":"text","cid":"c"}',
    ),
    (
        events.error(CommandError(ErrorCode.TOO_LONG, "no", limit=4000, cid="c")),
        '{"event":"error","data":{"message":"no"},"code":"too_long","limit":4000,"cid":"c"}',
    ),
    (
        events.error(CommandError(ErrorCode.UNAVAILABLE, "no", retry=True, cid="c")),
        '{"event":"error","data":{"message":"no"},"code":"unavailable","retry":true,"cid":"c"}',
    ),
]


@pytest.mark.parametrize(("made", "exact"), EXACT)
def test_an_event_is_these_bytes(made: bytes, exact: str) -> None:
    assert made.decode() == exact


@pytest.mark.parametrize("made", [made for made, _ in EXACT])
def test_event_and_data_stand_first_and_there_are_no_spaces(made: bytes) -> None:
    value = json.loads(made)
    assert list(value)[:2] == ["event", "data"]
    assert isinstance(value["data"], dict)
    assert made.decode() == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(("rate", "told"), [(0.0, "0"), (5.0, "5"), (0.5, "0.5"), (1e6, "1000000")])
def test_a_rate_is_told_as_the_option_has_it(rate: float, told: str) -> None:
    limits = Limits(text_chars=7, frame_bytes=1 << 20, message_rate=rate, message_burst=9)
    expected = f'{{"text":7,"frame":1048576,"rate":{told},"burst":9,"unanswered":1}}'
    assert events.limits_json(limits, unanswered=1) == expected


@pytest.mark.parametrize("code", list(ErrorCode))
def test_an_error_carries_the_word_of_its_code(code: ErrorCode) -> None:
    assert json.loads(events.error(CommandError(code, "x")))["code"] == str(code)


@pytest.mark.parametrize("acting", ["\x00", "\x07", "\x1b[2J", "\x80", "\x9b2J", "\x9d0;title\x9c", "é\x9bA"])
def test_nothing_in_a_text_acts_on_a_terminal(acting: str) -> None:
    """Both sets of control characters are escaped; to JSON that is the same text."""
    made = events.record("r", Message(1, 2, acting, acting, acting)).decode()
    assert not any(unicodedata.category(char) == "Cc" for char in made)
    assert json.loads(made)["data"] == {"username": acting, "text": acting}


hostile = st.text(max_size=30) | st.sampled_from(
    ['"', "\\", '","id":1,"x":"', "\0\x1f\x7f", "\n\r\u2028\u2029\x85", "</script>", "😀", "\u202e", "'"]
)
TELL: dict[str, Callable[[str], tuple[bytes, dict[str, object]]]] = {
    "message": lambda text: (
        events.record(text, Message(1, 2, text, text, text)),
        {
            "event": "message",
            "data": {"username": text, "text": text},
            "room": text,
            "id": 1,
            "ts": 2,
            "cid": text,
        },
    ),
    "welcome": lambda text: (
        b"".join(
            events.welcome(text, text, (b"[]",), epoch=text, last_id=0, replay=0, recovered=None, limits=TOLD)
        ),
        {
            "event": "welcome",
            "data": {"message": f"Welcome to #{text}, {text}!", "members": []},
            "room": text,
            "username": text,
            "epoch": text,
            "last_id": 0,
            "replay": 0,
            "limits": {"text": 4000, "frame": 65536, "rate": 5, "burst": 20, "unanswered": 32},
        },
    ),
    "switched": lambda text: (
        b"".join(events.switched(text, (b"[]",), text, epoch=text, last_id=0, replay=0, recovered=True)),
        {
            "event": "switched",
            "data": {"room": text},
            "members": [],
            "epoch": text,
            "last_id": 0,
            "replay": 0,
            "recovered": True,
            "cid": text,
        },
    ),
    "joined": lambda text: (
        events.joined(text, text),
        {"event": "joined", "data": {"username": text}, "room": text},
    ),
    "left": lambda text: (
        events.left(text, text),
        {"event": "left", "data": {"username": text}, "room": text},
    ),
    "typing": lambda text: (
        events.typing(text, text, True),
        {"event": "typing", "data": {"username": text, "active": True}, "room": text},
    ),
    "members": lambda text: (
        b"".join(events.members(text, (f"[{events.quoted(text)}]".encode(),), text)),
        {"event": "members", "data": {"members": [text]}, "room": text, "cid": text},
    ),
    "history": lambda text: (
        events.history(text, Page((Message(1, 2, text, text, text),), more=False), text),
        {
            "event": "history",
            "data": {
                "messages": [{"id": 1, "ts": 2, "username": text, "text": text, "cid": text}],
                "more": False,
            },
            "room": text,
            "cid": text,
        },
    ),
    "pong": lambda text: (events.pong(text), {"event": "pong", "data": {}, "cid": text}),
    "ack": lambda text: (events.ack(text), {"event": "ack", "data": {}, "cid": text}),
    "renewed": lambda text: (
        events.renewed(7, text),
        {"event": "ack", "data": {"exp": 7}, "cid": text},
    ),
    "duplicate": lambda text: (
        events.duplicate(7, text),
        {"event": "ack", "data": {"id": 7, "duplicate": True}, "cid": text},
    ),
    "error": lambda text: (
        events.error(CommandError(ErrorCode.BAD_EVENT, text, field=text, cid=text)),
        {"event": "error", "data": {"message": text}, "code": "bad_event", "field": text, "cid": text},
    ),
}


@pytest.mark.parametrize("name", TELL)
def test_hostile_text_is_a_value_and_nothing_else(name: str) -> None:
    @given(hostile)
    @example('"},"event":"')
    def check(text: str) -> None:
        made, expected = TELL[name](text)
        value = json.loads(made)
        assert value == expected
        assert list(value) == list(expected)

    check()
