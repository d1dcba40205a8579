"""A browser's own `EventSource` and `fetch` at the built server, from its own origin and another one."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.process import ServerProcess
from tests.support.scene import await_true

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLLOW = """url => {
    window.heard = [];
    window.source = new EventSource(url);
    source.onmessage = event => heard.push([event.lastEventId, JSON.parse(event.data)]);
}"""
POST = """([url, text, key]) => fetch(url, {method: "POST", body: text, headers: {
    "Authorization": "Bearer dev-token", "Content-Type": "text/plain", "Idempotency-Key": key}})
    .then(answer => answer.json().then(body => [answer.status, body]))"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>elsewhere")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A page of another origin. It is on loopback, too: browsers keep pages of the internet from there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def texts(page: Page) -> list[str]:
    heard = page.evaluate("() => heard")
    return [frame["data"]["text"] for _, frame in heard if frame["event"] == "message"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("own", [True, False])
def test_a_page_posts_and_follows_over_a_restart(
    pyz: Path, tmp_path: Path, page: Page, elsewhere: str, own: bool
) -> None:
    port = free_port()
    options = ("--port", str(port), "--db", str(tmp_path / "chat.db"))
    with ServerProcess(*options) as server:
        url = f"http://127.0.0.1:{port}"
        page.goto(url if own else elsewhere)
        page.evaluate(FOLLOW, f"{url}/rooms/ops/events?token=dev-token")
        status, answer = page.evaluate(POST, [f"{url}/rooms/ops/messages?username=ci", "one", "k1"])
        assert (status, answer["id"]) == (201, 1)
        status, answer = page.evaluate(POST, [f"{url}/rooms/ops/messages?username=ci", "one", "k1"])
        assert (status, answer["duplicate"]) == (200, True)
        await_true(lambda: texts(page) == ["one"], "it is heard")
        server.signal(signal.SIGTERM)
        server.wait()
    with ServerProcess(*options):
        page.evaluate(POST, [f"{url}/rooms/ops/messages?username=ci", "two", "k2"])
        await_true(lambda: texts(page) == ["one", "two"], "it comes back", patience=30)
        first, *_ = [number for number, frame in page.evaluate("() => heard") if frame.get("recovered")]
        assert first.endswith(":1")
        page.evaluate("() => source.close()")
