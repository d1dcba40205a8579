"""Real sockets at one port: one of them leaves, and nobody is reset."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from chatroom.net.listeners import RESEND_SECONDS, drop_new_connections, share_port, stop_dropping


@contextmanager
def listening(port: int = 0) -> Iterator[socket.socket]:
    with socket.socket() as sock:
        share_port(sock)
        sock.bind(("127.0.0.1", port))
        sock.listen(1024)
        sock.setblocking(False)
        yield sock


def empty(sock: socket.socket, greeting: bytes) -> int:
    """Serve all who wait."""
    count = 0
    while True:
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            return count
        with client:
            stop_dropping(client)
            client.sendall(greeting)
        count += 1


def visit(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        return client.recv(10)


def test_who_comes_while_one_of_two_leaves_is_served_by_the_other() -> None:
    greetings: list[bytes | str] = []
    over = threading.Event()

    def come_and_come(port: int) -> None:
        while not over.is_set():
            try:
                greetings.append(visit(port))
            except OSError as error:
                greetings.append(str(error))

    with listening() as stays, ExitStack() as stack:
        port = stays.getsockname()[1]
        crowd = [threading.Thread(target=come_and_come, args=(port,)) for _ in range(8)]
        for thread in crowd:
            thread.start()
        stack.callback(lambda: [thread.join(20) for thread in crowd])
        stack.callback(over.set)

        def serve(seconds: float, leaving: socket.socket | None = None) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                empty(stays, b"stays")
                if leaving is not None:
                    empty(leaving, b"leaves")
                time.sleep(0.001)

        for _ in range(5):
            with listening(port) as leaves:
                serve(0.2, leaves)
                drop_new_connections(leaves)
                serve(0.1, leaves)
                empty(leaves, b"leaves")
                time.sleep(0.1)  # so long nobody comes who would be reset now
            serve(0.1)
        over.set()
        serve(RESEND_SECONDS + 1)
    assert set(greetings) == {b"stays", b"leaves"}


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_leaves_lets_nobody_new_come(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no ::1")
        sock.listen()
        with socket.create_connection(sock.getsockname()[:2], timeout=20):
            drop_new_connections(sock)
        with pytest.raises(TimeoutError):
            socket.create_connection(sock.getsockname()[:2], timeout=0.3)


def test_what_is_accepted_by_who_leaves_works_both_ways() -> None:
    with listening() as sock, socket.create_connection(sock.getsockname()) as client:
        drop_new_connections(sock)
        server, _ = sock.accept()
        stop_dropping(server)
        with server:
            client.sendall(b"there")
            assert server.recv(10) == b"there"
            server.sendall(b"back" * 100_000)
            server.shutdown(socket.SHUT_WR)
            assert len(b"".join(iter(lambda: client.recv(65536), b""))) == 400_000


def test_a_socket_that_takes_no_least_ttl_is_left_as_it_is() -> None:
    with socket.socket() as sock:
        sock.close()
        drop_new_connections(sock)


def test_nobody_shares_the_port_of_one_that_does_not() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as alone,
        pytest.raises(OSError, match="in use"),
        listening(alone.getsockname()[1]),
    ):
        pass
