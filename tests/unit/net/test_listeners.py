"""Real sockets: where they listen, what they are called, and what stands in their way."""

import errno
import os
import re
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from chatroom.core.errors import StartError
from chatroom.net import listeners
from chatroom.net.listeners import (
    Address,
    Listener,
    ListenPlan,
    find_addresses,
    given_listener,
    load_tls,
    open_listeners,
)
from tests.support.process import ROOT

PEM = str(ROOT / "tests" / "support" / "localhost.pem")


@contextmanager
def opened(
    hosts: Sequence[str] = ("127.0.0.1",), port: int = 0, unix: str | None = None, *, secure: bool = False
) -> Iterator[list[Listener]]:
    found = open_listeners(ListenPlan(find_addresses(hosts), port, unix), secure=secure)
    with ExitStack() as stack:
        for listener in found:
            stack.callback(listener.close)
        yield found


def refused(hosts: Sequence[str], port: int, unix: str | None, *, secure: bool) -> str:
    with pytest.raises(StartError) as caught:
        open_listeners(ListenPlan(find_addresses(hosts), port, unix), secure=secure)
    message = str(caught.value)
    assert "\n" not in message
    return message


def port_of(listener: Listener) -> int:
    return int(listener.socket.getsockname()[1])


has_ipv6 = pytest.mark.skipif(not listeners._has_ipv6_loopback(), reason="this machine has no ::1")


def test_a_free_port_is_found_and_told() -> None:
    with opened() as (listener,):
        assert listener.name == f"http://127.0.0.1:{port_of(listener)}"
        assert (listener.local, listener.secure, listener.path) == (True, False, None)
        assert not listener.socket.getblocking()
        with socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5):
            listener.socket.setblocking(True)
            listener.socket.accept()[0].close()


@has_ipv6
def test_localhost_means_both_loopbacks_on_one_port_ipv4_first() -> None:
    with opened(["localhost"]) as found:
        port = port_of(found[0])
        assert [each.name for each in found] == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()


def test_without_ipv6_localhost_is_the_other_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    with opened(["localhost"]) as found:
        assert len(found) == 1


def test_where_the_ipv6_loopback_can_not_be_had_localhost_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoIPv6(socket.socket):
        def bind(self, address: object) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "no")
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", NoIPv6)
    with opened(["localhost"]) as found:
        assert len(found) == 1


@has_ipv6
def test_addresses_are_opened_once_each_ipv4_first() -> None:
    with opened(["::1", "127.0.0.1", "localhost", "127.0.0.1"]) as found:
        assert [each.socket.family for each in found] == [socket.AF_INET, socket.AF_INET6]


def test_an_address_that_others_can_reach_is_not_local() -> None:
    with opened(["0.0.0.0"], secure=True) as (listener,):
        assert (listener.local, listener.secure) == (False, True)
        assert listener.name == f"https://0.0.0.0:{port_of(listener)}"


@has_ipv6
def test_when_the_free_port_is_taken_on_the_second_address_another_one_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []
    listen = listeners._listen_tcp

    def listen_after_others(address: Address, port: int, *, shared: bool) -> socket.socket:
        if address.family == socket.AF_INET6 and len(tried) < 3:
            tried.append(port)
            raise OSError(errno.EADDRINUSE, "taken")
        return listen(address, port, shared=shared)

    monkeypatch.setattr(listeners, "_listen_tcp", listen_after_others)
    with opened(["localhost"]) as found:
        assert len(tried) == 3
        assert port_of(found[0]) == port_of(found[1])


@has_ipv6
def test_it_does_not_try_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    listen = listeners._listen_tcp

    def listen_only_once(address: Address, port: int, *, shared: bool) -> socket.socket:
        if address.family == socket.AF_INET6:
            tried.append(port)
            raise OSError(errno.EADDRINUSE, "taken")
        return listen(address, port, shared=shared)

    monkeypatch.setattr(listeners, "_listen_tcp", listen_only_once)
    assert "is in use" in refused(["localhost"], 0, None, secure=False)
    assert len(tried) == listeners.FREE_PORT_TRIES


