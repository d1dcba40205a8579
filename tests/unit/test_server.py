"""The whole server in this process, on real sockets: how it starts, serves, breaks and stops."""

import errno
import gc
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from chatroom import process, server
from chatroom.auth import keys
from chatroom.auth.tokens import TokenTable, Verifiers
from chatroom.config import parsers
from chatroom.config.settings import Settings, read_settings
from chatroom.connections.acceptor import PendingHandshakes
from chatroom.connections.timers import Timers
from chatroom.core.errors import StartError
from chatroom.core.messages import Draft
from chatroom.credentials import Reload, read_credentials
from chatroom.engines.memory import MemoryEngine
from chatroom.net.listeners import Listener
from chatroom.net.poller import EpollPoller
from chatroom.server import Server, serve
from chatroom.system.systemd import Notifier
from tests.support.engines import Committed, later
from tests.support.process import ROOT
from tests.support.raw import handshake

PEM = str(ROOT / "tests" / "support" / "localhost.pem")
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """What a server changes for its whole process is put back."""
    threshold, hangup = gc.get_threshold(), signal.getsignal(signal.SIGHUP)
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()
    signal.signal(signal.SIGHUP, hangup)


def settings(*arguments: str) -> Settings:
    found = read_settings(["--host", "127.0.0.1", "--port", "0", "--db", "none", *arguments], {})
    assert isinstance(found, Settings)
    return found


@dataclass
class Running:
    """A server at work. `code` is what it returned, `error` what it raised."""

    listeners: Sequence[Listener]
    code: int | None = None
    error: BaseException | None = None
    over: trio.Event = field(default_factory=trio.Event)

    @property
    def port(self) -> int:
        return int(self.listeners[0].socket.getsockname()[1])

    async def run(self, served: Server) -> None:
        try:
            with trio.open_signal_receiver(signal.SIGHUP) as hangups:
                async with process.stopping(lambda: False) as stop:
                    self.code = await served.run(self.listeners, hangups, stop)
        except* Exception as group:
            self.error = group
        finally:
            self.over.set()

    async def stop(self) -> int | None:
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            await self.over.wait()
        return self.code

    async def get(self, path: str) -> bytes:
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            async with stream:
                await stream.send_all(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                return b"".join([chunk async for chunk in stream])

    @asynccontextmanager
    async def client(self, username: str, room: str = "general") -> AsyncIterator[WebSocketConnection]:
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with talking_over(stream, username, room) as client:
            yield client


@asynccontextmanager
async def talking_over(
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], username: str, room: str
) -> AsyncIterator[WebSocketConnection]:
    query = f"/?token=token-alice&username={username}&room={room}"
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE):
                client = await wrap_client_stream(nursery, stream, "127.0.0.1", query)
            yield client
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    """A server of development tokens. It is stopped, if it hasn't been, by cancellation."""
    asked = settings(*arguments)
    listeners = server.listen(asked, [], secure=False)
    async with trio.open_nursery() as nursery:
        found = Running(listeners)
        nursery.start_soon(found.run, Server(asked, Verifiers([TokenTable.development()]), None))
        await trio.testing.wait_all_tasks_blocked()
        yield found
        nursery.cancel_scope.cancel()
    for listener in listeners:
        listener.close()


async def receive(client: WebSocketConnection) -> str:
    with trio.fail_after(PATIENCE):
        text = await client.get_message()
    assert isinstance(text, str)
    return text


async def closing(client: WebSocketConnection) -> tuple[int, str | None]:
    """Read until the server closes: its code and reason."""
    heard = await read_to_end(client)
    assert heard.reason is not None
    return heard.reason.code, heard.reason.reason


async def read_to_end(client: WebSocketConnection, into: list[str] | None = None) -> ConnectionClosed:
    while True:
        try:
            text = await receive(client)
        except ConnectionClosed as closed:
            return closed
        if into is not None:
            into.append(text)


@pytest.mark.parametrize(
    ("host", "node"),
    [("chat-1", "chat-1-77"), ("my machine\u00e9", "my-machine--77"), ("h" * 80, "h" * 61 + "-77")],
)
def test_a_node_is_named_after_its_machine_and_process(host: str, node: str) -> None:
    assert server.default_node(host, 77) == node == parsers.node(node)


