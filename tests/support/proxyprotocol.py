"""Real proxies that speak the PROXY protocol to the built server: HAProxy, hitch and stunnel.

    with haproxy(tmp_path, server.port, "send-proxy-v2") as proxy:
        Chat(proxy.url + "/?token=dev-token", ssl=proxy.trust)

1. HAProxy and hitch are configured as docs/security.md shows it, fitted to this machine as in `proxies`.
2. All listen on 127.0.0.1 by TLS, but HAProxy where it is told to pass bytes on as they come.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.proxies import CERTIFICATE, Proxy, executable, free_port, running, shown


@contextmanager
def haproxy(folder: Path, server: int | str, how: str, *, through: bool = False) -> Iterator[Proxy]:
    """HAProxy before the server at a port or the path of a Unix socket; `how` ends its server line.

    `through`: it doesn't end TLS, the server does.
    """
    port = free_port()
    at = f"unix@{server}" if isinstance(server, str) else f"127.0.0.1:{server}"
    fitting = {
        "bind :443 ssl crt /etc/ssl/chat.example/both.pem": f"bind 127.0.0.1:{port}"
        + ("" if through else f" ssl crt {CERTIFICATE}"),
        "127.0.0.1:3000 send-proxy-v2-ssl check-send-proxy": f"{at} {how}",
    }
    (folder / "haproxy.cfg").write_text(shown("haproxy", fitting))
    command = [executable("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"]
    with running(command, Proxy(port, folder)) as proxy:
        yield proxy


@contextmanager
def hitch(folder: Path, server: int) -> Iterator[Proxy]:
    """hitch before the server at a port of loopback."""
    port = free_port()
    fitting = {
        'frontend = "[*]:443"': f'frontend = "[127.0.0.1]:{port}"',
        "/etc/ssl/chat.example/both.pem": str(CERTIFICATE),
        "[127.0.0.1]:3000": f"[127.0.0.1]:{server}",
        'user = "hitch"': 'user = "root"\nworkers = 1' if os.getuid() == 0 else "workers = 1",
    }
    (folder / "hitch.conf").write_text(shown("hitch", fitting))
    with running([executable("hitch"), f"--config={folder}/hitch.conf"], Proxy(port, folder)) as proxy:
        yield proxy


@contextmanager
def stunnel(folder: Path, server: int) -> Iterator[Proxy]:
    """stunnel before the server at a port of loopback."""
    port = free_port()
    fitting = {
        "accept = 443": f"accept = 127.0.0.1:{port}",
        "/etc/ssl/chat.example/both.pem": str(CERTIFICATE),
        "connect = 127.0.0.1:3000": f"connect = 127.0.0.1:{server}",
        "foreground = no": "foreground = yes",
    }
    (folder / "stunnel.conf").write_text(shown("stunnel", fitting))
    command = [executable("stunnel4"), f"{folder}/stunnel.conf"]
    with running(command, Proxy(port, folder)) as proxy:
        yield proxy
