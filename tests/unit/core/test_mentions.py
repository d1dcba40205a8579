"""Which names a text calls, by the rules of the page."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.mentions import _is_word, fold, mentions

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


@given(st.text("@aB\u03a3\u0301\u0344\ufdfa\u00a8.'- _1\u738b", max_size=40), st.data())
def test_names_are_found_as_they_are_folded(text: str, data: st.DataObject) -> None:
    ends = [at for at in range(1, len(text)) if text[at - 1] == "@"]
    start = data.draw(st.sampled_from(ends or [0]))
    name = text[start : data.draw(st.integers(start, len(text)))]
    expected = {
        name
        for at in ends
        if (at == 1 or not _is_word(text[at - 2]))
        for end in range(at + 1, len(text) + 1)
        if (end == len(text) or not _is_word(text[end])) and fold(text[at:end]) == fold(name)
    }
    assert mentions(text, {fold(name): {name}}) == (expected if name else set())


def test_a_text_full_of_signs_takes_no_longer_than_a_few_names_do() -> None:
    began = time.process_time()
    for text in ("@" * 4000, "@ " * 2000, "@\u0301" * 2000, "@\ufdfa" * 2000, "@" + "\ufdfa-" * 1999):
        assert called(text) == []
    assert time.process_time() - began < 1
