"""The page behind real proxies: with a login of their own, under a prefix, before a stopped server."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Visit, says
from tests.support.process import ServerProcess
from tests.support.proxies import Proxy, plain_nginx

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PASS = """
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Host $http_host;
"""
LOCATIONS = """
server {{
    listen 127.0.0.1:{port};
    error_page 502 504 =503 @stopped;
    location @stopped {{
        default_type text/html;
        return 503 "<!DOCTYPE html><title>Down</title>\\n<h1>Service Unavailable</h1>";
    }}
    location /chat/ {{ proxy_pass http://127.0.0.1:{server}/; {passing} }}
    location = /bare {{ proxy_pass http://127.0.0.1:{server}/; {passing} }}
    location /basic/ {{
        auth_basic "house";
        auth_basic_user_file {users};
        proxy_pass http://127.0.0.1:{server}/; {passing}
    }}
    location /stripped/ {{
        proxy_pass http://127.0.0.1:{server}/; {passing}
        proxy_set_header Authorization "";
    }}
    location /cookie/ {{
        if ($cookie_session != "valid") {{ return 302 /login; }}
        proxy_pass http://127.0.0.1:{server}/; {passing}
    }}
    location /sso/ {{
        if ($cookie_session != "valid") {{ return 401 "<!DOCTYPE html><h1>Log in</h1>"; }}
        proxy_pass http://127.0.0.1:{server}/; {passing}
    }}
    location = /login {{ default_type text/html; return 200 "<!DOCTYPE html><title>Login</title>"; }}
    location / {{ default_type text/plain; return 404 "Nothing here"; }}
}}
"""


@pytest.fixture(scope="module")
def proxy(
    browser: Browser, page_server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("nginx")
    users = folder / "users"
    users.write_text("house:{SHA}" + base64.b64encode(hashlib.sha1(b"key").digest()).decode() + "\n")
    with plain_nginx(folder, LOCATIONS, server=page_server.port, users=users, passing=PASS) as running:
        yield running


class At:
    """A server as the visitors see it, at a path of the proxy."""

    def __init__(self, proxy: Proxy, path: str) -> None:
        self.url = f"http://127.0.0.1:{proxy.port}{path}"


def test_under_a_prefix(visit: Visit, proxy: Proxy) -> None:
    alice = visit(At(proxy, "/chat")).connect("alice", "prefix")
    bob = visit(At(proxy, "/chat"), from_file=True).connect("bob", "prefix")
    bob.say("through the prefix")
    alice.text("through the prefix").wait_for()


def test_behind_a_login_of_http(visit: Visit, proxy: Proxy) -> None:
    """The browser's Authorization is the proxy's; the token must not take its place."""
    who = {"username": "house", "password": "key", "send": "unauthorized"}
    alice = visit(At(proxy, "/basic"), http_credentials=who).connect("alice", "basic")
    alice.say("let in twice")
    alice.log.locator(".sent").wait_for()


def test_behind_a_proxy_that_strips_authorization(visit: Visit, proxy: Proxy) -> None:
    visit(At(proxy, "/stripped")).connect("alice", "stripped")


@pytest.mark.parametrize("path", ["/cookie", "/sso"])
def test_behind_a_login_by_cookie(visit: Visit, proxy: Proxy, path: str) -> None:
    at = At(proxy, path)
    session = {"name": "session", "value": "valid", "url": at.url}
    alice = visit(at)
    alice.context.add_cookies([session])
    alice.page.goto(alice.address)
    alice.connect("alice", "cookie")
    alice.context.clear_cookies()
    alice.page.evaluate("state.socket.close(4000)")
    says(alice, "Something in front of the server asks for a login. Reload this page to log in there")
    assert "DOCTYPE" not in alice.status.text_content()
    alice.context.add_cookies([session])
    alice.press("Reload")
    says(alice, "Connected to #cookie as alice.")
    alice.overlook("console: ", "request to ")


def test_a_file_is_told_of_a_login(visit: Visit, proxy: Proxy) -> None:
    alice = visit(At(proxy, "/sso"), from_file=True)
    alice.enter("alice")
    says(alice, re.compile("asks for a login|can't be reached"))  # other origins may not read that answer
    alice.overlook("console: ")


def test_what_a_proxy_says_for_a_stopped_server_is_not_shown(visit: Visit, tmp_path: Path) -> None:
    with ServerProcess("--db", "none") as server:
        users = tmp_path / "users"
        users.touch()
        with plain_nginx(tmp_path, LOCATIONS, server=server.port, users=users, passing=PASS) as front:
            alice = visit(At(front, "/chat")).connect("alice")
            assert server.stop() == 0
            asked = len(alice.requests)
            alice.page.wait_for_function("() => state.tried.some(text => text.includes('503'))")
            says(alice, "No connection. Trying again")
            assert "<" not in alice.status.text_content()
            assert "503 text/html" in alice.page.evaluate("diagnosis()")
            assert len(alice.requests) > asked
            with ServerProcess("--db", "none", "--port", str(server.port)):
                says(alice, "Connected to #general as alice.")
                alice.press("Leave")
            alice.overlook("console: ")


def test_a_prefix_without_its_slash_is_named(visit: Visit, proxy: Proxy) -> None:
    alice = visit(At(proxy, "/bare"), place="")
    alice.page.goto(f"http://127.0.0.1:{proxy.port}/bare")
    alice.enter("alice")
    says(alice, "There is something else at ")
    says(alice, "slash")
    alice.overlook("console: ", "request to ")


def test_something_else_is_named_from_a_file(visit: Visit, proxy: Proxy) -> None:
    alice = visit(At(proxy, "/nowhere"), from_file=True)
    alice.enter("alice")
    says(alice, re.compile("There is something else at|can't be reached"))
    alice.overlook("console: ")
