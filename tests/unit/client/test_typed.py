"""What a typed line asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client import typed
from chatroom.client.typed import (
    COMMANDS,
    Delete,
    Edit,
    Moderate,
    Quit,
    Say,
    ShowHelp,
    ShowHistory,
    ShowLast,
    ShowMembers,
    ShowRooms,
    Switch,
    Wrong,
    help_lines,
    read_typed,
)
from chatroom.core.sanctions import Action


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("hello", Say("hello")),
        ("  hello  ", Say("hello")),
        ("two\nlines", Say("two\nlines")),
        ("//etc/hosts", Say("/etc/hosts")),
        ("///", Say("//")),
        ("a /switch ops", Say("a /switch ops")),
        ("/me waves", Say("/me waves")),
        ("/me  waves\nand goes", Say("/me  waves\nand goes")),
        ("/switch ops", Switch("ops")),
        ("/switch #ops", Switch("ops")),
        ("/switch #", Switch("#")),
        ("/rooms", ShowRooms()),
        ("/members", ShowMembers()),
        ("/help", ShowHelp()),
        ("/quit", Quit()),
        ("/last", ShowLast(20)),
        ("/last 5", ShowLast(5)),
        ("/last 9999", ShowLast(200)),
        ("/history", ShowHistory(20)),
        ("/history 5", ShowHistory(5)),
        ("/history 9999", ShowHistory(200)),
        ("/edit in other words", Edit(None, "in other words")),
        ("/edit 5 apples", Edit(None, "5 apples")),
        ("/edit #5 apples", Edit(5, "apples")),
        ("/edit two\nlines", Edit(None, "two\nlines")),
        ("/delete", Delete(None)),
        ("/delete #17", Delete(17)),
        ("/kick bob", Moderate(Action.KICK, "bob")),
        ("/kick @bob too  loud", Moderate(Action.KICK, "bob", None, "too loud")),
        ("/mute bob", Moderate(Action.MUTE, "bob")),
        ("/mute bob 10m", Moderate(Action.MUTE, "bob", 600)),
        ("/ban bob 7d spam", Moderate(Action.BAN, "bob", 7 * 86_400, "spam")),
        ("/ban bob spam", Moderate(Action.BAN, "bob", None, "spam")),
        ("/kick bob 10m", Moderate(Action.KICK, "bob", None, "10m")),
        ("/unmute bob", Moderate(Action.UNMUTE, "bob")),
        ("/unban bob", Moderate(Action.UNBAN, "bob")),
    ],
)
def test_a_line_asks_for_one_thing(line: str, asked: object) -> None:
    assert read_typed(line) == asked


@pytest.mark.parametrize("line", ["", " ", "\n", "\t \n"])
def test_a_line_with_nothing_in_it_asks_for_nothing(line: str) -> None:
    assert read_typed(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "/", "/swich ops", "/switch", "/switch a b", "/me", "/edit", "/edit #5", "/delete 17", "/delete #0",
        "/history 0", "/last 0", "/history -1", "/history ten", "/kick", "/mute", "/unmute bob now",
        "/members all", "/quit now", "/etc/hosts", "/SWITCH ops",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_never_said(line: str) -> None:
    assert isinstance(read_typed(line), Wrong)


def test_a_wrong_command_says_how_it_is_written() -> None:
    assert read_typed("/switch") == Wrong("write it like /switch ROOM")
    assert read_typed("/x" + "y" * 100) == Wrong(
        "there is no command /x" + "y" * 39 + ": see /help, or say a line with a slash by //"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_help_and_does_something(name: str) -> None:
    assert any(line.startswith(f"/{name} ") for line in help_lines())
    words = COMMANDS[name][0].replace("[", "").replace("]", "").replace("#ID", "#5").replace("N ", "5 ")
    line = f"/{name} {'5' if words == 'N' else words}"
    assert not isinstance(read_typed(line), Wrong), line


def test_the_help_fits_an_ordinary_terminal() -> None:
    assert max(map(len, help_lines())) < 80


@given(st.text())
def test_only_what_begins_with_a_slash_isnt_said_as_it_is(line: str) -> None:
    asked = read_typed(line)
    stripped = line.strip()
    if stripped and not stripped.startswith("/"):
        assert asked == Say(stripped)
    else:
        assert asked is None or isinstance(asked, typed.Typed)