def test_a_port_in_use_is_told_with_what_to_do_and_nothing_stays_open(tmp_path: Path) -> None:
    with opened() as (listener,):
        port = port_of(listener)
        message = refused(["127.0.0.2", "127.0.0.1"], port, None, secure=False)
        assert message == (f"127.0.0.1 port {port} is in use: stop what runs there, or choose another --port")
        socket.create_server(("127.0.0.2", port)).close()  # not held by the failed attempt


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "may not be opened by this user: choose a --port above 1023"),
        (errno.EPERM, "may not be opened by this user: choose a --port above 1023"),
        (errno.EADDRNOTAVAIL, "is no address of this machine: choose another --host"),
        (errno.ENOBUFS, r"can't be opened \(.*\): choose another --host or --port"),
    ],
)
def test_each_trouble_is_told_with_what_to_do(code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unwilling(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(socket, "socket", Unwilling)
    assert re.search(words, refused(["127.0.0.1"], 80, None, secure=False))


@pytest.mark.parametrize("host", ["a" * 300, "bad\udc80"])
def test_a_host_that_there_can_not_be_is_told(host: str) -> None:
    assert "no such address" in refused([host], 0, None, secure=False)


def test_a_host_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)  # no test asks the network
    assert refused(["nowhere.example"], 0, None, secure=False) == (
        "--host nowhere.example: no such address; give an address of this machine"
    )


@has_ipv6
def test_an_address_of_a_link_without_its_zone_is_told() -> None:
    assert refused(["fe80::1"], 0, None, secure=False) == (
        "fe80::1 is an address of a link: say of which, as in fe80::1%eth0"
    )


def test_an_address_of_another_machine_is_told() -> None:
    assert "is no address of this machine" in refused(["192.0.2.1"], 0, None, secure=False)


@has_ipv6
@pytest.mark.parametrize(
    ("hosts", "opened_ones"),
    [
        (["127.0.0.1", "0.0.0.0"], ["0.0.0.0"]),
        (["0.0.0.0", "127.0.0.2", "127.0.0.1"], ["0.0.0.0"]),
        (["localhost", "0.0.0.0"], ["0.0.0.0", "[::1]"]),
        (["::", "localhost"], ["127.0.0.1", "[::]"]),
        (["::1", "::", "0.0.0.0"], ["0.0.0.0", "[::]"]),
    ],
)
def test_an_address_that_another_one_covers_is_left_out(hosts: list[str], opened_ones: list[str]) -> None:
    with opened(hosts) as found:
        assert [each.name for each in found] == [f"http://{host}:{port_of(found[0])}" for host in opened_ones]


@has_ipv6
def test_all_of_ipv6_is_not_ipv4() -> None:
    with opened(["::"]) as (listener,), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5)


