"""Where an exception came from, without its message."""

import json
from collections.abc import Callable

import pytest

from chatroom.config import parsers
from chatroom.core.logevents import frames, whereabouts

SECRET = "s3" + "cret"


def caught(read: Callable[[str], object]) -> Exception:
    try:
        read(SECRET)
    except Exception as error:
        return error
    raise AssertionError


def test_the_innermost_line_of_ours_counts() -> None:
    error = caught(parsers.switch)
    where = whereabouts(error)
    assert where["exception"] == "ValueError"
    assert where["location"].startswith("chatroom.config.parsers:")
    assert where["location"].endswith(" in switch")


def test_our_line_counts_although_a_library_raised() -> None:
    def ours(text: str) -> None:
        exec("json.loads(text)", {"__name__": "chatroom.x", "json": json, "text": text})

    assert whereabouts(caught(ours))["location"].startswith("chatroom.x:1 in")


def test_without_any_of_ours_the_innermost_counts() -> None:
    where = whereabouts(caught(json.loads))
    assert where["location"].startswith("json.decoder:")


@pytest.mark.parametrize("depth", [1, 3])
def test_of_a_group_the_first(depth: int) -> None:
    error = caught(parsers.switch)
    for _ in range(depth):
        error = ExceptionGroup(SECRET, [error, KeyError()])
    assert whereabouts(error)["exception"] == "ValueError"
    assert "in switch" in frames(error)
    assert SECRET not in frames(error) + str(whereabouts(error))


def test_a_group_tells_the_place_of_an_exception_without_one() -> None:
    def raise_group(_: str) -> None:
        raise ExceptionGroup("x", [KeyError()])

    assert "raise_group" in whereabouts(caught(raise_group))["location"]


def test_an_exception_that_was_never_raised() -> None:
    assert whereabouts(KeyError()) == {"exception": "KeyError", "location": "unknown"}
    assert frames(KeyError()) == ""