async def test_it_says_where_it_listens_lets_people_talk_and_stops_when_told(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running() as found:
        assert capsys.readouterr().out == f"Listening on http://127.0.0.1:{found.port}\n"
        async with found.client("alice") as alice, found.client("bob") as bob:
            assert '"welcome"' in await receive(alice)
            assert '"welcome"' in await receive(bob)
            assert '"joined"' in await receive(alice)
            await bob.send_message('{"event":"message","data":{"text":"hi"}}')
            assert '"text":"hi"' in await receive(alice)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.stop)
                assert await closing(alice) == (1012, "server is restarting")
                assert '"text":"hi"' in await receive(bob)
                assert await closing(bob) == (1012, "server is restarting")
        assert found.code == 0
    names = [record.getMessage() for record in caplog.records if record.name == "chatroom"]
    assert names[0] == "start"
    assert names[-1] == "stop"
    assert "draining" in names
    assert "part_failed" not in names
    assert "connection_failed" not in names


async def test_a_stop_tells_of_no_departure() -> None:
    async with running() as found, found.client("alice") as alice, found.client("bob") as bob:
        await receive(alice)
        await receive(bob)
        await receive(alice)
        heard: list[str] = []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.stop)
            nursery.start_soon(read_to_end, alice, heard)
            assert (await closing(bob))[0] == 1012
        assert heard == []


async def test_while_it_stops_it_answers_http_and_refuses_handshakes() -> None:
    async with running("--drain", "5s") as found:
        # A client that doesn't answer the close frame holds up the stop for a moment.
        stream = await trio.open_tcp_stream("127.0.0.1", found.port)
        await stream.send_all(handshake("/?token=token-alice"))
        received = b""
        while b"welcome" not in received:
            received += await stream.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.stop)
            while b"restarting" not in received:
                received += await stream.receive_some()
            assert b" 503 " in await found.get("/readyz")
            assert b'"draining"' in await found.get("/readyz")
            assert b" 503 " in await found.get("/handshake?token=token-alice")
            assert b" 200 " in await found.get("/healthz")
            await stream.aclose()
        assert found.code == 0


async def test_metrics_count_what_is_there() -> None:
    async with running() as found:
        async with found.client("alice") as alice:
            await receive(alice)
            await alice.send_message('{"event":"message","data":{"text":"hi"}}')
            await receive(alice)
            metrics = (await found.get("/metrics")).decode()
            for line in (
                "chatroom_connections 1.0",
                "chatroom_rooms 1.0",
                "chatroom_presences 1.0",
                "chatroom_messages_total 1.0",
                "chatroom_deliveries_total 1.0",
                "chatroom_commit_seconds_count 1.0",
            ):
                assert f"\n{line}\n" in metrics
        assert b" 404 " in await found.get("/nowhere")


# Faults


class Fault(Exception):
    """Something that nobody expected."""


class FaultyEngine(MemoryEngine):
    """Fails at the text `crash` in a way that no port allows, and hangs at `hang`."""

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        texts = {draft.text for draft in drafts}
        if "crash" in texts:
            raise Fault
        if "hang" not in texts:
            super().append(drafts, committed)


def words(text: str) -> str:
    return f'{{"event":"message","data":{{"text":"{text}"}}}}'


async def test_a_broken_broker_ends_the_process_after_everybody_was_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "MemoryEngine", FaultyEngine)
    async with running() as found, found.client("alice") as alice, found.client("bob", "other") as bob:
        await receive(alice)
        await receive(bob)
        await alice.send_message(words("crash"))
        assert await closing(alice) == (1011, "internal error")
        assert await closing(bob) == (1011, "internal error")
        with trio.fail_after(PATIENCE):
            await found.over.wait()
        assert found.code is None
        assert found.error is not None
        assert found.error.subgroup(Fault) is not None  # type: ignore[attr-defined]
    (record,) = [each for each in caplog.records if each.getMessage() == "part_failed"]
    assert (record.fields["part"], record.fields["exception"]) == ("broker", "Fault")


