"""Commands of the built file that are asked to stop before they have begun, or when all is done but told."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import Command, Done, environment, run
from tests.support.process import ServerProcess, full_pipe, heeding, python_command
from tests.support.scene import await_true

NOWHERE = "ws://127.0.0.1:1"
NOTHING_SAID = Done(75, "", "chatroom: it was interrupted: nothing was said\n")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(scope="module", autouse=True)
def _unpacked(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A start that waits for another one to unpack the file is ended by a stop as by a signal."""
    for name in ("say", "tail", "join"):
        assert run(tmp_path_factory.mktemp("help"), name, "--help").code == 0


def blocks(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a signal wait, as the built file does while it imports what it runs."""
    [mask] = [
        line.split()[1]
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("SigBlk")
    ]
    return bool(int(mask, 16) & 1 << number - 1)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("name", "done"), [("say", NOTHING_SAID), ("tail", Done(0, "", "")), ("join", Done(0, "", ""))]
)
def test_a_stop_that_comes_while_it_starts_is_taken(
    pyz: Path, tmp_path: Path, name: str, done: Done, number: signal.Signals
) -> None:
    with heeding(signal.SIGINT, signal.SIGHUP), Command(tmp_path, name, NOWHERE) as command:
        await_true(lambda: blocks(command.process.pid, number), "it imports", pause=0.001)
        command.process.send_signal(number)
        assert command.end() == done


@pytest.mark.parametrize("number", SIGNALS)
def test_say_that_is_stopped_while_it_reads_has_said_nothing(
    pyz: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with heeding(signal.SIGINT, signal.SIGHUP), Command(tmp_path, "say", NOWHERE) as say:
        await_true(lambda: asleep(say.process.pid, "pipe_read"), "it reads")
        say.process.send_signal(number)
        assert say.end() == NOTHING_SAID


def asleep(pid: int, where: str) -> bool:
    """Whether a process waits in the kernel's function `where`."""
    return where in Path(f"/proc/{pid}/wchan").read_text()


def test_say_that_is_stopped_while_it_tells_that_it_is_stored_can_be_tried_again(
    pyz: Path, tmp_path: Path
) -> None:
    database = str(tmp_path / "chat.db")
    with full_pipe() as full, ServerProcess("--db", database) as server, heeding(signal.SIGINT):
        command = [*python_command(), "say", server.ws_url, "--username", "ci"]
        with subprocess.Popen(
            command, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE
        ) as say:
            assert say.stdin is not None
            assert say.stderr is not None
            say.stdin.write(b"hello")
            say.stdin.close()
            await_true(lambda: asleep(say.pid, "pipe_write"), "it tells")
            say.send_signal(signal.SIGINT)
            assert say.wait(30) == 75
            line = b"chatroom: it was interrupted. The same command again stores nothing twice\n"
            assert say.stderr.read() == line
        assert run(tmp_path, *command[2:], given="hello") == (0, "stored as 1 in general\n", "")
