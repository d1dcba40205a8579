"""Static tokens: what a file may say, what it is told when it is wrong, and that no token comes out again."""

import hashlib
import pickle
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.pure import tokens
from chatroom.pure.rights import Rights
from chatroom.pure.tokens import DEVELOPMENT_TOKENS, Identity, TokenTable, Verifier, Verifiers
from chatroom.values.errors import StartError

SECRET = "s3cret-Token_~1"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def parse(text: str | bytes) -> TokenTable:
    return TokenTable.parse(text, "tokens.toml")


def test_a_token_says_who_and_what() -> None:
    table = parse(
        f'[[token]]\ntoken = "{SECRET}"\nusername = "alice"\nrooms = {{ general = "rw", "ops-*" = "r" }}'
    )
    identity = table.verify(SECRET)
    assert identity is not None
    assert identity.username == "alice"
    assert identity.source == "static"
    assert identity.rights.can("general", "w")
    assert identity.rights.can("ops-1", "r")
    assert not identity.rights.can("ops-1", "w")
    assert not identity.rights.can("other", "r")


def test_what_is_left_out_is_any_username_and_everything() -> None:
    identity = parse(f'[[token]]\ntoken = "{SECRET}"').verify(SECRET)
    assert identity is not None
    assert identity.username is None
    assert identity.rights == Rights.everything()


def test_an_empty_table_of_rooms_is_no_rights() -> None:
    identity = parse(f'[[token]]\ntoken = "{SECRET}"\nrooms = {{}}').verify(SECRET)
    assert identity is not None
    assert not identity.rights.can("general", "r")


@pytest.mark.parametrize("digest", [DIGEST, DIGEST.upper()])
def test_a_digest_stands_for_its_token(digest: str) -> None:
    table = parse(f'[[token]]\nsha256 = "{digest}"\nusername = "bot"')
    identity = table.verify(SECRET)
    assert identity is not None
    assert identity.username == "bot"
    assert table.verify(digest) is None


def test_usernames_take_their_clean_form() -> None:
    identity = parse(f'[[token]]\ntoken = "{SECRET}"\nusername = "e\u0301ric"').verify(SECRET)
    assert identity is not None
    assert identity.username == "\u00e9ric"


def test_many_tokens_in_one_file() -> None:
    table = parse("".join(f'[[token]]\ntoken = "t{n}"\nusername = "u{n}"\n' for n in range(50)))
    for number in range(50):
        identity = table.verify(f"t{number}")
        assert identity is not None
        assert identity.username == f"u{number}"
    assert repr(table) == "<TokenTable of 50>"


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        " ",
        SECRET + " ",
        SECRET[:-1],
        SECRET.upper(),
        "\ud800",
        "t\u00f6ken",
        "a\nb",
        "x" * 10**5,
        "\0",
    ],
)
def test_a_wrong_token_is_nobody(token: str | None) -> None:
    assert parse(f'[[token]]\ntoken = "{SECRET}"').verify(token) is None
    assert TokenTable.development().verify(token) is None


def test_a_digest_of_something_that_is_no_token_lets_nobody_in() -> None:
    odd = "two words"
    table = parse(f'[[token]]\nsha256 = "{hashlib.sha256(odd.encode()).hexdigest()}"')
    assert table.verify(odd) is None


@pytest.mark.parametrize("token", [None, "", "a b", "wrong", "\ud800", SECRET])
def test_the_work_is_the_same_whatever_is_wrong(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash and one look-up for a missing, malformed, wrong and right token alike."""
    table = parse(f'[[token]]\ntoken = "{SECRET}"')
    steps: list[str] = []
    digest = tokens._digest

    class Counting(dict[bytes, Identity]):
        def get(self, key: bytes, default: object = None) -> Identity | None:  # type: ignore[override]
            steps.append("look up")
            return super().get(key)

    def hashing(text: str) -> bytes:
        steps.append("hash")
        return digest(text)

    table._identities = Counting(table._identities)
    monkeypatch.setattr(tokens, "_digest", hashing)
    table.verify(token)
    assert steps == ["hash", "look up"]


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
        "token 1: has a key other than token, sha256, username and rooms",
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
        'token 1: rooms: \'general\' must be "r", "w", "rw" or ""',
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


def test_nothing_in_memory_or_print_shows_a_token() -> None:
    table = parse(f'[[token]]\ntoken = "{SECRET}"\nusername = "alice"')
    identity = table.verify(SECRET)
    assert identity is not None
    kept = pickle.dumps(table._identities)
    assert SECRET.encode() not in kept
    for shown in (repr(table), str(table), repr(identity), str(identity)):
        assert SECRET not in shown
        assert DIGEST[:8] not in shown
        assert identity.key not in shown
    assert not DIGEST.startswith(identity.key)


def test_the_key_finds_a_token_again_in_another_table() -> None:
    before = parse(f'[[token]]\ntoken = "{SECRET}"').verify(SECRET)
    after = parse(f'[[token]]\ntoken = "x"\n[[token]]\nsha256 = "{DIGEST}"\nusername = "al"')
    same, other = after.verify(SECRET), after.verify("x")
    assert before is not None
    assert same is not None
    assert other is not None
    assert before.key == same.key != other.key


def test_development_tokens_are_anybody_with_all_rights() -> None:
    table = TokenTable.development()
    assert DEVELOPMENT_TOKENS == ("token-alice", "token-bob", "token-carol", "dev-token")
    for token in DEVELOPMENT_TOKENS:
        identity = table.verify(token)
        assert identity is not None
        assert identity.username is None
        assert identity.source == "dev"
        assert identity.rights == Rights.everything()
    assert table.verify("token-dave") is None


def test_the_first_verifier_that_knows_a_token_decides_and_all_are_asked() -> None:
    asked: list[str] = []

    class Source:
        def __init__(self, name: str, *known: str) -> None:
            self.name = name
            self.known = known

        def verify(self, token: str | None) -> Identity | None:
            asked.append(self.name)
            return Identity(self.name, Rights.everything(), "test", "k") if token in self.known else None

    chain: Verifier = Verifiers([Source("one", "a", "b"), Source("two", "b", "c")])
    who = {
        token: found and found.username for token in ("a", "b", "c", "d") for found in [chain.verify(token)]
    }
    assert who == {"a": "one", "b": "one", "c": "two", "d": None}
    assert chain.verify(None) is None
    assert asked == ["one", "two"] * 5
    assert Verifiers([]).verify("a") is None


PLAIN = "[[token]] [token] token sha256 username rooms = { } [ ] . , ' # 1 - e9 : 1979-05-27 true a"
QUOTED = ['"a"', '"\u00e9"', '"rw"', f'"{DIGEST}"', '"', '"""', "\\"]
FRAGMENTS = st.sampled_from([*PLAIN.split(), *QUOTED, " ", "\n"])


@given(st.text() | st.binary() | st.lists(FRAGMENTS, max_size=25).map("".join))
def test_any_file_is_a_table_or_a_start_error(text: str | bytes) -> None:
    try:
        parse(text)
    except StartError as error:
        assert str(error).isprintable()  # noqa: PT017 (either way is right)
    else:
        tomllib.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))


@given(st.text(alphabet=st.characters()) | st.text(alphabet="abc-token", max_size=12))
def test_any_presented_text_is_somebody_or_nobody(token: str) -> None:
    assert (TokenTable.development().verify(token) is not None) == (token in DEVELOPMENT_TOKENS)
