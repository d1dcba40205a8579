"""The built server told to stop: refuse, take no more, show what was taken, tell everyone, be gone."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.client import Chat
from tests.support.process import clean_environment, python_command
from tests.support.raw import CLOSE, Raw, ask, command, frame, get, handshake, knock
from tests.support.scene import Scene, Served, await_true, check_stderr, gauges, snapshot

MOST = 10.0
OPTIONS = ("--rate", "0")


@pytest.fixture
def scene(pyz: Path) -> Iterator[Scene]:
    """A server that the test itself ends."""
    with Served(*OPTIONS) as server, Scene(server) as scene:
        yield scene
        scene.over = True
        assert server.process.poll() is not None
        check_stderr(server.stderr)


def stop(server: Served, number: int = signal.SIGTERM) -> float:
    """Give the signal; when it was given."""
    server.signal(number)
    return time.monotonic()


def drained(chat: Chat) -> list[str]:
    """The texts that come until the end, which must be 1012 and say why."""
    texts = []
    with suppress(ConnectionClosed):
        while True:
            found = chat.receive()
            assert found["event"] == "message", f"{found}: nobody is told of those who leave at the end"
            texts.append(found["data"]["text"])
    code, reason = chat.closing()
    assert code == 1012
    assert "restart" in reason
    return texts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everyone_is_told_why(scene: Scene, number: int) -> None:
    people = [scene.join(f"user{index}", f"{scene.room}-{index % 3}") for index in range(12)]
    for chat in people:
        chat.settle()
    begun = stop(scene.server, number)
    for chat in people:
        assert drained(chat) == []
    assert scene.server.wait() == 0
    assert time.monotonic() - begun < 5


@pytest.mark.usefixtures("measured")
def test_an_empty_server_stops_at_once(scene: Scene) -> None:
    scene.server.dismiss_bystanders()
    begun = stop(scene.server)
    assert scene.server.wait() == 0
    assert time.monotonic() - begun < 2
    events = [line for line in scene.server.stderr.splitlines() if '"stop"' in line or '"draining"' in line]
    assert len(events) == 2


def test_what_was_taken_is_shown_to_all(scene: Scene) -> None:
    """Each sender's echoes are its first so many messages, and the witness has exactly the same."""
    witness = scene.join("witness")
    raws = [scene.raw(f"sender{index}") for index in range(15)]
    for _ in raws:
        witness.expect("joined")
    for index, raw in enumerate(raws):
        raw.send(*(command("message", text=f"{index} {number}") for number in range(200)))
    with ThreadPoolExecutor(len(raws)) as pool:  # who doesn't read isn't waited for at a stop
        reading = [pool.submit(messages_until_closed, raw, f"{index} ") for index, raw in enumerate(raws)]
        stop(scene.server)
        seen = drained(witness)
        assert scene.server.wait() == 0
    for index, read in enumerate(reading):
        echoes = read.result()
        assert echoes == [f"{index} {number}" for number in range(len(echoes))]
        assert echoes == [text for text in seen if text.startswith(f"{index} ")]


def messages_until_closed(raw: Raw, prefix: str) -> list[str]:
    texts = []
    while (found := raw.read_frame()) is not None:
        opcode, payload = found
        if opcode == CLOSE:
            assert int.from_bytes(payload[:2], "big") == 1012
            return texts
        value = json.loads(payload)
        if value["event"] == "message" and value["data"]["text"].startswith(prefix):
            texts.append(value["data"]["text"])
    raise AssertionError("no close frame")


@pytest.mark.usefixtures("measured")
def test_during_a_drain(scene: Scene) -> None:
    """One who doesn't answer the close holds the drain; meanwhile the port answers, and lets nobody in."""
    server = scene.server
    raws = [scene.raw("stubborn"), scene.raw("half"), scene.visitor()]
    raws[1].send(frame(b"x" * 100)[:20])
    raws[2].send(handshake("/?token=dev-token")[:-2])
    kept = scene.visitor()
    begun = stop(server)
    assert raws[0].read_closing()[0] == 1012
    assert knock(server.port, "/?token=dev-token").status == 503
    answer = knock(server.port, "/nowhere?token=wrong&token=wrong")
    assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True)
    assert ask(server.port, "/?token=wrong").status == 503
    assert get(server.port, "/healthz").status == 200
    ready = get(server.port, "/readyz")
    assert (ready.status, "draining" in ready.text) == (503, True)
    assert get(server.port, "/").status == 200
    assert gauges(server)["chatroom_connections"] >= 1
    raws[2].send(b"\r\n")
    assert raws[2].read_answer().status == 503
    assert server.wait() == 0
    assert time.monotonic() - begun < MOST
    assert kept.read_end() == b""


def test_one_that_never_reads_holds_nothing(pyz: Path) -> None:
    with Served(*OPTIONS, "--drain", "1s") as server, Scene(server) as scene:
        speaker, listener = scene.pair()
        deaf = scene.raw("deaf", receive_buffer=4096)
        listener.expect("joined")
        speaker.expect("joined")

        def behind() -> bool:
            for _ in range(50):
                speaker.say("x" * 3900)
            speaker.texts(50)
            listener.texts(50)
            return snapshot(server)["chatroom_lagging_members"] > 0

        await_true(behind, "its socket is full", pause=0.06)
        begun = stop(server)
        assert drained(listener) == drained(speaker) == []
        assert server.wait() == 0
        assert time.monotonic() - begun < 5
        deaf.read_end()
        scene.over = True
        check_stderr(server.stderr)


