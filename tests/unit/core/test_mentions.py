"""Which names a text calls, by the rules of the page."""

import time

import pytest

from chatroom.core.mentions import fold, mentions

NAMES = ["bob", "Bob", "bob-smith", "alice", "Jos\u00e9", "\u738b", "a.b", "x@y"]


def called(text: str) -> list[str]:
    index: dict[str, set[str]] = {}
    for name in NAMES:
        index.setdefault(fold(name), set()).add(name)
    return sorted(mentions(text, index))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@alice", ["alice"]),
        ("hi @alice, and @ALICE!", ["alice"]),
        ("(@alice)", ["alice"]),
        ("@bob", ["Bob", "bob"]),
        ("@bob. @bob's", ["Bob", "bob"]),
        ("@bobby", []),
        ("@bob_", []),
        ("@bob2", []),
        ("@bob-smith", ["bob-smith"]),
        ("@bob-jones", ["Bob", "bob"]),
        ("@Jose\u0301", ["Jos\u00e9"]),
        ("\uff20Jos\u00e9", ["Jos\u00e9"]),
        ("@jose", []),
        ("@\u738b\u3001", ["\u738b"]),
        ("mail bob@alice", []),
        ("@a.b.", ["a.b"]),
        ("@x@y", ["x@y"]),
        ("@nobody @", []),
        ("alice", []),
        ("", []),
    ],
)
def test_who_is_called(text: str, names: list[str]) -> None:
    assert called(text) == names


def test_a_text_full_of_signs_takes_no_longer_than_a_few_names_do() -> None:
    began = time.process_time()
    for text in ("@" * 4000, "@ " * 2000, "@\u0301" * 2000, "@\ufdfa" * 2000):
        assert called(text) == []
    assert time.process_time() - began < 1
