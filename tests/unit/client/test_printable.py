"""What may reach a terminal: every character, judged by what Unicode says of it."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.printable import printable, printable_lines

BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = ("LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK")
DEPRECATED = ("SYMMETRIC SWAPPING", "ARABIC FORM SHAPING", "DIGIT SHAPES")


def acts(char: str) -> bool:
    """Whether a character acts on a terminal or on the order of what stands around it, or is none at all."""
    code, name = ord(char), unicodedata.name(char, "")
    return (
        unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(char) in BIDIRECTIONAL
        or name.startswith("INTERLINEAR ANNOTATION")
        or name in MARKS
        or name.endswith(DEPRECATED)
        or code % 0x10000 >= 0xFFFE
        or 0xFDD0 <= code <= 0xFDEF
    )


ACTING = [char for char in map(chr, range(sys.maxunicode + 1)) if acts(char)]
"""There are so few that texts by chance alone would hardly ever have one."""
TEXTS = st.text(st.characters() | st.sampled_from(ACTING))


def test_each_character_that_acts_is_escaped_and_no_other() -> None:
    escaped = [char for char in map(chr, range(sys.maxunicode + 1)) if printable(char) != char]
    assert escaped == ACTING
    assert all(printable(char).isascii() and printable(char).isprintable() for char in ACTING)
    assert len({printable(char) for char in ACTING}) == len(ACTING)


@given(TEXTS)
def test_nothing_that_acts_is_left_in_a_text_and_nothing_else_is_changed(text: str) -> None:
    shown = printable(text)
    assert not any(map(acts, shown))
    assert shown == "".join(printable(char) if acts(char) else char for char in text)


@given(TEXTS)
def test_the_lines_of_a_text_are_printable_and_all_there(text: str) -> None:
    lines = printable_lines(text)
    assert not any(acts(char) for line in lines for char in line)
    assert len(lines) == text.count("\n") + 1
    plain = text.replace("\r\n", "\n").removesuffix("\r").replace("\t", "    ")
    assert "\\n".join(lines) == printable(plain)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[2J\x07\x9b31m", r"\x1b[2J\x07\x9b31m"),
        ("\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\"),
        ("ab\u202ecd\u2066\u200f", r"ab\u202ecd\u2066\u200f"),
        ("\ud800\ufffe\U0010ffff", r"\ud800\ufffe\U0010ffff"),
        ("\r\t\x00\x7f", r"\r\t\x00\x7f"),
    ],
)
def test_how_an_escape_is_written(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h\u00e9llo, w\u00f6rld \\x1b",
        "\u4f60\u597d",
        "\u0645\u0631\u062d\u0628\u0627",
        "e\u0301",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
        "\u0915\u094d\u200d\u0937 \u0646\u06cc\u200c\u0647",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    ],
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert printable_lines(text) == [text]


def test_lines_end_as_texts_end_them() -> None:
    assert printable_lines("a\r\nb\n\n\tc\rd\x0b") == ["a", "b", "", r"    c\rd\x0b"]
