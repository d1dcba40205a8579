"""Listeners: addresses, Unix sockets and TLS, at a port of one process or of several.

Owns how listening sockets are opened, how they are shown, and how a process leaves a port that others share.
Rules:

1. `localhost` means both loopbacks where they exist, on the same port, also on a free one.
2. An address that another one covers is left out: `0.0.0.0` is all of IPv4, `::` all of IPv6, no more.
3. A stale Unix socket is replaced. A live one and any other file are left alone.
4. Sockets that the server was given are used as they are and stay open, since their owner listens on.
5. A listener that can't be opened is a StartError that says what to do.

Rules of a port that several processes share:

6. The kernel gives each new connection to one of the listening sockets, by the client's address and port.
   When a socket is closed, the kernel resets the connections in its queue and those whose TCP handshake isn't
   done.
7. So a process that leaves first has the kernel drop the first packet of each new connection, at its own
   socket alone. It sets the least TTL that the socket takes to a value that no packet has that came by a
   router or by loopback. TCP handshakes that have begun get through, and the queue can be emptied. A client
   whose packet was dropped sends it again after a second. By then the socket is closed, and the packet goes
   to another one. This takes no privilege, unlike a packet filter.
8. Sockets that are accepted from then on have the same least TTL, until it is lifted from them.
9. Where the kernel has no such option, the socket is only closed, and connections of that moment are reset.

It doesn't know HTTP, nor what is served at a listener.
"""

import errno
import os
import socket
import ssl
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from chatroom.core.errors import StartError

# A shared port

RESEND_SECONDS = 1.0
"""After so many seconds a client sends its first packet again."""
_LEAST_TTL = {socket.AF_INET: (socket.IPPROTO_IP, 21), socket.AF_INET6: (socket.IPPROTO_IPV6, 73)}
"""IP_MINTTL and IPV6_MINHOPCOUNT of Linux."""
_MOST = 255


def share_port(sock: socket.socket) -> None:
    """Let other processes of the same user listen at the port of `sock`, which isn't bound yet."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def drop_new_connections(sock: socket.socket) -> None:
    """Apply rule 7 to a listening TCP socket."""
    _set_least_ttl(sock, _MOST)


def stop_dropping(sock: socket.socket) -> None:
    """Lift the least TTL from a socket that was accepted (rule 8)."""
    _set_least_ttl(sock, 0)


def _set_least_ttl(sock: socket.socket, ttl: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # rule 9
            sock.setsockopt(*_LEAST_TTL[sock.family], ttl)


# Listeners

BACKLOG = 1024
FREE_PORT_TRIES = 20
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Address:
    """An address to bind, in numbers. `scope` is the number of its zone, if it needs one."""

    family: socket.AddressFamily
    host: str
    scope: int = 0

    @property
    def local(self) -> bool:
        """Only this machine can reach it."""
        return ip_address(self.host).is_loopback

    def covers(self, other: "Address") -> bool:
        """A socket bound to this address also gets the connections to `other`."""
        everywhere = ip_address(self.host).is_unspecified
        return self.family == other.family and (everywhere or self == other)

    def zoned(self) -> str:
        """The address with its zone, as an operator writes it."""
        return f"{self.host}%{socket.if_indextoname(self.scope)}" if self.scope else self.host

    def shown(self) -> str:
        """The address as a URL has it."""
        return f"[{self.zoned()}]" if self.family == socket.AF_INET6 else self.host


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and its name: `http://127.0.0.1:3000` or `unix:/run/chat.sock`."""

    socket: socket.socket
    name: str
    local: bool
    secure: bool = False
    path: str | None = None
    inode: tuple[int, int] | None = None  # of the Unix socket's file, when the socket was bound
    given: bool = False  # the server was given it at its start
    metrics: bool = False  # it serves metrics, and no clients
    admin: bool = False  # it serves operators, and no clients
    shared: bool = False  # other processes listen at its port

    def shown(self) -> str:
        """Its name, as an operator knows it."""
        return self.name

    def close(self) -> None:
        """Stop listening. The file of a Unix socket is removed, unless another process has replaced it."""
        self.socket.close()
        if self.path is not None and self.inode == _inode(self.path):
            with suppress(OSError):
                os.unlink(self.path)


@dataclass(frozen=True, slots=True)
class ListenPlan:
    """The listeners to open: addresses on a port, a Unix socket, and addresses on a port for metrics.

    `admin` is the path of a Unix socket for operators, which only its owner may use.
    `shared`: other processes may listen at the addresses and the port, too.
    """

    addresses: Sequence[Address] = ()
    port: int = 0
    unix: str | None = None
    unix_mode: int = 0o666
    metrics: Sequence[Address] = ()
    metrics_port: int = 0
    shared: bool = False
    admin: str | None = None