@pytest.mark.usefixtures("measured")
def test_a_second_signal_ends_it_at_once(scene: Scene) -> None:
    stubborn = scene.raw("stubborn")
    begun = stop(scene.server)
    assert stubborn.read_closing()[0] == 1012
    await_true(lambda: time.monotonic() - begun > 0.6, "half a second has passed")
    scene.server.signal(signal.SIGTERM)
    assert scene.server.wait() == 1
    assert time.monotonic() - begun < 4


def test_two_signals_within_a_moment_are_one(scene: Scene) -> None:
    """As npm, honcho and terminals send them; everybody is told, as by one."""
    people = [scene.join(f"user{index}") for index in range(5)]
    for chat in people:
        chat.settle()
    stop(scene.server, signal.SIGINT)
    stop(scene.server, signal.SIGTERM)
    stop(scene.server, signal.SIGINT)
    for chat in people:
        assert drained(chat) == []
    assert scene.server.wait() == 0


# Before it listens


class Start:
    """A server that is held up in its start, while it reads its tokens."""

    def __init__(self, folder: Path, *command: str) -> None:
        fifo = folder / "tokens"
        os.mkfifo(fifo)
        arguments = ("--port", "0", "--db", "none", "--tokens", str(fifo))
        self.process = subprocess.Popen(
            [*command, *python_command(), *arguments],
            env=clean_environment(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._writer: int | None = None
        await_true(lambda: self._reads(fifo), "it reads its tokens")

    def _reads(self, fifo: Path) -> bool:
        with suppress(OSError):  # ENXIO: not yet
            self._writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer is not None

    def go_on(self) -> tuple[int, str, str]:
        """Let it have its tokens; its exit code and what it said."""
        assert self._writer is not None
        with suppress(BrokenPipeError):
            os.write(self._writer, b'[[token]]\ntoken = "s3cret"\n')
        os.close(self._writer)
        said, logged = self.process.communicate(timeout=20)
        return self.process.returncode, said, logged


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGHUP, signal.SIGTERM]])
def test_a_stop_before_it_listens_is_not_lost(numbers: list[int], pyz: Path, tmp_path: Path) -> None:
    start = Start(tmp_path)
    for number in numbers:
        start.process.send_signal(number)
    code, said, logged = start.go_on()
    assert (code, said) == (0, "")
    assert json.loads(logged)["event"] == "stop"


def test_a_second_signal_before_it_listens_ends_it(pyz: Path, tmp_path: Path) -> None:
    """One half a second after the first, by the clock of the process, which may lag on a busy machine."""
    start = Start(tmp_path)
    start.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        start.process.wait(0.6)
    for _ in range(20):
        start.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            start.process.wait(0.6)
            break
    assert start.go_on() == (1, "", "")


def test_a_hangup_before_it_listens_means_nothing(pyz: Path, tmp_path: Path) -> None:
    start = Start(tmp_path)
    start.process.send_signal(signal.SIGHUP)
    assert start.process.stdout is not None
    assert start._writer is not None
    os.write(start._writer, b'[[token]]\ntoken = "s3cret"\n')
    os.close(start._writer)
    assert start.process.stdout.readline().startswith("Listening on")
    start.process.send_signal(signal.SIGTERM)
    start.process.communicate(timeout=20)
    assert start.process.returncode == 0


def test_process_1_of_a_container_can_be_stopped_while_it_starts(pyz: Path, tmp_path: Path) -> None:
    """There a signal that nobody awaits is lost."""
    own_pids = ["unshare", "--pid", "--fork"]
    try:
        subprocess.run([*own_pids, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no process numbers of its own can be had here")
    start = Start(tmp_path, *own_pids)
    outer = start.process.pid
    (first,) = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    os.kill(int(first), signal.SIGHUP)
    os.kill(int(first), signal.SIGTERM)
    code, said, _ = start.go_on()
    assert (code, said) == (0, "")


def test_stops_in_the_middle_of_everything(pyz: Path) -> None:
    """Handshakes, floods and switches are under way whenever the signal comes."""
    for patience in (0.0, 0.01, 0.05):
        with Served(*OPTIONS) as server:
            raws = [Raw(server.port) for _ in range(30)]
            for index, raw in enumerate(raws):
                commands = [command("message", text="x"), command("switch_room", room=f"r{index % 4}")] * 30
                raw.send(handshake(f"/?token=dev-token&username=u{index}"), *commands)
            ends = time.monotonic() + patience
            await_true(lambda ends=ends: time.monotonic() >= ends, "time passes")
            begun = stop(server)
            for raw in raws:
                raw.half_close()
            for raw in raws:
                raw.read_end()
                raw.close()
            assert server.wait() == 0
            assert time.monotonic() - begun < MOST
            check_stderr(server.stderr)
