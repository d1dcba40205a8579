"""docs/terminal.md says what `join`, `tail` and `say` take and show."""

import json
from typing import Any

import pytest

from chatroom.client.address import Place
from chatroom.client.credentials import VARIABLE, find_credentials
from chatroom.client.lines import gap, json_line, replaced, text_line
from chatroom.client.settings import CLIENT_OPTIONS
from chatroom.config.options import Option
from chatroom.say import REFUSED, SAY_OPTIONS, STORED, UNKNOWN
from chatroom.tail import TAIL_OPTIONS
from tests.support.pages import ROOT, blocks, fences, rows, section, words

PAGE = (ROOT / "docs" / "terminal.md").read_text("utf-8")
NOTHING = "–"  # noqa: RUF001


def test_every_common_option_with_its_default() -> None:
    documented = [
        (flag.strip("`"), None if default == NOTHING else default.strip("`"))
        for flag, default, _ in rows(PAGE, "Where, and as whom")
    ]
    assert documented == [(option.flag, option.default) for option in CLIENT_OPTIONS]


@pytest.mark.parametrize(
    ("heading", "options"), [("Options of say", SAY_OPTIONS), ("Options of tail", TAIL_OPTIONS)]
)
def test_every_option_of_a_command_with_its_default(heading: str, options: tuple[Option, ...]) -> None:
    documented = [
        (row[0].strip("`"), {NOTHING: None, "off": "0"}.get(row[1], row[1].strip("`")))
        for row in rows(PAGE, heading)
    ]
    assert documented == [(option.flag, option.default) for option in options[len(CLIENT_OPTIONS) :]]


def test_the_exit_codes_of_say() -> None:
    documented = {int(row[0]) for row in rows(PAGE, "say") if row[0].isdigit()}
    assert documented == {STORED, REFUSED, UNKNOWN, 2}


def test_the_sources_of_a_token(tmp_path: Any) -> None:
    text = section(PAGE, "The token")
    assert VARIABLE in words(text)
    (example,) = blocks(text, "text")
    file = tmp_path / "chatroom" / "netrc"
    file.parent.mkdir()
    file.touch(mode=0o600)
    file.write_text(example)
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    for place, username in ((Place("chat.example"), "alice"), (Place(port=3000), None)):
        found = find_credentials(place, environ)
        assert (found.token(), found.username) == ("TOKEN", username)


def record(event: str, ts: int, data: dict[str, Any], **beside: object) -> dict[str, Any]:
    return {"event": event, "data": data, "ts": ts, **beside}


ALICE = {"username": "alice", "text": "hello"}
MUTE = {"action": "mute", "username": "bob", "by": "carol", "until": 60000, "reason": "flooding"}
SHOWN = [
    record("message", 51233, ALICE),
    record("message", 51233, ALICE | {"text": "hello!"}, edited=1851),
    record("message", 51233, ALICE | {"text": ""}, deleted=1852),
    record("message", 51234, {"username": "alice", "text": "/me waves"}),
    record("edited", 51240, {"id": 1843, "username": "alice", "text": "hello!", "by": "alice"}),
    record("deleted", 51240, {"id": 1843, "username": "alice", "by": "carol"}),
    record("moderated", 51241, MUTE),
    gap("ops", 1843, 1900, filled=False),
    gap("ops", 1843, 1900, filled=True),
    replaced("ops", "3lFfT4sz"),
]


def clock(number: int) -> str:
    """A time whose digits are those of `number`."""
    digits = f"{number:06}"
    return f"{digits[:2]}:{digits[2:4]}:{digits[4:]}"


def test_the_lines_are_those_of_the_code() -> None:
    shown = fences(section(PAGE, "What is shown"), "text")
    assert shown == [text_line(each, colour=False, clock=clock) for each in SHOWN]


@pytest.mark.parametrize("note", [gap("ops", 1843, 1900, filled=True), replaced("ops", "3lFfT4sz")])
def test_the_frames_of_the_client_itself(note: dict[str, Any]) -> None:
    shown = fences(section(PAGE, "What is shown"), "json")
    assert json_line(note) in shown
    assert len(shown) == len({json.loads(line)["event"] for line in shown}) == 2
