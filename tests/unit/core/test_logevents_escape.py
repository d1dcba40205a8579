"""Text that is safe to print."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.logevents import cut, escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello wörld жук 日本 😀", "hello wörld жук 日本 😀"),
        ("a\nb\rc\td", "a\\u000ab\\u000dc\\u0009d"),
        ("\x1b[31m\x7f\x00", "\\u001b[31m\\u007f\\u0000"),
        ("\x85\u2028\u2029", "\\u0085\\u2028\\u2029"),
        ("\u202e\u2066\u200b\ufeff", "\\u202e\\u2066\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\udb40\\udc01"),
    ],
)
def test_what_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(alphabet=st.characters()))
def test_an_escaped_text_is_printable_and_means_the_same(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    if "\\" not in text and '"' not in text:
        assert json.loads(f'"{shown}"') == text


def test_cut() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "abc…"
