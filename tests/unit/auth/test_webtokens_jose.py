"""SignedToken tokens are taken apart, or they have another form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.auth import webtokens
from chatroom.auth.webtokens import MAX_KID, MAX_TOKEN, SignedToken, parse_compact, read_object
from tests.support.signing import as_json, b64

HEADER = {"alg": "HS256", "typ": "JWT"}


def compact(header: object, payload: bytes = b"{}", signature: bytes = b"\0" * 32) -> str:
    return ".".join((b64(as_json(header)), b64(payload), b64(signature)))


def test_the_parts() -> None:
    token = compact({**HEADER, "kid": "a"}, b'{"sub":"alice"}')
    signed = token.rpartition(".")[0].encode()
    assert parse_compact(token) == SignedToken("HS256", "a", b'{"sub":"alice"}', signed, b"\0" * 32)


@pytest.mark.parametrize(
    "more", [{"jku": "https://x.example"}, {"jwk": {"kty": "oct"}}, {"x5u": "x"}, {"cty": 1}]
)
def test_what_else_is_in_a_header_is_never_looked_at(more: dict[str, object]) -> None:
    assert parse_compact(compact(HEADER | more)).algorithm == "HS256"


GOOD = compact(HEADER)
HEAD, BODY, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        f"{HEAD}.{BODY}",
        f"{HEAD}.{BODY}.",
        f"{HEAD}..{SIGNATURE}",
        f".{BODY}.{SIGNATURE}",
        f"{GOOD}.",
        f"{GOOD}.{SIGNATURE}",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{HEAD}.{BODY}.{SIGNATURE}=",
        f"{HEAD}.{BODY}.{SIGNATURE[:-1]}B",
        f"{HEAD}.{BODY}.a",
        f"{HEAD}.{BODY}.é",
        f"{HEAD}.{BODY}.{SIGNATURE[:-2]}+/",
        f"{HEAD}.{BODY}.{SIGNATURE}".replace(".", ". "),
        f"{HEAD}.{BODY}." + "A" * MAX_TOKEN,
        compact(b""),
        compact(b"[]"),
        compact(b"null"),
        compact(b'"alg"'),
        compact(b"{"),
        compact(b"\xff"),
        compact(b'\xef\xbb\xbf{"alg":"HS256"}'),
        compact(b'{"alg":"HS256","alg":"HS256"}'),
        compact(b'{"alg":"HS256","x":{"y":1,"y":2}}'),
        compact(b'{"alg":"HS256","x":NaN}'),
        compact(b'{"alg":"HS256","x":1e999}'),
        compact(b'{"alg":"HS256","x":' + b"9" * 30 + b"}"),
        compact(b'{"alg":"HS256","x":' + b"[" * 3000 + b"]" * 3000 + b"}"),
        compact({}),
        compact({"alg": None}),
        compact({"alg": ["HS256"]}),
        compact({"alg": 1}),
        compact({**HEADER, "kid": None}),
        compact({**HEADER, "kid": 1}),
        compact({**HEADER, "kid": "a" * (MAX_KID + 1)}),
        compact({**HEADER, "crit": []}),
        compact({**HEADER, "crit": None}),
        compact({**HEADER, "crit": ["exp"], "exp": 1}),
        compact({**HEADER, "crit": ["b64"], "b64": False}),
    ],
)
def test_another_form_is_a_value_error_without_the_token(token: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_compact(token)
    assert len(token) < 20 or token[:20] not in str(refusal.value)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_=+/-]*(\.[A-Za-z0-9_-]*){0,3}", fullmatch=True))
def test_whatever_comes_is_taken_apart_or_a_value_error(token: str) -> None:
    try:
        parse_compact(token)
    except ValueError:
        return


@given(st.binary())
def test_whatever_is_in_the_parts(data: bytes) -> None:
    for parts in ((data, b"{}", b"s"), (as_json(HEADER), data, b"s"), (as_json(HEADER), b"{}", data)):
        try:
            signed = parse_compact(".".join(b64(part) for part in parts))
            read_object(signed.payload)
        except ValueError:
            continue


@given(st.binary(min_size=1))
def test_there_is_one_way_to_write_bytes(data: bytes) -> None:
    part = b64(data)
    assert webtokens._decode(part) == data
    for other in "AQgw_":
        if other != part[-1]:
            try:
                assert webtokens._decode(part[:-1] + other) != data
            except ValueError:
                continue
