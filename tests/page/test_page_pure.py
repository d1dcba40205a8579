# ruff: noqa: RUF001 - marks of many scripts are what is tested
"""The pure parts of the page, as they stand in it: nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Visitor
from tests.support.process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("readServer('ws://localhost:3000')", "ws://localhost:3000/"),
        ("readServer(' https://chat.example/x?y#z ')", "wss://chat.example/x/"),
        ("readServer('localhost:3000')", None),
        ("query({username: 'a b+ü', room: '', since: 0})", "username=a%20b%2B%C3%BC&room=&since=0"),
        ("query({room: '\\ud800x'})", "room=%EF%BF%BDx"),
        ("backoff(0, 1)", 1_000),
        ("backoff(40, 1)", 20_000),
        ("backoff(3, 0)", 0),
        ("isToken('a.B-9_~')", True),
        ("isToken('a,b')", False),
        ("isToken('')", False),
        ("mentions('hi @alice!', 'Alice')", True),
        ("mentions('mail@alice', 'alice')", False),
        ("mentions('@alices @alice', 'alice')", True),
        ("mentions('@', '')", False),
        ("mentions('@a.*', 'a.*')", True),
        ("mentions('hi @Jose\u0301!', 'José')", True),
        ("mentions('hi \uff20José', 'José')", True),
        ("mentions('@josé', 'JOSÉ')", True),
        ("mentions('@Jose', 'José')", False),
        ("mentions('@Jose\u0301', 'Jose')", False),
        ("calls('a @Jose\u0301, @José', 'José')", [[2, 8], [10, 15]]),
        ("calls('@'.repeat(4000) + '@al', 'al').length", 1),
        ("isBlank(' \u200b\u2060\u3164\ufe0f\u2800\\n')", True),
        ("isBlank('.')", False),
        ("isBlank('\u0301')", False),
        ("readPlace('#general@1843')", {"room": "general", "id": 1843}),
        ("readPlace('#a%20b@c')", {"room": "a b@c", "id": None}),
        ("readPlace('#100%')", {"room": "100%", "id": None}),
        ("readPlace('#')", None),
        ("completions('say :tad', [])", {"word": ":tad", "all": ["🎉"]}),
        ("completions('a@an', ['anna'])", None),
        ("completions('@an', ['anna', 'bob', 'Anton'])", {"word": "@an", "all": ["@anna ", "@Anton "]}),
        ("completions('/sw', [])", {"word": "/sw", "all": ["/switch "]}),
        ("quoted('a\\nb')", "> a\n> b\n"),
        ("verdict({status: 503, text: '<!DOCTYPE html>', after: 0}, 's').key", "noAnswer"),
        ("verdict({status: 503, text: 'two\\nlines', after: 0}, 's').key", "noAnswer"),
        ("verdict({status: 503, text: 'Restarting', after: 5}, 's').values.reason", "Restarting"),
        ("verdict({status: 0, text: '', after: 0, redirected: true}, 's').key", "front"),
        ("verdict({status: 0, text: '', after: 0, redirected: true}, 's', false).key", "frontFile"),
        ("verdict({status: 401, text: 'Unauthorized', after: 0, scheme: 'Basic'}, 's').key", "front"),
        ("verdict({status: 401, text: 'Unauthorized', after: 0, scheme: 'Bearer'}, 's').key", "badToken"),
        ("verdict({status: 404, text: '', after: 0}, 's', true, true).key", "noSlash"),
        ("hueOf('alice') === hueOf('alice')", True),
        ("placeOf(['a', 'c'], 'b')", 1),
        ("placeOf([], 'b')", 0),
        (
            "['b', 'a', 'A', 'ä'].sort(compareNames).map(name => placeOf(['a', 'A', 'ä', 'b'], name))",
            [0, 1, 2, 3],
        ),
        ("verdict({status: 200, text: '', after: 0, chatroom: true}, 's', 'o').ok", True),
        ("verdict({status: 200, text: '', after: 0}, 's', 'o').ok", None),
        ("verdict({status: 502, text: '', after: 0}, 's', 'o').again", True),
        ("verdict({status: 451, text: 'No.', after: 0}, 's', 'o').again", None),
        ("opensDay({ts: 0}, null)", False),
        ("opensDay({ts: 86400000 * 3}, {ts: 86400000})", True),
        ("opensDay({ts: 5}, {ts: 6})", False),
    ],
)
def test_pure_parts(pure: Visitor, expression: str, value: object) -> None:
    assert pure.page.evaluate(expression) == value


@pytest.fixture(scope="module")
def pure(browser: Browser, page_server: ServerProcess) -> Iterator[Visitor]:
    visitor = Visitor(browser, page_server.url)
    yield visitor
    visitor.close()


def test_a_cid_is_a_uuid_also_where_random_uuid_is_missing(pure: Visitor) -> None:
    assert pure.page.evaluate(
        """() => {
            const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
            const native = newCid();
            Object.defineProperty(crypto, 'randomUUID', {value: undefined});
            const own = newCid();
            return [native, own].every(cid => uuid.test(cid)) && native !== own;
        }"""
    )


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("plain", ["text"]),
        ("https://example.org", ["link"]),
        ("(see http://example.org/a_(b).)", ["text", "link", "text"]),
        ("HTTPS://EXAMPLE.ORG/x?y=1#z!", ["link", "text"]),
        ("javascript:alert(1) data:text/html,x ftp://x file:///etc", ["text"]),
        ("https://", ["text"]),
        ("https://exa mple", ["link", "text"]),
        ("xhttps://example.org", ["text"]),
        ("`a` and `b`", ["code", "text", "code"]),
        ("``\n```", ["text"]),
        ("```\ncode\n```", ["block"]),
        ("a ```b``` c", ["text", "block", "text"]),
        ("`https://example.org`", ["code"]),
        ("so *bold* and _italic_", ["text", "bold", "text", "italic"]),
        ("2*3*4 a_b_c * x * __init__", ["text"]),
        ("> quoted https://example.org\nanswer", ["quote", "text"]),
        ("a > b", ["text"]),
        ("*" * 4000, ["text"]),
        ("_a" * 2000, None),
        ("> " * 2000, None),
        (">\n" * 2000, None),
        ("```" * 1000, None),
        (")" * 4000, ["text"]),
        ("https://x" + ")" * 4000, None),
        ("`" * 4000, None),
        ("https://" * 500, None),
    ],
)
def test_a_text_is_cut_into_pieces_that_are_the_text(
    pure: Visitor, text: str, kinds: list[str] | None
) -> None:
    pieces, took = pure.page.evaluate(
        """text => {
            const many = text.repeat(25);
            const once = () => {
                const start = performance.now();
                pieces(many);
                return performance.now() - start;
            };
            return [pieces(text), Math.min(once(), once(), once())];  // a busy machine stops at times
        }""",
        text,
    )
    assert "".join(piece.get("open", "") + piece["text"] + piece.get("close", "") for piece in pieces) == text
    assert kinds is None or [piece["kind"] for piece in pieces] == kinds
    assert all(
        piece["href"].startswith(("http://", "https://")) for piece in pieces if piece["kind"] == "link"
    )
    assert took < 500, "the time grows with the length of the text, not with its square"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("“https://example.org/a”", "https://example.org/a"),
        ("‘https://example.org/a’,", "https://example.org/a"),
        ("«https://example.org/a»", "https://example.org/a"),
        ("„https://example.org/a“.", "https://example.org/a"),
        ("https://example.org/a…", "https://example.org/a"),
        ("（https://example.org/a）を見て", "https://example.org/a"),
        ("「https://example.org/a」", "https://example.org/a"),
        ("https://example.org/a。次の", "https://example.org/a"),
        ("https://example.org/a，然后", "https://example.org/a"),
        ("https://example.org/a！", "https://example.org/a"),
        ("https://example.org/a؟", "https://example.org/a"),
        ("https://example.org/a।", "https://example.org/a"),
        ("https://ja.example/東京（曖昧さ回避）", "https://ja.example/東京（曖昧さ回避）"),
        ("https://ca.example/col·lecció", "https://ca.example/col·lecció"),
        ("https://en.example/O’Hara", "https://en.example/O’Hara"),
        ("https://example.org/a_(b)?c=[1]", "https://example.org/a_(b)?c=[1"),
        ("https://example.org/\u202egnp.exe", "https://example.org/"),
        ("https://example.org/a\u2066b", "https://example.org/a"),
        ("https://example.org/a\u200bb", "https://example.org/a"),
        ("https://example.org/a/", "https://example.org/a/"),
    ],
)
def test_a_link_ends_where_its_address_does(pure: Visitor, text: str, address: str) -> None:
    found = pure.page.evaluate("text => pieces(text).filter(piece => piece.kind === 'link')", text)
    assert [piece["text"] for piece in found] == [address]


def test_a_link_reads_from_left_to_right_whatever_stands_around_it(pure: Visitor) -> None:
    assert pure.page.evaluate("pieceNode(pieces('https://example.org/')[0]).dir") == "ltr"