class DyingEngine(MemoryEngine):
    """Serves until it is told to die, which no port allows."""

    dying: ClassVar[trio.Event]

    async def serve(
        self, _arrived: object, /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await self.dying.wait()
        raise Fault


async def test_a_broken_engine_ends_the_process_after_everybody_was_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    DyingEngine.dying = trio.Event()
    monkeypatch.setattr(server, "MemoryEngine", DyingEngine)
    async with running() as found, found.client("alice") as alice:
        await receive(alice)
        DyingEngine.dying.set()
        assert await closing(alice) == (1011, "internal error")
        with trio.fail_after(PATIENCE):
            await found.over.wait()
        assert found.error is not None
    (record,) = [each for each in caplog.records if each.getMessage() == "part_failed"]
    assert (record.fields["part"], record.fields["exception"]) == ("engine", "Fault")


@pytest.mark.parametrize(
    ("part", "owner", "method"),
    [
        ("arrivals", EpollPoller, "run"),
        ("keepalive", Timers, "run"),
        ("reload", Reload, "reload"),
        ("watchdog", Notifier, "watch"),
        ("listener", PendingHandshakes, "wait_not_full"),
        ("server", Server, "_stop"),
    ],
)
async def test_a_fault_in_any_part_ends_the_process_after_everybody_was_told(
    part: str, owner: type, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dying = trio.Event()

    async def die(self: object, *_: object) -> None:
        """Wait, or go on, until it is time."""
        if method in ("run", "watch"):
            await dying.wait()
        elif method == "wait_not_full" and not dying.is_set():
            return
        raise Fault

    monkeypatch.setattr(owner, method, die)
    async with running() as found, found.client("alice") as alice, found.client("bob", "other") as bob:
        await receive(alice)
        await receive(bob)
        dying.set()
        match part:
            case "reload":
                os.kill(os.getpid(), signal.SIGHUP)
            case "listener":
                (await trio.open_tcp_stream("127.0.0.1", found.port)).socket.close()
            case "server":
                os.kill(os.getpid(), signal.SIGTERM)
        assert await closing(alice) == (1011, "internal error")
        assert await closing(bob) == (1011, "internal error")
        with trio.fail_after(PATIENCE):
            await found.over.wait()
        assert found.code is None
        assert found.error is not None
        assert found.error.subgroup(Fault) is not None  # type: ignore[attr-defined]
    named = [each.fields["part"] for each in caplog.records if each.getMessage() == "part_failed"]
    assert part in named
    assert set(named) <= {part, "expiry"}, "both are timers"
    assert "connection_failed" not in caplog.messages


async def test_a_database_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    path.write_bytes(b"garbage")
    assert await why_not("--db", str(path)) == f"{path} is no database: choose another file by --db"


async def test_it_serves_with_a_database(tmp_path: Path) -> None:
    path = str(tmp_path / "chat.db")
    texts = []
    for turn in range(2):
        asked = settings("--db", path, "--retain", "90d,100")
        listeners = server.listen(asked, [], secure=False)
        async with trio.open_nursery() as nursery:
            found = Running(listeners)
            nursery.start_soon(found.run, Server(asked, Verifiers([TokenTable.development()]), None))
            async with found.client("alice") as alice:
                for _ in range(turn + 1):
                    await receive(alice)
                await alice.send_message(words(f"turn {turn}"))
                texts.append(await receive(alice))
                assert b'{"ready": true}' in await found.get("/readyz")
                nursery.start_soon(found.stop)
                assert (await closing(alice))[0] == 1012
        assert found.code == 0
        for listener in listeners:
            listener.close()
    assert ['"id":1,' in texts[0], '"id":2,' in texts[1]] == [True, True]


@pytest.mark.parametrize("durable", [True, False])
async def test_a_commit_that_does_not_finish_does_not_hold_up_a_stop_but_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, durable: bool
) -> None:
    """Where nothing outlives the process, nothing can be lost, and the stop is like any other."""
    monkeypatch.setattr(server, "MemoryEngine", FaultyEngine)
    monkeypatch.setattr(FaultyEngine, "durable", durable)
    monkeypatch.setattr(server, "SETTLE_SECONDS", 0.05)
    caplog.set_level(logging.INFO)
    async with running() as found, found.client("alice") as alice:
        await receive(alice)
        await alice.send_message(words("hang"))
        await alice.ping()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.stop)
            assert (await closing(alice))[0] == 1012
        assert found.code == (1 if durable else 0)
    assert ("not_settled" in caplog.messages) == durable
    assert ("stop" in caplog.messages) != durable


class LateEngine(MemoryEngine):
    """Commits when the settling has been given up, and well before the end."""

    durable = True

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        later(partial(trio.sleep, 0.3), partial(super().append, drafts, committed))


