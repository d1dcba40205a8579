"""Names: one stable form each, nothing invisible, and never a crash or an echo."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from precis_i18n import get_profile

from chatroom.core import names
from chatroom.core.names import clean_room, clean_room_pattern, clean_username

PROFILE = get_profile("UsernameCasePreserved")

INVISIBLE = {
    "zero width space": "\u200b",
    "zero width non-joiner": "\u200c",
    "zero width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "right-to-left mark": "\u200f",
    "Arabic letter mark": "\u061c",
    "left-to-right embedding": "\u202a",
    "right-to-left override": "\u202e",
    "left-to-right isolate": "\u2066",
    "pop directional isolate": "\u2069",
    "soft hyphen": "\u00ad",
    "combining grapheme joiner": "\u034f",
    "byte order mark": "\ufeff",
    "Mongolian vowel separator": "\u180e",
    "variation selector 16": "\ufe0f",
    "variation selector 256": "\U000e01ef",
    "tag a": "\U000e0061",
    "Hangul filler": "\u3164",
    "Hangul choseong filler": "\u115f",
    "half-width Hangul filler": "\uffa0",
    "Khmer inherent vowel": "\u17b4",
    "Braille blank": "\u2800",
    "Tifinagh consonant joiner": "\u2d7f",
    "Brahmi number joiner": "\U0001107f",
    "Zanabazar square subjoiner": "\U00011a47",
    "Soyombo subjoiner": "\U00011a99",
    "Khitan filler": "\U00016fe4",
    "Duployan letter selector": "\U0001bc9d",
    "shorthand format overlap": "\U0001bca0",
    "musical begin beam": "\U0001d173",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "line separator": "\u2028",
    "null": "\0",
    "line feed": "\n",
    "delete": "\x7f",
    "noncharacter": "\uffff",
    "private use": "\ue000",
    "unassigned": "\u0378",
    "lone high surrogate": "\ud800",
}

# Text in which the profile's rules about neighbours would let a joiner pass, and plain text.
SURROUNDINGS = [
    ("ali", "ce"),
    ("\u0915\u094d", "\u0937"),
    ("\u0628", "\u0628"),
    ("", "a"),
    ("a", ""),
    ("\u0915\u094d", ""),
]


@pytest.mark.parametrize("invisible", INVISIBLE.values(), ids=INVISIBLE.keys())
@pytest.mark.parametrize("clean", [clean_username, clean_room, clean_room_pattern])
def test_nothing_invisible_stands_anywhere_in_a_name(clean: Callable[[str], str], invisible: str) -> None:
    for before, after in SURROUNDINGS:
        with pytest.raises(ValueError):  # noqa: PT011 (the words are tested below)
            clean(before + invisible + after)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("alice", "alice"),
        ("Alice", "Alice"),
        ("ops-1", "ops-1"),
        ("#!$~`<b>&\"'\\/", "#!$~`<b>&\"'\\/"),
        ("J\u00fcrgen", "J\u00fcrgen"),
        ("Ju\u0308rgen", "J\u00fcrgen"),
        ("\uff21\uff42", "Ab"),
        ("\uff76\uff9e", "\u30ac"),
        ("\u212b", "\u00c5"),
        ("\u1100\u1161\u11a8", "\uac01"),
        ("\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
        ("\u65e5\u672c\u8a9e", "\u65e5\u672c\u8a9e"),
        ("col\u00b7legi", "col\u00b7legi"),
        ("stra\u00dfe", "stra\u00dfe"),
        ("\u0915\u094d\u0937", "\u0915\u094d\u0937"),
    ],
)
def test_good_names_and_their_one_form(raw: str, name: str) -> None:
    assert clean_username(raw) == name
    assert clean_room(raw) == name
    assert clean_username(name) == name


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "must have 1 to 32 characters"),
        ("a" * 33, "must have 1 to 32 characters"),
        ("\u00e4" * 33, "must have 1 to 32 characters"),
        ("a" * 10**6, "must have 1 to 32 characters"),
        ("a b", "may not contain spaces"),
        ("a\u1680b", "may not contain spaces"),
        ("a\nb", "may not contain control characters"),
        ("a\u200db", "may not contain invisible characters"),
        ("a\ufe0f", "may not contain invisible characters"),
        ("\u05d0a", "may not mix writing directions that way"),
        ("\u263a", "may not contain symbols"),
        ("a\u2014b", "may not contain punctuation beyond ASCII"),
        ("\u0378", "may not contain characters unknown to this server's Unicode version"),
        ("\u2460", "may only contain letters, digits and ASCII punctuation"),
        ("\ufb01n", "may only contain letters, digits and ASCII punctuation"),
        ("\ud800", "may only contain letters, digits and ASCII punctuation"),
    ],
)
def test_bad_names_get_a_reason_and_no_echo(raw: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared whole)
        clean_username(raw)
    assert str(caught.value) == f"username {reason}"
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None, "the library's error carries the input"


def test_lengths_count_after_cleaning() -> None:
    assert clean_username("e\u0301" * 32) == "\u00e9" * 32
    assert clean_username("\u03b1\u0313\u0300\u0345" * 32) == "\u1f82" * 32
    assert clean_room("a" * 64) == "a" * 64
    assert clean_room("\u00e9" * 64) == "\u00e9" * 64
    with pytest.raises(ValueError, match="room must have 1 to 64 characters"):
        clean_room("a" * 65)
    with pytest.raises(ValueError, match="room must have 1 to 64 characters"):
        clean_room("\ufb2c" * 22)  # composing makes three of each


def test_composing_never_shrinks_by_more_than_the_factor_that_long_input_is_refused_by() -> None:
    longest = max(len(unicodedata.normalize("NFD", chr(code))) for code in range(0x110000))
    assert longest == names._MOST_DECOMPOSED


def test_printable_ascii_is_what_the_profile_returns_unchanged() -> None:
    for code in range(0x80):
        char = chr(code)
        try:
            expected = PROFILE.enforce(char)
        except UnicodeEncodeError:
            with pytest.raises(ValueError):  # noqa: PT011 (any refusal)
                clean_username(char)
        else:
            assert clean_username(char) == expected == char


def test_an_unstable_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing:
        """A profile in which applying the rules once more always changes something."""

        base = PROFILE.base

        def width_mapping_rule(self, value: str) -> str:
            return value

        def enforce(self, value: str) -> str:
            return value + "x"

    monkeypatch.setattr(names, "_PROFILE", Growing())
    with pytest.raises(ValueError, match="username has no stable form"):
        clean_username("\u00e9 unstable")


def test_the_memory_of_cleaned_names_is_bounded() -> None:
    for number in range(3000):
        clean_room(f"\u00e9{number}")
    info = names._clean_beyond_ascii.cache_info()
    assert info.maxsize is not None
    assert info.currsize <= info.maxsize <= 4096


@pytest.mark.parametrize("raw", ["*", "ops-*", "?", "a?c*", "\u05e9\u05dc\u05d5\u05dd-*", "[x]*", "*" * 64])
def test_good_patterns(raw: str) -> None:
    assert clean_room_pattern(raw) == raw


def test_a_pattern_takes_the_form_of_the_names_it_is_held_against() -> None:
    assert clean_room_pattern("cafe\u0301-*") == "caf\u00e9-*"


@pytest.mark.parametrize("raw", ["", "*" * 65, "ops *", "a\n*", "\u2460*", "\ud800*"])
def test_bad_patterns(raw: str) -> None:
    with pytest.raises(ValueError, match=r"^room pattern m"):
        clean_room_pattern(raw)


LETTERS = st.characters(categories=["Lu", "Ll", "Lo", "Lm", "Mn", "Mc", "Nd"])
ANYTHING = (
    st.text() | st.text(alphabet=LETTERS, max_size=8) | st.text(alphabet=st.characters(categories=["Cs"]))
)


@settings(deadline=None)
@given(ANYTHING)
@example("\u0915\u094d\u200d")
@example("\u30fb" * 31 + "\u30ab")
def test_any_text_is_refused_or_has_one_clean_stable_form(raw: str) -> None:
    for clean, most in ((clean_username, 32), (clean_room, 64)):
        try:
            name = clean(raw)
        except ValueError as error:
            assert type(error) is ValueError  # noqa: PT017 (either way is right)
            assert str(error).isprintable()  # noqa: PT017
            continue
        assert clean(name) == name
        assert 1 <= len(name) <= most
        assert unicodedata.is_normalized("NFC", name)
        name.encode()
        assert not {unicodedata.category(char) for char in name} & {
            "Cc",
            "Cf",
            "Cs",
            "Co",
            "Cn",
            "Zs",
            "Zl",
            "Zp",
        }


@settings(deadline=None)
@given(ANYTHING)
def test_names_are_those_of_the_profile_less_the_invisible(raw: str) -> None:
    try:
        expected: str | None = PROFILE.enforce(raw)
    except UnicodeEncodeError:
        expected = None
    if expected is not None and (len(expected) > 64 or not names._INVISIBLE.isdisjoint(expected)):
        expected = None
    try:
        name: str | None = clean_room(raw)
    except ValueError:
        name = None
    assert name == expected
