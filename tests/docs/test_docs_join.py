"""docs/terminal.md says what `join` takes, what can be typed there, and how it looks."""

import os
import shutil

import pytest

from chatroom.client.conversation import LEAVING, NEW
from chatroom.client.settings import CLIENT_OPTIONS
from chatroom.client.typed import COMMANDS, HISTORY, usage
from chatroom.client.typedhistory import MOST
from chatroom.client.unread import IDLE
from chatroom.join import JOIN_OPTIONS
from tests.support import captures
from tests.support.pages import rows, section

PAGE = captures.PAGE.read_text("utf-8")


def test_every_option_with_its_default() -> None:
    documented = [(flag.strip("`"), default.strip("`")) for flag, default, _ in rows(PAGE, "join")]
    own = [option for option in JOIN_OPTIONS if option not in CLIENT_OPTIONS]
    assert documented == [(option.flag, option.default) for option in own]


def test_every_command() -> None:
    documented = [first.strip("`") for first, _ in rows(PAGE, "What can be typed") if first.startswith("`/")]
    assert documented == [f"/{usage(name)}" for name in COMMANDS]


def test_the_numbers() -> None:
    assert f"kept for {LEAVING:.0f} seconds" in PAGE
    assert f"no key for {IDLE / 60:.0f} minutes" in PAGE
    assert f"the last {MOST:,} lines" in PAGE
    assert f"{HISTORY} if left out" in PAGE
    assert NEW in section(PAGE, "What is new")


@pytest.mark.skipif(shutil.which("tmux") is None and os.environ.get("CI") != "true", reason="tmux is missing")
def test_the_pictures_are_what_tmux_shows(pyz: object) -> None:
    assert captures.write(PAGE, captures.take()) == PAGE, "python -m tests.support.captures makes them anew"
