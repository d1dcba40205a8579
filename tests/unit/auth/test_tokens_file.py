"""Token files: whatever is wrong with one is told in one line, and no line repeats a token."""

import hashlib
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.auth.tokens import TokenTable
from chatroom.core.errors import StartError

SECRET = "s3cret-Token_~1"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def parse(text: str | bytes) -> TokenTable:
    return TokenTable.parse(text, "tokens.toml")


BAD_FILES = {
    "no TOML": ("s3cret-in-clear", "not valid TOML at end of document; correct it there"),
    "no TOML, with its place": (
        '[[token]]\ntoken = "a" "b"',
        "not valid TOML at line 2, column 13; correct it there",
    ),
    "a key given twice": (
        '[[token]]\ntoken = "a"\ntoken = "b"\n',
        "not valid TOML at line 3, column 12; correct it there",
    ),
    "nested too deep": ("a = " + "[" * 5000, "not valid TOML; correct it there"),
    "a number too long": ("a = " + "9" * 5000, "not valid TOML; correct it there"),
    "not UTF-8": (b'[[token]]\ntoken = "\xff"', "not UTF-8; save it as UTF-8 text"),
    "UTF-16": ('[[token]]\ntoken = "a"'.encode("utf-16"), "not UTF-8; save it as UTF-8 text"),
    "empty": ("", "no tokens in it; begin each with a line [[token]] (or write token = [] for none)"),
    "only a comment": (
        "# none",
        "no tokens in it; begin each with a line [[token]] (or write token = [] for none)",
    ),
    "one table": (
        '[token]\ntoken = "a"',
        "no tokens in it; begin each with a line [[token]] (or write token = [] for none)",
    ),
    "a bare token": (
        'token = "a"',
        "no tokens in it; begin each with a line [[token]] (or write token = [] for none)",
    ),
    "another table": ('[[tokens]]\ntoken = "a"', "only [[token]] tables may stand in it"),
    "another key on top": (
        's3cret = "alice"\n[[token]]\ntoken = "a"',
        "only [[token]] tables may stand in it",
    ),
    "no table": ('token = ["a"]', "token 1: must be a table, begun by a line [[token]]"),
    "an unknown key": (
        '[[token]]\ntoken = "a"\nuser = "x"',
        "token 1: has a key other than token, sha256, username, rooms and label",
    ),
    "an empty label": ('[[token]]\ntoken = "a"\nlabel = ""', "token 1: label must be a string of 1 to 64 "),
    "a long label": (
        f'[[token]]\ntoken = "a"\nlabel = "{"x" * 65}"',
        "token 1: label must be a string of 1 to 64 ",
    ),
    "a label that is no text": (
        '[[token]]\ntoken = "a"\nlabel = 5',
        "token 1: label must be a string of 1 to 64 ",
    ),
    "a label of two lines": (
        '[[token]]\ntoken = "a"\nlabel = "b\\nc"',
        "token 1: label must be a string of 1 to 64 ",
    ),
    "a label that is the token": (
        f'[[token]]\nsha256 = "{DIGEST}"\nlabel = "{SECRET}"',
        "token 1: label is the token itself; labels are logged: give another one",
    ),
    "neither": (
        '[[token]]\nusername = "a"',
        "token 1: has neither of token and sha256; give exactly one of them",
    ),
    "both": (
        f'[[token]]\ntoken = "a"\nsha256 = "{DIGEST}"',
        "token 1: has both of token and sha256; give exactly one of them",
    ),
    "empty token": ('[[token]]\ntoken = ""', "token 1: token must be a string of ASCII letters, digits and "),
    "token with a space": (
        '[[token]]\ntoken = "a b"',
        "token 1: token must be a string of ASCII letters, digits and ",
    ),
    "token with a slash": (
        '[[token]]\ntoken = "a/b"',
        "token 1: token must be a string of ASCII letters, digits and ",
    ),
    "token with a line feed": (
        '[[token]]\ntoken = "a\\n"',
        "token 1: token must be a string of ASCII letters, digits and ",
    ),
    "token beyond ASCII": (
        '[[token]]\ntoken = "\u00e4"',
        "token 1: token must be a string of ASCII letters, digits and ",
    ),
    "token a number": (
        "[[token]]\ntoken = 5",
        "token 1: token must be a string of ASCII letters, digits and ",
    ),
    "short digest": (
        f'[[token]]\nsha256 = "{DIGEST[:-1]}"',
        "token 1: sha256 must be a string of 64 hex digits, as printed",
    ),
    "digest no hex": (
        f'[[token]]\nsha256 = "{DIGEST[:-1]}g"',
        "token 1: sha256 must be a string of 64 hex digits, as printed",
    ),
    "digest a number": (
        "[[token]]\nsha256 = 5",
        "token 1: sha256 must be a string of 64 hex digits, as printed",
    ),
    "digest of nothing": (
        f'[[token]]\nsha256 = "{hashlib.sha256().hexdigest()}"',
        "token 1: sha256 is that of an empty token; hash a token",
    ),
    "username a number": ('[[token]]\ntoken = "a"\nusername = 5', "token 1: username must be a string"),
    "empty username": (
        '[[token]]\ntoken = "a"\nusername = ""',
        "token 1: username must have 1 to 32 characters",
    ),
    "bad username": ('[[token]]\ntoken = "a"\nusername = "a b"', "token 1: username may not contain spaces"),
    "bad rooms": ('[[token]]\ntoken = "a"\nrooms = "rw"', "token 1: rooms must be a table such as"),
    "bad right": (
        '[[token]]\ntoken = "a"\nrooms = { general = "x" }',
        'token 1: rooms: \'general\' must be "r", "w", "m", several of them, or ""',
    ),
    "dotted room": (
        '[[token]]\ntoken = "a"\nrooms = { ops.eu = "r" }',
        "token 1: rooms: 'ops' is a table; put names with dots in quotes",
    ),
    "given twice": (
        '[[token]]\ntoken = "x"\n[[token]]\ntoken = "a"\n[[token]]\ntoken = "a"',
        "token 3 is the same as token 2; remove one of them",
    ),
    "given twice, once as digest": (
        f'[[token]]\ntoken = "{SECRET}"\n[[token]]\nsha256 = "{DIGEST}"',
        "token 2 is the same as token 1; remove one of them",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_told_in_one_line_what_to_do(text: str | bytes, message: str) -> None:
    with pytest.raises(StartError) as caught:
        parse(text)
    line = str(caught.value)
    assert line.startswith(f"token file tokens.toml: {message}")
    assert line.isprintable()
    assert "s3cret" not in line
    assert DIGEST[:8] not in line


def test_a_file_that_says_it_has_no_tokens_is_taken_at_its_word() -> None:
    assert parse("token = []").verify("a") is None


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse(b'\xef\xbb\xbf[[token]]\r\ntoken = "a"\r\n').verify("a") is not None


@pytest.mark.parametrize("name", ["a\nb.toml", "\x1b[2J", "caf\u00e9", "\udcff.toml", "\u202egnp"])
def test_a_file_name_can_not_break_the_line(name: str) -> None:
    with pytest.raises(StartError) as caught:
        TokenTable.parse("", name)
    assert str(caught.value).isprintable()
    assert ("caf\u00e9" in str(caught.value)) == (name == "caf\u00e9")


PLAIN = "[[token]] [token] token sha256 username rooms = { } [ ] . , ' # 1 - e9 : 1979-05-27 true a"
QUOTED = ['"a"', '"\u00e9"', '"rw"', f'"{DIGEST}"', '"', '"""', "\\"]
FRAGMENTS = st.sampled_from([*PLAIN.split(), *QUOTED, " ", "\n"])


@settings(deadline=None)
@given(st.text() | st.binary() | st.lists(FRAGMENTS, max_size=25).map("".join))
def test_any_file_is_a_table_or_a_start_error(text: str | bytes) -> None:
    try:
        parse(text)
    except StartError as error:
        assert str(error).isprintable()  # noqa: PT017 (either way is right)
    else:
        tomllib.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
