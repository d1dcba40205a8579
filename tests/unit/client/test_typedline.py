"""How a typed line is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.printable import printable
from chatroom.client.typedline import INSTEAD, is_shown_as_it_is, shown


@pytest.mark.parametrize("text", ["", "hello", "日本 한글 ￦", "e\u0301 गु กำ", "🙂☕", "\x1b[2J\x9b"])
def test_most_is_shown_as_it_is(text: str) -> None:
    assert "".join(shown(text)) == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("❤\ufe0f", "❤"),
        ("👍\U0001f3fd", "👍"),
        ("👩\u200d👩\u200d👧", "👩👩👧"),
        ("\U0001f1e9\U0001f1ea", "DE"),
        ("क\u094d\u200dष", "क\u094dष"),
        ("a\tb", "a b"),
    ],
)
def test_what_terminals_join_is_shown_by_its_parts(text: str, parts: str) -> None:
    assert "".join(shown(text)) == parts


@pytest.mark.parametrize("character", "\u202e\u2066\u200f\u061c\u2028\ufff9\ufffe\ud800")
def test_what_acts_or_hides_is_shown_as_a_sign(character: str) -> None:
    assert shown(f"a{character}b") == ["a", INSTEAD, "b"]


@given(st.text())
def test_each_character_has_its_piece_and_none_acts(text: str) -> None:
    pieces = shown(text)
    assert len(pieces) == len(text)
    assert pieces == list(text) or not is_shown_as_it_is(text)
    seen = "".join(pieces)
    assert all(printable(each) == each for each in seen if each >= "\xa0")
