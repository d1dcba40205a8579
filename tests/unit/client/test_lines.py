"""Records as lines: what is said of each, and that nothing in a record can act or mislead."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.lines import PALETTE, gap, json_line, replaced, screen_lines, shown_name, text_line
from chatroom.client.printable import printable

TS = 1_764_000_001_000
HOSTILE = "a\x1b[31m\u202eb\x9b\x7f\ud800\n"


def clock(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def end_clock(milliseconds: int) -> str:
    return f"day {milliseconds // 86_400_000}"


def record(event: str, data: object, **beside: object) -> dict[str, Any]:
    return {"event": event, "data": data, "room": "ops", "id": 1851, "ts": TS, **beside}


def line(found: dict[str, Any]) -> str:
    return text_line(found, colour=False, clock=clock, end_clock=end_clock)


ALICE = {"username": "alice", "text": "hello"}
EDIT = {"id": 1843, "username": "alice", "text": "hello!", "by": "alice"}
DELETION = {"id": 1843, "username": "alice", "by": "alice"}
MUTE = {"action": "mute", "username": "bob", "by": "carol"}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (record("message", ALICE), "alice: hello"),
        (record("message", ALICE, cid="c1"), "alice: hello"),
        (record("message", ALICE, edited=1851), "alice: hello (edited)"),
        (record("message", ALICE | {"text": ""}, deleted=1852), "alice: (deleted)"),
        (record("message", ALICE | {"text": "a\n\n  b"}), r"alice: a\n\n  b"),
        (record("message", ALICE | {"text": "/me waves"}), "~ alice waves"),
        (record("message", ALICE | {"text": "/me \n muted bob"}, edited=1851), "~ alice muted bob (edited)"),
        (record("message", ALICE | {"text": "/me"}), "alice: /me"),
        (record("message", ALICE | {"text": "/mention"}), "alice: /mention"),
        (record("message", ALICE | {"text": "/me "}, deleted=1852), "alice: (deleted)"),
        (record("edited", EDIT), "* alice edited 1843: hello!"),
        (record("edited", EDIT | {"text": ""}), "* alice edited 1843"),
        (record("deleted", DELETION | {"by": "carol"}), "* carol deleted 1843 of alice"),
        (record("deleted", DELETION), "* alice deleted 1843"),
        (record("moderated", MUTE | {"until": TS, "reason": "flooding"}),
         "* carol muted bob until day 20416: flooding"),
        (record("moderated", MUTE), "* carol muted bob"),
        (record("moderated", MUTE | {"action": "unban", "reason": "sorry"}), "* carol unbanned bob: sorry"),
        (record("moderated", MUTE | {"action": "hug\n"}), r"* carol hug\n bob"),
        (record("danced", {}), "* a record that this version doesn't know"),
    ],
)  # fmt: skip
def test_a_record_in_words(found: dict[str, Any], said: str) -> None:
    assert line(found) == f"16:00:01 {said}"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (gap("ops", 1842, 1900, filled=False), "* records 1843 to 1899 are missing"),
        (gap("ops", 1842, 1844, filled=False), "* record 1843 is missing"),
        (gap("ops", 1842, 1900, filled=True),
         "* records 1843 to 1899 were missed: what is left of the messages comes next"),
        (gap("ops", 1842, 1844, filled=True),
         "* record 1843 was missed: what is left of the messages comes next"),
        (gap("ops", 9, 9, filled=False), "* records may be missing"),
        (replaced("ops", "3lFfT4sz"), "* the history was replaced by another one: ids begin anew"),
    ],
)  # fmt: skip
def test_what_the_client_says_itself_has_no_time(found: dict[str, Any], said: str) -> None:
    assert line(found) == said
    assert screen_lines(found, colour=False, clock=clock) == [said]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "? * a record that this version doesn't know"),
        ({"event": []}, "? * a record that this version doesn't know"),
        ({"event": "message", "data": 7, "ts": "now"}, "? ?: ?"),
        (record("message", {"username": None, "text": ["x"]}, ts=True), "? ?: ?"),
        (record("message", ALICE, ts=-1), "? alice: hello"),
        (record("message", ALICE, ts=1e3), "? alice: hello"),
        (record("message", ALICE, ts=253_402_300_800_000), "? alice: hello"),
        (record("edited", {"id": True, "by": 7}), "16:00:01 * ? edited ?: ?"),
        (record("deleted", {"id": 10**5000}), "16:00:01 * ? deleted ?"),
        (record("moderated", {"action": 7, "until": {}, "reason": 8}), "16:00:01 * ? ? ? until ?: ?"),
        ({"event": "gap"}, "* records may be missing"),
    ],
)
def test_what_makes_no_sense_is_shown_as_far_as_it_does(found: dict[str, Any], said: str) -> None:
    assert line(found) == said


def test_names_have_colours_and_texts_have_none() -> None:
    name = shown_name("alice", colour=True)
    found = record("message", {"username": "alice", "text": "alice: \x1b[31m"}, edited=9)
    assert text_line(found, colour=True, clock=clock) == (
        f"\x1b[2m16:00:01\x1b[0m {name}: alice: \\x1b[31m \x1b[2m(edited)\x1b[0m"
    )
    assert re.fullmatch(r"\x1b\[38;5;\d+malice\x1b\[0m", name)
    assert shown_name("al\nice", colour=False) == r"al\nice"
    assert len({shown_name(f"n{number}", colour=True).partition("m")[0] for number in range(99)}) == len(
        PALETTE
    )


def test_the_colour_of_a_name_is_the_same_in_every_process() -> None:
    assert shown_name("alice", colour=True) == "\x1b[38;5;166malice\x1b[0m"


def luminance(number: int) -> float:
    """By WCAG 2, of a colour in the cube of 256."""
    level = (0, 95, 135, 175, 215, 255)
    red, green, blue = (level[(number - 16) // size % 6] / 255 for size in (36, 6, 1))
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("number", PALETTE)
def test_a_colour_can_be_read_on_black_and_on_white(number: int) -> None:
    found = luminance(number) + 0.05
    assert min(found / 0.05, 1.05 / found) > 3.5


def test_a_text_of_several_lines_is_indented_on_a_screen() -> None:
    text = "first\n16:00:01 bob: second\r\n\n\tfourth"
    found = record("message", {"username": "alice", "text": text}, edited=9)
    assert screen_lines(found, colour=False, clock=clock) == [
        "16:00:01 alice: first",
        "           16:00:01 bob: second",
        "           ",
        "               fourth (edited)",
    ]
    coloured = screen_lines(found, colour=True, clock=clock)
    assert coloured[1:3] == ["           16:00:01 bob: second", "           "]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HOSTILE),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just(HOSTILE), inner, max_size=3)
    ),
    max_leaves=8,
)
MEMBERS = ("id", "username", "text", "by", "action", "until", "reason", "after", "before", "filled")
EVENTS = ("message", "edited", "deleted", "moderated", "gap", "replaced", "danced")
RECORDS = st.fixed_dictionaries(
    {"event": st.sampled_from(EVENTS) | JSON, "data": JSON | st.dictionaries(st.sampled_from(MEMBERS), JSON)},
    optional={"room": JSON, "id": JSON, "ts": JSON, "edited": JSON, "deleted": JSON},
)
OURS = re.compile(r"\x1b\[(?:38;5;[0-9]+|2)m([^\x1b]*)\x1b\[0m")


def check_safe(found: dict[str, Any]) -> None:
    """Nothing acts on a terminal but our colours, and no line begins by what others have written."""
    plain = text_line(found, colour=False, clock=clock)
    assert printable(plain) == plain
    coloured = text_line(found, colour=True, clock=clock)
    assert OURS.sub(r"\1", coloured) == plain
    lines = screen_lines(found, colour=False, clock=clock)
    assert all(printable(each) == each for each in lines)
    assert [OURS.sub(r"\1", each) for each in screen_lines(found, colour=True, clock=clock)] == lines
    assert lines[0]
    assert all(each.startswith("    ") for each in lines[1:])


@given(RECORDS | st.dictionaries(st.text(), JSON, max_size=3))
def test_whatever_a_server_sends_acts_on_no_terminal(found: dict[str, Any]) -> None:
    check_safe(found)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("text", [HOSTILE, *HOSTILE, "a\nb\r\nc"])
def test_no_member_of_a_record_acts_on_a_terminal(event: str, text: str) -> None:
    check_safe(record(event, dict.fromkeys(MEMBERS, text), room=text, cid=text))


def finite(value: object) -> object:
    """As JSON can say it."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list) else value


@given(RECORDS | st.dictionaries(st.text(), JSON, max_size=3))
def test_a_line_of_json_is_ascii_and_says_the_same(found: dict[str, Any]) -> None:
    shown = json_line(found)
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown) == finite(found)


def test_a_line_of_json_has_the_order_of_the_protocol() -> None:
    found = {
        "ts": TS,
        "id": 7,
        "room": "ops",
        "data": {"text": "\u00e9\x7f", "username": "a"},
        "event": "message",
    }
    assert json_line(found) == (
        '{"event":"message","data":{"text":"\\u00e9\\u007f","username":"a"},"ts":1764000001000,"id":7,"room":"ops"}'
    )
    assert json_line(gap("ops", 3, 9, filled=True)) == (
        '{"event":"gap","data":{"after":3,"before":9,"filled":true},"room":"ops"}'
    )
    assert json_line(replaced("ops", "e")) == '{"event":"replaced","data":{},"room":"ops","epoch":"e"}'


def test_what_lies_too_deep_is_left_out() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    shown = json_line({"event": "message", "data": {"text": "x", "more": deep}})
    assert shown == '{"event":"message","data":{"text":"x","more":' + "[" * 14 + "null" + "]" * 14 + "}}"
