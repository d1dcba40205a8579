"""Where the server listens: addresses, Unix sockets and TLS, opened or refused with one clear line.

1. `localhost` means both loopbacks where they exist, on the same port, also on a free one.
2. A stale Unix socket is replaced, a live one and any other file is left alone.
3. Whatever can't be opened is a StartError that says what to do.
"""

import errno
import os
import socket
import ssl
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from chatroom.values.errors import StartError

BACKLOG = 1024
FREE_PORT_TRIES = 20


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and how it is shown: `http://127.0.0.1:3000` or `unix:/run/chat.sock`."""

    socket: socket.socket
    name: str
    local: bool
    secure: bool = False
    path: str | None = None
    inode: tuple[int, int] | None = None  # of the Unix socket's file, when it was made

    def close(self) -> None:
        """Stop listening; the file of a Unix socket goes, unless it is somebody else's by now."""
        self.socket.close()
        if self.path is not None and self.inode == _inode(self.path):
            with suppress(OSError):
                os.unlink(self.path)


def open_listeners(hosts: Iterable[str], port: int, unix: str | None, *, secure: bool) -> list[Listener]:
    """Open them all, IPv4 first, or none. Raises StartError."""
    opened: list[Listener] = []
    try:
        addresses = _addresses(hosts, port)
        opened.extend(_open_tcp(addresses, port, secure))
        if unix is not None:
            opened.append(_open_unix(unix))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def load_tls(certificate: str, key: str) -> ssl.SSLContext:
    """A server's TLS context. Raises StartError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"--tls-cert {certificate} and --tls-key {key} can't be used ({reason}): "
            "give a PEM certificate chain and its unencrypted PEM key"
        ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _addresses(hosts: Iterable[str], port: int) -> list[tuple[socket.AddressFamily, str]]:
    """What the names stand for, each address once, IPv4 before IPv6."""
    found: dict[tuple[socket.AddressFamily, str], None] = {}
    for host in hosts:
        if host == "localhost":
            found[socket.AF_INET, "127.0.0.1"] = None
            if _has_ipv6_loopback():
                found[socket.AF_INET6, "::1"] = None
            continue
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError):
            raise StartError(f"--host {host}: no such address; give an address of this machine") from None
        for family, _, _, _, address in infos:
            found[family, str(address[0])] = None
    return sorted(found, key=lambda pair: pair[0] != socket.AF_INET)


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _open_tcp(addresses: list[tuple[socket.AddressFamily, str]], port: int, secure: bool) -> list[Listener]:
    """All on one port. A free one may be taken on the second address; then another one is tried."""
    for attempt in range(FREE_PORT_TRIES):
        opened: list[Listener] = []
        chosen = port
        try:
            for family, address in addresses:
                opened.append(_listen_tcp(family, address, chosen, secure))
                chosen = opened[-1].socket.getsockname()[1]
        except OSError as error:
            for listener in opened:
                listener.close()
            if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < FREE_PORT_TRIES:
                continue
            raise StartError(_cannot_listen(address, chosen, error)) from None
        return opened
    raise AssertionError("unreachable")


def _listen_tcp(family: socket.AddressFamily, address: str, port: int, secure: bool) -> Listener:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    shown = f"[{address}]" if family == socket.AF_INET6 else address
    scheme = "https" if secure else "http"
    local = ip_address(address.partition("%")[0]).is_loopback
    return Listener(sock, f"{scheme}://{shown}:{sock.getsockname()[1]}", local, secure)


def _cannot_listen(address: str, port: int, error: OSError) -> str:
    place = f"{address} port {port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{place} is in use: stop what runs there, or choose another --port"
        case errno.EACCES | errno.EPERM:
            return f"{place} may not be opened by this user: choose a --port above 1023"
        case errno.EADDRNOTAVAIL:
            return f"{address} is no address of this machine: choose another --host"
        case _:
            return f"{place} can't be opened ({error.strerror}): choose another --host or --port"


def _open_unix(path: str) -> Listener:
    try:
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"--unix {path} can't be opened ({reason}): choose another path") from None
    return Listener(sock, f"unix:{path}", local=True, path=path, inode=_inode(path))


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Raises StartError for anything else that stands there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"--unix {path} is a file that is no socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (BlockingIOError, TimeoutError):
            pass  # somebody listens, and is busy
    raise StartError(f"--unix {path} is in use by a running server: stop it, or choose another path")


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
