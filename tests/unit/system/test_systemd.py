"""The adapter for systemd: what it hears of its environment, and what goes out as datagrams."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chatroom.core.errors import StartError
from chatroom.system.systemd import NO_MANAGER, Notifier, given_sockets
from tests.support.manager import Manager
from tests.support.process import ROOT

OWN = str(os.getpid())


def test_a_server_that_nobody_has_given_anything_has_no_sockets() -> None:
    assert given_sockets({}) == []
    assert given_sockets({"LISTEN_FDS": "1"}) == []
    assert given_sockets({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + 1)}) == []
    assert given_sockets({"LISTEN_FDS": "0", "LISTEN_PID": OWN}) == []


@pytest.mark.parametrize("number", ["", "x", "-1", "1 ", "100", "65", "\n1", "1\x1b"])
def test_what_is_no_number_of_sockets_is_told(number: str) -> None:
    with pytest.raises(StartError, match="LISTEN_FDS"):
        given_sockets({"LISTEN_FDS": number, "LISTEN_PID": OWN})


GIVEN = """
import os, socket, sys
from chatroom.system.systemd import given_sockets
from chatroom.core.errors import StartError
match sys.argv[1]:
    case "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
    case "not listening":
        sock = socket.socket()
    case "datagrams":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    case "file":
        sock = open(os.devnull)
    case "nothing":
        sock = None
if sock is None:
    os.closerange(3, 6)
else:
    os.dup2(sock.fileno(), 3)
    os.dup2(sock.fileno(), 4)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "chat"}
try:
    found = given_sockets(environ)
    print([(sock.fileno(), name, sock.get_inheritable()) for sock, name in found])
except StartError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tcp", "[(3, 'chat', False), (4, '', False)]"),
        ("not listening", "descriptor 3 of LISTEN_FDS is no listening stream socket: "),
        ("datagrams", "descriptor 3 of LISTEN_FDS is no listening stream socket: "),
        ("file", "descriptor 3 of LISTEN_FDS is no socket (Socket operation on non-socket)"),
        ("nothing", "descriptor 3 of LISTEN_FDS is no socket (Bad file descriptor)"),
    ],
)
def test_descriptors_from_3_on_are_taken_if_they_listen(what: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVEN, what],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(said), done.stdout


@pytest.mark.parametrize("abstract", [False, True])
def test_what_happens_is_told_line_by_line(abstract: bool, tmp_path: Path) -> None:
    with Manager(tmp_path, abstract=abstract) as manager:
        notifier = Notifier(manager.environment())
        notifier.ready("Listening\non two lines")
        assert manager.hear("READY") == ["READY=1", "STATUS=Listening on two lines"]
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        first, second = manager.hear("RELOADING")
        assert first == "RELOADING=1"
        assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        notifier.stopping()
        assert manager.hear("STOPPING")[0] == "STOPPING=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_nobody_is_told_where_nobody_listens_by_datagrams(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}).ready("x")
    NO_MANAGER.stopping()
    assert caplog.records == []


def test_a_manager_that_can_not_be_told_is_logged_once_and_hinders_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready("x")
    notifier.stopping()
    assert [record.getMessage() for record in caplog.records] == ["notify_failed"]


def test_a_manager_that_does_not_read_hinders_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Manager(tmp_path) as manager:
        notifier = Notifier(manager.environment())
        for _ in range(10_000):
            notifier.ready("x" * 1000)
            if caplog.records:
                break
        assert [record.getMessage() for record in caplog.records] == ["notify_failed"]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": OWN}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({}, None),
    ],
)
def test_a_watchdog_counts_where_it_is_meant(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/x", **environ}).watchdog_seconds == seconds
    assert Notifier(environ).watchdog_seconds is None


async def test_the_watchdog_hears_twice_in_its_time_that_tasks_run(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with Manager(tmp_path) as manager:
        notifier = Notifier(manager.environment(WATCHDOG_USEC="30000000"))
        with trio.move_on_after(60):
            await notifier.watch()
        notifier.stopping()
        manager.hear("STOPPING")
        assert manager.heard[:-1] == ["WATCHDOG=1"] * 4


async def test_without_a_watchdog_nobody_waits(autojump_clock: MockClock) -> None:
    await NO_MANAGER.watch()
