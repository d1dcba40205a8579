"""Rights: one entry decides, the exact name before the longest glob, and no entry means no."""

import fnmatch
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.auth.rights import Rights, matches


@pytest.mark.parametrize(
    ("rooms", "room", "granted"),
    [
        ({}, "general", ""),
        ({"general": "rw"}, "general", "rw"),
        ({"general": "wr"}, "general", "rw"),
        ({"general": "r"}, "general", "r"),
        ({"general": "w"}, "general", "w"),
        ({"general": ""}, "general", ""),
        ({"general": "rw"}, "General", ""),
        ({"general": "rw"}, "general2", ""),
        ({"ops-*": "r"}, "ops-1", "r"),
        ({"ops-*": "r"}, "ops-", "r"),
        ({"ops-*": "r"}, "ops", ""),
        ({"*": "rw", "secret": ""}, "secret", ""),
        ({"*": "rw", "secret": ""}, "secrets", "rw"),
        ({"ops-*": "rw", "ops-1": "r"}, "ops-1", "r"),
        ({"*": "r", "ops-*": "rw"}, "ops-1", "rw"),
        ({"ops-*": "rw", "*": "r"}, "ops-1", "rw"),
        ({"ops-*": "", "*": "rw"}, "ops-1", ""),
        ({"*": "r", "*-prod": "", "db-*": "rw"}, "db-prod", ""),
        ({"a*": "r", "a?": "rw"}, "ab", "rw"),
        ({"a*": "r", "a?": "rw"}, "abc", "r"),
        ({"a?": "r", "?b": "w"}, "ab", "w"),
        ({"?b": "w", "a?": "r"}, "ab", "w"),
        ({"ops-?": "r"}, "ops-10", ""),
        ({"ops-[12]": "r"}, "ops-1", ""),
        ({"ops-[12]": "r"}, "ops-[12]", "r"),
        ({"ops-[1]*": "r"}, "ops-[1]x", "r"),
        ({"!x*": "r"}, "!xy", "r"),
        ({"ops-*": "r", "ops-**": "w"}, "ops-*", "r"),
        ({"cafe\u0301": "r"}, "caf\u00e9", "r"),
        ({"cafe\u0301*": "r"}, "caf\u00e9-1", "r"),
        ({"\uff4fps": "r"}, "ops", "r"),
        ({"?": "r"}, "\u65e5", "r"),
    ],
)
def test_what_an_entry_grants(rooms: dict[str, str], room: str, granted: str) -> None:
    rights = Rights.parse(rooms)
    assert "".join(access for access in ("r", "w") if rights.can(room, access)) == granted


def test_everything_is_everything() -> None:
    rights = Rights.everything()
    for room in ("general", "*", "\u65e5\u672c"):
        assert rights.can(room, "r")
        assert rights.can(room, "w")


@pytest.mark.parametrize(
    ("rooms", "message"),
    [
        (None, 'rooms must be a table such as { general = "rw" }'),
        ("rw", 'rooms must be a table such as { general = "rw" }'),
        (["general"], 'rooms must be a table such as { general = "rw" }'),
        ({"general": "x"}, 'rooms: \'general\' must be "r", "w", "m", several of them, or ""'),
        ({"general": "rr"}, 'rooms: \'general\' must be "r", "w", "m", several of them, or ""'),
        ({"general": "RW"}, 'rooms: \'general\' must be "r", "w", "m", several of them, or ""'),
        ({"general": "r "}, 'rooms: \'general\' must be "r", "w", "m", several of them, or ""'),
        ({"general": None}, 'rooms: \'general\' must be "r", "w", "m", several of them, or ""'),
        ({"general": True}, 'rooms: \'general\' must be "r", "w", "m", several of them, or ""'),
        ({"general": ["r", "w"]}, 'rooms: \'general\' must be "r", "w", "m", several of them, or ""'),
        ({"ops": {"x": "r"}}, "rooms: 'ops' is a table; put names with dots in quotes"),
        ({1: "r"}, "rooms: a room's name must be a string"),
        ({"": "r"}, "rooms: '': room must have 1 to 64 characters"),
        ({"a b": "r"}, "rooms: 'a b': room may not contain spaces"),
        ({"a *": "r"}, "rooms: 'a *': room pattern may not contain spaces"),
        ({"a\n*": "r"}, "rooms: 'a\\n*': room pattern may not contain control characters"),
        ({"a" * 99: "r"}, f"rooms: '{'a' * 64}': room must have 1 to 64 characters"),
        ({"\u00e9": "r", "e\u0301": "w"}, "rooms: '\u00e9' is given twice"),
    ],
)
def test_errors_say_which_entry(rooms: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared whole)
        Rights.parse(rooms)
    assert str(caught.value) == message
    assert "\n" not in message


def test_equal_whatever_the_order_in_the_file() -> None:
    entries = {"*": "r", "a*": "rw", "a?": "", "?a": "w", "general": "r"}
    for order in itertools.permutations(entries.items()):
        assert Rights.parse(dict(order)) == Rights.parse(entries)
    assert Rights.parse({"*": "rw"}) == Rights.everything()


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*", ""),
        ("**", ""),
        ("*a*b*c", "xaxbxc"),
        ("a*?", "ab"),
        ("?*?", "ab"),
        ("*ab", "aab"),
        ("a*b*a", "abba"),
    ],
)
def test_patterns_that_fit(pattern: str, name: str) -> None:
    assert matches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("", "a"),
        ("?", ""),
        ("a", ""),
        ("a", "ab"),
        ("a*?", "a"),
        ("*ab", "abx"),
        ("a*b*a", "aba" + "b"),
        ("a", "A"),
    ],
)
def test_patterns_that_do_not_fit(pattern: str, name: str) -> None:
    assert not matches(pattern, name)


@settings(deadline=None)
@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_matching_agrees_with_fnmatch(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


def test_no_pattern_is_slow() -> None:
    started = time.process_time()
    assert not matches("*a" * 32, "a" * 31 + "b" * 33)
    assert not matches("*" + "a" * 62 + "c", "a" * 64)
    assert not matches("a*" * 31 + "bc", "a" * 64)
    assert time.process_time() - started < 0.5


ROOMS = st.text("ab[]-", min_size=1, max_size=4)
GLOBS = st.text("ab*?", min_size=1, max_size=4)


@settings(deadline=None)
@given(st.dictionaries(ROOMS | GLOBS, st.sampled_from(["", "r", "w", "rw", "wr"]), max_size=6), ROOMS)
def test_the_decision_agrees_with_the_rule_as_written(rooms: dict[str, str], room: str) -> None:
    if room in rooms:
        expected = rooms[room]
    else:
        globs = [p for p in rooms if ("*" in p or "?" in p) and matches(p, room)]
        globs.sort(key=lambda p: (-len(p), p.count("*"), p.count("?"), p))
        expected = rooms[globs[0]] if globs else ""
    rights = Rights.parse(rooms)
    assert {a for a in ("r", "w") if rights.can(room, a)} == set(expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(JSON)
def test_any_claim_is_rights_or_a_value_error(rooms: object) -> None:
    try:
        rights = Rights.parse(rooms)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017 (either way is right)
    else:
        assert isinstance(rooms, dict)
        assert len(rights.entries) == len(rooms)