def link_local() -> str | None:
    """An address of this machine that means nothing without its zone."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines() if socket.has_ipv6 else ():
        number, _, _, scope, _, device = line.split()
        if scope == "20":
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number))}%{device}"
    return None


@pytest.mark.skipif(link_local() is None, reason="this machine has no link-local address")
def test_an_address_with_a_zone_is_bound_there() -> None:
    host = link_local()
    assert host is not None
    with opened([host]) as (listener,):
        assert listener.name == f"http://[{host}]:{port_of(listener)}"
        assert not listener.local
        socket.create_connection((host, port_of(listener)), timeout=5).close()


def test_the_number_of_the_zone_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[object] = []

    class Witness(socket.socket):
        def bind(self, address: object) -> None:
            bound.append(address)
            raise OSError(errno.EADDRNOTAVAIL, "no")

    info = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 0, 7))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [info])
    monkeypatch.setattr(socket, "if_indextoname", {7: "eth7"}.__getitem__)
    monkeypatch.setattr(socket, "socket", Witness)
    assert refused(["fe80::1%eth7"], 3000, None, secure=False).startswith("fe80::1%eth7 is no address")
    assert bound == [("fe80::1", 3000, 0, 7)]


# Sockets that were given


def test_a_given_socket_is_named_and_its_file_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    tcp, unix, abstract, public = (
        socket.socket(family) for family in (socket.AF_INET, *[socket.AF_UNIX] * 2, socket.AF_INET)
    )
    tcp.bind(("127.0.0.1", 0))
    unix.bind(path)
    abstract.bind("\0chatroom-test-" + path)
    public.bind(("0.0.0.0", 0))
    found = [given_listener(sock, "web", secure=True) for sock in (tcp, unix, abstract, public)]
    assert [each.name for each in found] == [
        f"https://127.0.0.1:{port_of(found[0])}",
        f"unix:{path}",
        f"unix:@chatroom-test-{path}",
        f"https://0.0.0.0:{port_of(found[3])}",
    ]
    assert [each.local for each in found] == [True, True, True, False]
    assert all(each.given and not each.metrics and not each.socket.getblocking() for each in found)
    for listener in found:
        listener.close()
    assert os.path.lexists(path)


def test_a_given_socket_may_be_for_metrics() -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    with given_listener(sock, "metrics", secure=True).socket:
        listener = given_listener(sock, "metrics", secure=True)
        assert (listener.metrics, listener.name) == (True, f"http://127.0.0.1:{port_of(listener)}")


# A port for metrics


def test_metrics_may_have_a_port_of_their_own() -> None:
    local = find_addresses(["127.0.0.1"])
    chat, metrics = open_listeners(ListenPlan(local, 0, None, 0o666, local, 0), secure=True)
    assert (chat.metrics, chat.secure, metrics.metrics, metrics.secure) == (False, True, True, False)
    with pytest.raises(StartError, match="in use: stop what runs there, or choose another --metrics-port"):
        open_listeners(ListenPlan((), 0, None, 0o666, local, port_of(metrics)), secure=False)
    for listener in (chat, metrics):
        listener.close()


# Unix sockets


@pytest.mark.parametrize("mode", [0o666, 0o600, 0o660, 0o777])
def test_the_mode_of_a_unix_socket_is_what_is_asked_for_whatever_the_umask(mode: int, tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    before = os.umask(0o077)
    try:
        (listener,) = open_listeners(ListenPlan(unix=path, unix_mode=mode), secure=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    listener.close()


def test_a_unix_socket_is_opened_beside_the_others_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = str(tmp_path / "chat sock")
    with opened(unix=path) as (_, listener):
        assert (listener.name, listener.local, listener.secure) == (f"unix:{path}", True, False)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    assert not os.path.lexists(path)


def test_operators_have_a_socket_for_their_user_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "admin")
    before = os.umask(0)
    try:
        chat, admin = open_listeners(ListenPlan(unix=str(tmp_path / "chat"), admin=path), secure=True)
    finally:
        os.umask(before)
    assert (chat.admin, admin.admin, admin.secure, admin.name) == (False, True, False, f"unix:{path}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(StartError, match=f"^--admin-socket {path} is in use by a running server"):
        open_listeners(ListenPlan(admin=path), secure=False)
    chat.close()
    admin.close()
    assert not os.path.lexists(path)
    Path(path).touch()
    with pytest.raises(StartError, match=f"^--admin-socket {path} is a file that is no socket"):
        open_listeners(ListenPlan(admin=path), secure=False)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with opened(unix=path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(path)
        live.listen(1)
        assert refused([], 0, path, secure=False) == (
            f"--unix {path} is in use by a running server: stop it, or choose another path"
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    assert os.path.lexists(path)


def test_a_live_socket_that_is_busy_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as live, ExitStack() as stack:
        live.bind(path)
        live.listen(0)
        for _ in range(20):  # until its backlog is full
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(path) == errno.EAGAIN:
                break
        assert "is in use by a running server" in refused([], 0, path, secure=False)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_anything_else_is_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "target").write_text("precious")
        path.symlink_to(tmp_path / "target")
    assert "is a file that is no socket" in refused([], 0, str(path), secure=False)
    assert os.path.lexists(path)


def test_a_path_that_can_not_be_opened_is_told(tmp_path: Path) -> None:
    assert "No such file or directory" in refused([], 0, str(tmp_path / "no" / "sock"), secure=False)
    assert "too long" in refused([], 0, str(tmp_path / ("x" * 200)), secure=False)


def test_what_was_opened_before_is_closed_again(tmp_path: Path) -> None:
    with opened() as (listener,):
        port = port_of(listener)
    path = tmp_path / "sock"
    path.write_text("precious")
    refused(["127.0.0.1"], port, str(path), secure=False)
    with opened(port=port):
        pass


def test_the_file_of_another_server_is_left_to_it(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    (first,) = open_listeners(ListenPlan(unix=path), secure=False)
    os.unlink(path)
    (second,) = open_listeners(ListenPlan(unix=path), secure=False)
    first.close()
    assert os.path.lexists(path)
    second.close()
    assert not os.path.lexists(path)
    second.close()


def test_a_file_that_is_gone_already_is_no_trouble(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with opened([], unix=path):
        os.unlink(path)


# TLS


def test_a_certificate_and_its_key_are_loaded() -> None:
    context = load_tls(PEM, PEM)
    assert context.verify_mode == ssl.CERT_NONE


def encrypted(tmp_path: Path) -> str:
    path = tmp_path / "encrypted.pem"
    path.write_text(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
        "DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n"
        + "A" * 64
        + "\n-----END RSA PRIVATE KEY-----\n"
    )
    return str(path)


@pytest.mark.parametrize("what", ["missing", "empty", "folder", "nonsense", "key only", "encrypted"])
def test_what_can_not_be_used_is_told_in_one_line_that_names_the_files(what: str, tmp_path: Path) -> None:
    certificate, key = PEM, PEM
    other = tmp_path / "other.pem"
    match what:
        case "missing":
            key = str(tmp_path / "no.pem")
        case "empty":
            other.write_text("")
            certificate = str(other)
        case "folder":
            certificate = str(tmp_path)
        case "nonsense":
            other.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
            certificate = str(other)
        case "key only":
            other.write_text(Path(PEM).read_text().partition("-----BEGIN CERT")[0] or "x")
            certificate = str(other)
        case _:
            key = encrypted(tmp_path)
    with pytest.raises(StartError) as caught:
        load_tls(certificate, key)
    message = str(caught.value)
    assert "\n" not in message
    assert certificate in message
    assert key in message
    assert "give a PEM certificate chain and its unencrypted PEM key" in message
