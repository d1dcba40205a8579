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
