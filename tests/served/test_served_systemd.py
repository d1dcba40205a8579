"""The built server under a stand-in for systemd, and the unit files in docs/."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chatroom.config.settings import Settings, read_settings
from tests.support.client import Chat, target
from tests.support.manager import Activated, Manager
from tests.support.pages import ROOT, blocks
from tests.support.process import PYZ, clean_environment
from tests.support.proxies import executable
from tests.support.raw import Raw, exchange, get, handshake, head
from tests.support.scene import Served, await_true, check_clean

UNITS = (ROOT / "docs" / "chatroom.service", ROOT / "docs" / "chatroom.socket")
HOST = ("Host", "localhost")
MANY = ("--db", "none", "--max-per-user", "10000")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path) as manager:
        yield manager


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket as systemd would hold it."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        yield sock


# What it is told


@pytest.mark.usefixtures("measured")
def test_systemd_is_told_when_the_server_is_ready_reloads_and_stops(
    pyz: Path, manager: Manager, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[[token]]\ntoken = "s3cret"\n')
    with Served("--tokens", str(tokens), env=manager.environment()) as server:
        addresses = manager.hear("READY=1")[1].removeprefix("STATUS=Listening on ").split()
        assert addresses == server.await_listening(len(addresses)) != []
        assert exchange(server.port, head("GET /readyz HTTP/1.1", HOST)).status == 200
        for text, status in (
            ('[[token]]\ntoken = "other"\n', "Reloaded"),
            ("[[", "Reload failed, everything"),
        ):
            tokens.write_text(text)
            before = time.monotonic_ns() // 1000
            server.signal(signal.SIGHUP)
            said = manager.hear("RELOADING=1")
            assert before <= int(said[1].removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
            assert manager.hear("READY=1")[1].startswith(f"STATUS={status}")
        assert server.stop() == 0
        manager.hear("STOPPING=1")
        assert "other" not in " ".join(manager.heard)


def test_a_watchdog_hears_that_tasks_run(pyz: Path, manager: Manager) -> None:
    with Served(env=manager.environment(WATCHDOG_USEC="200000")) as server:
        manager.hear("READY=1")
        for _ in range(5):
            assert manager.hear("WATCHDOG=1") == ["WATCHDOG=1"]
        server.signal(signal.SIGSTOP)
        server.signal(signal.SIGCONT)
        manager.hear("WATCHDOG=1")
        assert server.stop() == 0


def test_a_manager_that_is_gone_hinders_nothing(pyz: Path, tmp_path: Path) -> None:
    with Served(env=clean_environment({"NOTIFY_SOCKET": str(tmp_path / "gone")})) as server:
        await_true(lambda: '"notify_failed"' in server.stderr, "it is logged")
        check_clean(server)
        assert server.stop() == 0


# Sockets that it is given


def test_a_given_socket_is_served_instead_of_host_and_port(pyz: Path, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    with Activated([(listening, "chat")], "--host", "192.0.2.1") as server:
        assert server.lines == [f"Listening on http://127.0.0.1:{port}"]
        chat = Chat(server.ws_url + target("den", "alice"))
        chat.say("hello")
        assert chat.texts(1) == ["hello"]
        chat.close()
        check_clean(server)
        assert server.stop() == 0
    assert listening.getsockname()[1] == port, "it is still there"


def test_several_given_sockets_and_one_for_metrics(
    pyz: Path, listening: socket.socket, tmp_path: Path
) -> None:
    path = str(tmp_path / "chat.sock")
    with (
        socket.create_server(path, family=socket.AF_UNIX) as unix,
        socket.create_server(("127.0.0.1", 0)) as metrics,
        Activated([(listening, "chat"), (unix, "chat"), (metrics, "metrics")]) as server,
    ):
        ports = [sock.getsockname()[1] for sock in (listening, metrics)]
        await_true(lambda: len(server.lines) == 3, "all are named")
        assert server.lines == [
            f"Listening on http://127.0.0.1:{ports[0]}",
            f"Listening on unix:{path}",
            f"Metrics on http://127.0.0.1:{ports[1]}",
        ]
        assert get(ports[1], "/metrics").status == 200
        assert get(ports[1], "/").status == get(ports[0], "/metrics").status == 404
        chat = Chat("ws://localhost" + target("den", "alice"), path=path)
        chat.say("hello")
        assert chat.texts(1) == ["hello"]
        chat.close()
        assert server.stop() == 0
        assert os.path.exists(path), "the file is systemd's"


def test_sockets_of_another_process_are_none_of_ours(pyz: Path) -> None:
    with Served(env=clean_environment({"LISTEN_PID": "1", "LISTEN_FDS": "1"})) as server:
        assert server.port
        assert server.stop() == 0


def test_a_public_given_socket_and_development_tokens(pyz: Path) -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as sock,
        pytest.raises(AssertionError, match="development token"),
    ):
        Activated([(sock, "chat")]).start()


def await_more(statuses: list[int]) -> None:
    seen = len(statuses)
    await_true(lambda: len(statuses) > seen + 20, "people come")


@pytest.mark.usefixtures("measured")
def test_a_restart_refuses_nobody(pyz: Path, listening: socket.socket) -> None:
    """People come all the time while one server stops and another one starts on the same socket."""
    port = listening.getsockname()[1]
    over = threading.Event()
    statuses: list[int] = []

    def come_and_come() -> None:
        while not over.is_set():
            raw = Raw(port)
            raw.send(handshake("/?token=dev-token"))
            statuses.append(raw.read_answer(bodiless=True).status)
            raw.close()

    crowd = [threading.Thread(target=come_and_come) for _ in range(4)]
    with ExitStack() as stack:
        stack.callback(over.set)
        server = stack.enter_context(Activated([(listening, "chat")], *MANY))
        stays = Chat(server.ws_url + target("den", "alice"))
        for thread in crowd:
            thread.start()
        for _ in range(3):
            await_more(statuses)
            server.signal(signal.SIGTERM)
            assert stays.closing()[0] == 1012
            assert server.wait() == 0
            server = stack.enter_context(Activated([(listening, "chat")], *MANY))
            stays = Chat(server.ws_url + target("den", "alice"))
        await_more(statuses)
        over.set()
        for thread in crowd:
            thread.join(20)
        assert set(statuses) == {101}
        check_clean(server)
        assert server.stop() == 0


# The unit files


def test_the_units_on_the_page_are_the_files() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert blocks(page, "ini") == [path.read_text() for path in UNITS]


def command() -> list[str]:
    (line,) = re.findall(r"^ExecStart=/usr/local/bin/chat\.pyz (.+)$", UNITS[0].read_text(), re.MULTILINE)
    return str(line).split()


def test_the_command_of_the_unit_is_understood_and_reads_the_operators_own_file() -> None:
    settings = read_settings(command(), {})
    assert isinstance(settings, Settings)
    assert settings.tokens == "/etc/chatroom/tokens.toml"
    text = UNITS[0].read_text()
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text
    assert "Credential" not in text


def test_the_variant_with_credentials_can_not_be_reloaded() -> None:
    """A reload would read the copy that was made at the start."""
    page = (ROOT / "docs" / "operations.md").read_text()
    variant, admin = re.findall(r"^  ```ini\n(.*?)^  ```$", page, re.MULTILINE | re.DOTALL)
    assert "RuntimeDirectory=chatroom\n" in admin
    assert "LoadCredential=" in variant
    assert re.search(r"^  ExecReload=$", variant, re.MULTILINE)
    (line,) = re.findall(r"^  ExecStart=/usr/local/bin/chat\.pyz (.+)$", variant, re.MULTILINE)
    own = [part.replace("/etc/chatroom/tokens.toml", "${CREDENTIALS_DIRECTORY}/tokens") for part in command()]
    assert line.split() == own


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    found = executable("systemd-analyze")
    return subprocess.run(
        [found, "--no-pager", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_understands_the_units_without_a_word(pyz: Path, tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/usr/local/bin/chat.pyz", str(PYZ))
        (tmp_path / unit.name).write_text(text)
    done = analyze("verify", "--man=no", *(tmp_path / unit.name for unit in UNITS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_little_that_the_service_could_be_denied() -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", UNITS[0])
    assert done.returncode == 0, done.stdout
    assert re.search(r"exposure level for chatroom.service: [01]\.\d OK", done.stdout), done.stdout


def test_the_unit_works_with_what_it_sets(
    pyz: Path, listening: socket.socket, manager: Manager, tmp_path: Path
) -> None:
    """Its command and its environment, with folders of this machine; a reload takes a token away."""
    if shutil.which("kill") is None:
        pytest.skip("there is no kill program")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[[token]]\ntoken = "old"\n[[token]]\ntoken = "kept"\n')
    arguments = [part.replace("/etc/chatroom/tokens.toml", str(tokens)) for part in command()]
    folders = {"SHIV_ROOT": str(tmp_path / "cache"), "HOME": "/nonexistent"}
    env = manager.environment(WATCHDOG_USEC="30000000", **folders)
    with Activated([(listening, "chatroom.socket")], *arguments, env=env) as server:
        manager.hear("READY=1")
        chats = {token: Chat(server.ws_url + target("den", "alice", token)) for token in ("old", "kept")}
        tokens.write_text('[[token]]\ntoken = "kept"\n')
        subprocess.run(["kill", "-HUP", str(server.pid)], check=True)
        manager.hear("RELOADING=1")
        manager.hear("READY=1")
        assert chats["old"].closing()[0] == 4503
        chats["kept"].say("still here")
        assert exchange(server.port, handshake("/?token=old")).status == 401
        await_true(lambda: '"event": "reloaded"' in server.stderr, "the log tells of it")
        chats["kept"].vanish()
        assert server.stop() == 0
