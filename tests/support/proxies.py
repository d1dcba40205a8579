"""Real nginx and Caddy in front of the built server, configured as docs/security.md shows it.

    with nginx(tmp_path, server.port) as proxy:
        Chat(proxy.url + "/?token=dev-token", ssl=proxy.trust)

1. The configurations are read out of the page. What differs is what belongs to a machine: the port, the
   certificate, the files of the logs, where the server listens, and, where a test says so, a timeout. What is
   to be replaced must be there.
2. A proxy that isn't installed skips its tests with a reason, and fails them where the environment says CI.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pages import ROOT, blocks
from tests.support.scene import await_true

PAGE = ROOT / "docs" / "security.md"
CERTIFICATE = ROOT / "tests" / "support" / "localhost.pem"
_NGINX = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/main.log;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/chatroom.conf;
}}
"""
_ONLY_IN_TESTS = "{\n\tadmin off\n\tauto_https disable_redirects\n"


@dataclass(frozen=True)
class Proxy:
    """A running proxy, and the folder with all that it writes."""

    port: int
    folder: Path

    @property
    def origin(self) -> str:
        """The server's own origin, as browsers see it."""
        return f"https://localhost:{self.port}"

    @property
    def url(self) -> str:
        """For WebSocket clients."""
        return f"wss://localhost:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client needs to believe its certificate.

        Not TLS 1.3: its tickets come by themselves, and then the client's reading thread may be in OpenSSL
        while another one writes, which OpenSSL doesn't bear.
        """
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    def connect(self, address: str = "127.0.0.1") -> ssl.SSLSocket:
        """A connection to it from this loopback address."""
        plain = socket.create_connection(("127.0.0.1", self.port), 20, (address, 0))
        return self.trust.wrap_socket(plain, server_hostname="localhost")

    @property
    def logs(self) -> str:
        """All that it has written."""
        return "".join(path.read_text("utf-8", "replace") for path in self.folder.glob("*.log"))


def executable(name: str) -> str:
    """Where the proxy is, or the end of the test."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    message = f"there is no {name} on the path: ./test.sh installs it where apt-get may be used"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(message)
    pytest.skip(message)


def shown(kind: str, changes: Mapping[str, str]) -> str:
    """The configuration on the page, fitted to this machine; every change must find its place, once."""
    (text,) = blocks(PAGE.read_text("utf-8"), kind)
    for old, new in changes.items():
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    return text


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, server: int | str, changes: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """nginx before the server at a port of loopback or at the path of a Unix socket."""
    port = free_port()
    at = f"unix:{server}" if isinstance(server, str) else f"127.0.0.1:{server}"
    fitting = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server 127.0.0.1:3000;": f"server {at};",
        "/etc/ssl/chat.example/fullchain.pem": str(CERTIFICATE),
        "/etc/ssl/chat.example/privkey.pem": str(CERTIFICATE),
        "/var/log/nginx/chatroom.log": f"{folder}/access.log",
        "/var/log/nginx/chatroom-error.log": f"{folder}/error.log",
        **(changes or {}),
    }
    (folder / "chatroom.conf").write_text(shown("nginx", fitting))
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
    command = [executable("nginx"), "-e", f"{folder}/main.log", "-p", str(folder)]
    with running([*command, "-c", f"{folder}/nginx.conf"], Proxy(port, folder)) as proxy:
        yield proxy


@contextmanager
def plain_nginx(folder: Path, servers: str, **values: object) -> Iterator[Proxy]:
    """nginx without TLS; into its blocks `servers` go `{port}` and the `values` by their names."""
    port = free_port()
    upgrade = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }\n"
    (folder / "chatroom.conf").write_text(
        f"access_log {folder}/access.log;\n" + upgrade + servers.format(port=port, **values)
    )
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
    command = [executable("nginx"), "-e", f"{folder}/main.log", "-p", str(folder)]
    with running([*command, "-c", f"{folder}/nginx.conf"], Proxy(port, folder)) as proxy:
        yield proxy


@contextmanager
def caddy(folder: Path, server: int | str, changes: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """Caddy before the server at a port of loopback or at the path of a Unix socket."""
    port = free_port()
    at = f"unix/{server}" if isinstance(server, str) else f"127.0.0.1:{server}"
    fitting = {
        "{\n\tlog {\n": f"{_ONLY_IN_TESTS}\tlog {{\n",
        "chat.example {": f"https://localhost:{port} {{\n\tbind 127.0.0.1",
        "/etc/ssl/chat.example/fullchain.pem": str(CERTIFICATE),
        "/etc/ssl/chat.example/privkey.pem": str(CERTIFICATE),
        "127.0.0.1:3000": at,
        **(changes or {}),
    }
    (folder / "Caddyfile").write_text(shown("caddy", fitting))
    command = [executable("caddy"), "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]
    with running(command, Proxy(port, folder)) as proxy:
        yield proxy


@contextmanager
def running(command: list[str], proxy: Proxy) -> Iterator[Proxy]:
    """The proxy, from its first accepted connection to its end."""
    home = {"HOME": str(proxy.folder), "XDG_DATA_HOME": str(proxy.folder), "PATH": os.environ["PATH"]}
    with (proxy.folder / "said.log").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=home, cwd=proxy.folder)
    try:
        await_true(lambda: process.poll() is not None or _accepts(proxy.port), "the proxy listens")
        assert process.poll() is None, proxy.logs
        yield proxy
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