def open_listeners(plan: ListenPlan, *, secure: bool) -> list[Listener]:
    """Open all listeners, IPv4 first, those for metrics last, or none. Raises StartError."""
    opened: list[Listener] = []
    try:
        opened.extend(_open_tcp(plan.addresses, plan.port, "--port", secure=secure, shared=plan.shared))
        if plan.unix is not None:
            opened.append(_open_unix("--unix", plan.unix, plan.unix_mode))
        if plan.admin is not None:
            opened.append(_open_unix("--admin-socket", plan.admin, _OWNER_ONLY, admin=True))
        opened.extend(_open_tcp(plan.metrics, plan.metrics_port, "--metrics-port", metrics=True))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def given_listener(sock: socket.socket, name: str, *, secure: bool) -> Listener:
    """A listener on a socket that the server was given. The name `metrics` means that it serves metrics."""
    sock.setblocking(False)
    metrics = name == "metrics"
    if sock.family == socket.AF_UNIX:
        path = sock.getsockname()
        shown = os.fsdecode(path) if isinstance(path, str) else "@" + os.fsdecode(path[1:])
        return Listener(sock, f"unix:{shown}", local=True, given=True, metrics=metrics)
    bound = sock.getsockname()
    address = _address(sock.family, bound)
    secure = secure and not metrics
    return Listener(
        sock, _name(address, bound[1], secure), address.local, secure, given=True, metrics=metrics
    )


def load_tls(certificate: str, key: str) -> ssl.SSLContext:
    """The server's TLS context, from PEM files. Raises StartError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # OpenSSL 3 refuses renegotiation anyway
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


def find_addresses(hosts: Iterable[str], flag: str = "--host") -> list[Address]:
    """The addresses of the hosts, IPv4 before IPv6, without covered ones (rule 2). Raises StartError."""
    found: dict[Address, None] = {}
    for host in hosts:
        if host == "localhost":
            found[Address(socket.AF_INET, "127.0.0.1")] = None
            if _has_ipv6_loopback():
                found[Address(socket.AF_INET6, "::1")] = None
            continue
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError):
            raise StartError(f"{flag} {host}: no such address; give an address of this machine") from None
        for family, _, _, _, address in infos:
            found[_address(family, address)] = None
    needed = [each for each in found if not any(other.covers(each) for other in found if other != each)]
    return sorted(needed, key=lambda address: address.family != socket.AF_INET)


def _address(family: socket.AddressFamily, bound: Sequence[Any]) -> Address:
    """The Address of a socket module's tuple."""
    return Address(family, str(bound[0]).partition("%")[0], int(bound[3]) if len(bound) == 4 else 0)


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _open_tcp(
    addresses: Sequence[Address],
    port: int,
    flag: str,
    *,
    secure: bool = False,
    metrics: bool = False,
    shared: bool = False,
) -> list[Listener]:
    """Open all addresses on one port. A free port may be taken on the second address: then try another."""
    for attempt in range(FREE_PORT_TRIES):
        opened: list[Listener] = []
        chosen = port
        try:
            for address in addresses:
                sock = _listen_tcp(address, chosen, shared=shared)
                chosen = sock.getsockname()[1]
                name = _name(address, chosen, secure)
                opened.append(Listener(sock, name, address.local, secure, metrics=metrics, shared=shared))
        except OSError as error:
            for listener in opened:
                listener.close()
            if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < FREE_PORT_TRIES:
                continue
            raise StartError(_cannot_listen(address.zoned(), chosen, flag, error)) from None
        return opened
    raise AssertionError("unreachable")


def _listen_tcp(address: Address, port: int, *, shared: bool = False) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if shared:
            share_port(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address.host, port, 0, address.scope))
        else:
            sock.bind((address.host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _name(address: Address, port: int, secure: bool) -> str:
    return f"{'https' if secure else 'http'}://{address.shown()}:{port}"


def _cannot_listen(host: str, port: int, flag: str, error: OSError) -> str:
    shown = f"{host} port {port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{shown} is in use: stop what runs there, or choose another {flag}"
        case errno.EACCES | errno.EPERM:
            return f"{shown} may not be opened by this user: choose a {flag} above 1023"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine: choose another {flag.replace('port', 'host')}"
        case errno.EINVAL if ip_address(host).is_link_local and "%" not in host:
            return f"{host} is an address of a link: say of which, as in {host}%eth0"
        case _:
            hosts = flag.replace("port", "host")
            return f"{shown} can't be opened ({error.strerror}): choose another {hosts} or {flag}"


def _open_unix(flag: str, path: str, mode: int, *, admin: bool = False) -> Listener:
    try:
        _remove_stale(flag, path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            os.chmod(path, mode)  # before a client can connect, and whatever the umask is
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"{flag} {path} can't be opened ({reason}): choose another path") from None
    return Listener(sock, f"unix:{path}", local=True, path=path, inode=_inode(path), admin=admin)


def _remove_stale(flag: str, path: str) -> None:
    """Remove a Unix socket on which no process listens. Raises StartError for any other file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{flag} {path} is a file that is no socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (BlockingIOError, TimeoutError):
            pass  # a process listens, and is busy
    raise StartError(f"{flag} {path} is in use by a running server: stop it, or choose another path")


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
