"""How the page is answered: compressed where that is taken, and again only if it has changed."""

from __future__ import annotations

import gzip

import pytest

from chatroom.core.http import Peer, Request, Response
from chatroom.http.csp import policy
from chatroom.http.page import Page, takes_gzip
from chatroom.system.files import load_page

REST = b'<script type="text/plain" id="rest">c</script>'
HTML = b"<html><style>a{}</style><script>b</script>" + REST + b"x" * 1000


def get(**headers: str) -> Request:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request("GET", "/", "", named, "1.1", Peer("192.0.2.1"))


def header(response: Response, name: str) -> str | None:
    found = [value for key, value in response.headers if key == name]
    assert len(found) < 2
    return found[0] if found else None


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip, deflate, br", True),
        ("GZIP", True),
        ("*", True),
        ("br;q=1.0, gzip;q=0.8", True),
        ("gzip; q=0.001", True),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("br", False),
        ("", False),
        ("gzipped", False),
        ("gzip;q=.", False),
        ("gzip;q=x", False),
    ],
)
def test_it_is_compressed_where_the_browser_takes_it(accepted: str, zipped: bool) -> None:
    assert takes_gzip(get(accept_encoding=accepted)) == zipped
    answer = Page(HTML).answer(get(accept_encoding=accepted))
    assert header(answer, "Content-Encoding") == ("gzip" if zipped else None)
    assert (gzip.decompress(answer.body) if zipped else answer.body) == HTML


def test_who_names_no_encoding_gets_the_page_as_it_is() -> None:
    assert Page(HTML).answer(get()).body == HTML


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_it_is_kept_and_asked_for_by_its_tag(encoding: str) -> None:
    page = Page(HTML)
    first = page.answer(get(accept_encoding=encoding))
    assert header(first, "Cache-Control") == "no-cache"
    assert header(first, "Vary") == "Accept-Encoding"
    tag = header(first, "ETag")
    assert tag is not None
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = page.answer(get(accept_encoding=encoding, if_none_match=known))
        assert (again.status, again.body) == (304, b"")
        assert header(again, "ETag") == tag
        assert header(again, "Content-Security-Policy") == policy(HTML)
        assert header(again, "Content-Encoding") is None
    assert page.answer(get(if_none_match='"other"')).status == 200
    changed = Page(HTML + b"y").answer(get(accept_encoding=encoding, if_none_match=tag))
    assert changed.status == 200


def test_both_forms_have_tags_of_their_own() -> None:
    page = Page(HTML)
    tags = {header(page.answer(get(accept_encoding=each)), "ETag") for each in ("gzip", "identity")}
    assert len(tags) == 2


def test_a_development_token_is_told_where_there_is_one() -> None:
    assert header(Page(HTML).answer(get()), "Server-Timing") is None
    told = header(Page(HTML, development_token="dev-token").answer(get()), "Server-Timing")
    assert told == 'development-token;desc="dev-token"'


def test_the_page_is_a_third_of_its_size_on_the_wire() -> None:
    html = load_page()
    assert len(Page(html).answer(get(accept_encoding="gzip")).body) < len(html) / 2.5
