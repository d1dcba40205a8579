"""What docs/security.md says of pages that open a server on loopback, looked at in a real Chromium."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import chromium
from tests.support.pages import ROOT, rows
from tests.support.process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SECURITY = (ROOT / "docs" / "security.md").read_text("utf-8")
HEADING = "Development tokens and the pages in your browser"
OPEN = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve(true);
    socket.onclose = () => resolve(false);
})"""


class Site(BaseHTTPRequestHandler):
    """Any page of anybody."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Any page</title>")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port of a site at 127.0.0.1."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        running.shutdown()


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--db", "none") as running:
        yield running


@contextmanager
def browsing(site: int, *, public: bool) -> Iterator[Browser]:
    """A browser for which the site is one of the internet, or of this machine as it really is."""
    space = [f"--ip-address-space-overrides=127.0.0.1:{site}=public"] if public else []
    with chromium("--host-resolver-rules=MAP rebinding.test 127.0.0.1", *space) as running:
        yield running


def gets_in(browser: Browser, page: str, server: str, permissions: list[str]) -> bool:
    context = browser.new_context(permissions=permissions)
    visited = context.new_page()
    visited.goto(page)
    found: bool = visited.evaluate(OPEN, f"{server}/?token=dev-token")
    context.close()
    return found


def test_a_page_of_the_network_has_to_be_allowed_by_its_visitor(site: int, server: ServerProcess) -> None:
    port = server.port
    allowed = ["local-network-access"]
    with browsing(site, public=True) as browser:
        # A page of localhost counts as safe as one by https does.
        assert not gets_in(browser, f"http://localhost:{site}/", f"ws://localhost:{port}", [])
        assert gets_in(browser, f"http://localhost:{site}/", f"ws://localhost:{port}", allowed)
        for permissions in ([], allowed):
            name = "rebinding.test"
            assert not gets_in(browser, f"http://{name}:{site}/", f"ws://{name}:{port}", permissions)
    with browsing(site, public=False) as browser:
        assert gets_in(browser, f"http://localhost:{site}/", f"ws://localhost:{port}", [])


def test_a_page_from_a_disk_has_the_origin_null(site: int, server: ServerProcess, tmp_path: Path) -> None:
    page = tmp_path / "any.html"
    page.write_text("<!doctype html><title>Any page</title>")
    with browsing(site, public=False) as browser:
        assert gets_in(browser, page.as_uri(), server.ws_url, [])
        for origin, expected in (("http://localhost:3000", False), ("null", True)):
            with ServerProcess("--db", "none", "--origin", origin) as choosy:
                assert gets_in(browser, page.as_uri(), choosy.ws_url, []) == expected


def test_the_page_says_what_was_seen() -> None:
    told = [(page.split(",")[0], chromium) for page, chromium, _ in rows(SECURITY, HEADING)]
    assert [page for page, _ in told] == ["from the network"] * 3 + [
        "of another program on this machine",
        "opened from a disk",
    ]
    assert [said.startswith("gets in") for _, said in told] == [False, False, False, True, True]