async def test_a_commit_that_is_late_but_in_time_for_the_end_is_no_loss(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under load, showing takes longer than settling may; what is committed by the end is not lost."""
    monkeypatch.setattr(server, "MemoryEngine", LateEngine)
    monkeypatch.setattr(server, "SETTLE_SECONDS", 0.01)
    async with running() as found, found.client("alice") as alice:
        await receive(alice)
        await alice.send_message(words("late"))
        await alice.ping()
        heard: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.stop)
            await read_to_end(alice, heard)
        assert found.code == 0
    assert "not_settled" not in caplog.messages
    assert '"late"' in heard[0]


class Doorway:
    """A listening socket that fails in its way, then has nobody."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.asked: list[float] = []

    async def accept(self) -> tuple[object, object]:
        await trio.lowlevel.checkpoint()
        self.asked.append(trio.current_time())
        if self.codes:
            raise OSError(self.codes.pop(0), "no")
        await trio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize(
    ("code", "pause"),
    [
        (errno.ECONNABORTED, 0.0),
        (errno.EPROTO, 0.0),
        (errno.EMFILE, 0.5),
        (errno.ENFILE, 0.5),
        (errno.ENOMEM, 0.5),
    ],
)
async def test_accepting_goes_on_whatever_fails(
    code: int,
    pause: float,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    doorway = Doorway(code, code)
    monkeypatch.setattr(trio.socket, "from_stdlib_socket", lambda _: doorway)
    (listener,) = server.listen(settings(), [], secure=False)
    async with trio.open_nursery() as nursery:
        served = Server(settings(), Verifiers([TokenTable.development()]), None)
        nursery.start_soon(served._accept, listener, nursery)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    listener.close()
    assert len(doorway.asked) == 3
    assert doorway.asked[2] - doorway.asked[0] == pytest.approx(2 * pause)
    logged = [record.fields["errno"] for record in caplog.records if record.getMessage() == "accept_failed"]
    assert logged == ([code, code] if pause else [])


# The start


async def start(*arguments: str) -> None:
    """Start a server that can't, or that is stopped as soon as it runs."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, settings(*arguments))
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)


def reasons(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in reasons(inner)]
    assert isinstance(error, StartError), repr(error)
    return [str(error)]


async def why_not(*arguments: str) -> str:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, settings(*arguments))
    (reason,) = reasons(caught.value)
    assert "\n" not in reason
    return reason


async def test_it_serves_its_settings_and_closes_what_it_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trio.Path(tmp_path / "sock")
    await start("--unix", str(path))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Listening on http://127.0.0.1:")
    assert second == f"Listening on unix:{path}"
    assert not await path.exists()


async def test_it_serves_by_tls(capsys: pytest.CaptureFixture[str]) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, settings("--tls-cert", PEM, "--tls-key", PEM))
        await trio.testing.wait_all_tasks_blocked()
        name = capsys.readouterr().out.strip().removeprefix("Listening on ")
        assert name.startswith("https://127.0.0.1:")
        port = int(name.rpartition(":")[2])
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context)
        async with talking_over(stream, "alice", "general") as client:
            assert '"welcome"' in await receive(client)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (await closing(client))[0] == 1012


async def test_a_token_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "tokens.toml")
    assert await why_not("--tokens", path) == (
        f"--tokens {path} can't be read (No such file or directory): give a TOML file"
    )
    assert PEM in await why_not("--tokens", PEM)
    assert await why_not("--tokens", "/dev/zero") == (
        "--tokens /dev/zero is larger than 16,384 KiB: give a TOML file"
    )


async def test_a_certificate_that_can_not_be_used_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.pem")
    assert missing in await why_not(
        "--tls-cert", missing, "--tls-key", missing, "--unix", str(tmp_path / "s")
    )
    assert not await trio.Path(tmp_path / "s").exists()


# Whose tokens count


SECRET = b"a secret of 32 bytes, or of more"
TOKENS = '[[token]]\ntoken = "own"\n'
LOCAL = Listener(socket.socket(), "http://127.0.0.1:1", local=True)
PUBLIC = Listener(socket.socket(), "http://0.0.0.0:1", local=False)
for each in (LOCAL, PUBLIC):
    each.socket.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a token file and a secret."""
    (tmp_path / "tokens").write_text(TOKENS)
    (tmp_path / "secret").write_bytes(SECRET)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "listeners", "known"),
    [
        ("", [LOCAL], {"dev-token"}),
        ("--tokens tokens", [LOCAL, PUBLIC], {"own"}),
        ("--jwt-secret-file secret", [LOCAL, PUBLIC], {"web"}),
        ("--tokens tokens --jwt-secret-file secret", [PUBLIC], {"own", "web"}),
        ("--insecure-dev-tokens", [PUBLIC], {"dev-token"}),
        ("--tokens tokens --insecure-dev-tokens", [PUBLIC], {"dev-token", "own"}),
        ("--jwt-secret-file secret --insecure-dev-tokens", [LOCAL], {"dev-token", "web"}),
    ],
)
def test_the_development_tokens_count_where_they_may(
    arguments: str,
    listeners: list[Listener],
    known: set[str],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    asked = settings(*arguments.split())
    server.check_development_tokens(asked, listeners)
    verifier = Verifiers(read_credentials(asked, None).verifiers)
    web = keys.sign(SECRET, {"sub": "alice", "exp": int(time.time()) + 60})
    tokens = {"own": "own", "dev-token": "dev-token", "web": web, "wrong": "wrong"}
    assert {name for name, token in tokens.items() if verifier.verify(token)} == known


def test_development_tokens_are_refused_where_others_could_come_in() -> None:
    with pytest.raises(
        StartError, match=r"anyone could come in at http://0.0.0.0:1 with a development token"
    ):
        server.check_development_tokens(settings(), [LOCAL, PUBLIC])
