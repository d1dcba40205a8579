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
        ("query({username: 'a b+ü', room: '', since: 0})", "username=a%20b%2B%C3%BC&since=0"),
        ("query({room: '\\ud800x'})", "room=%EF%BF%BDx"),
        ("backoff(0, 1)", 1_000),
        ("backoff(40, 1)", 20_000),
        ("backoff(3, 0)", 0),
        ("retryAfter('7', 0)", 7),
        ("retryAfter('Thu, 01 Jan 1970 00:00:09 GMT', 1000)", 8),
        ("retryAfter('soon', 0)", 0),
        ("retryAfter(null, 0)", 0),
        ("isToken('a.B-9_~')", True),
        ("isToken('a,b')", False),
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
