"""The screen that only prints lines, at pipes, files and a terminal."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from chatroom.client.plainscreen import LONGEST, MOST_UNREAD
from tests.support.process import ROOT, clean_environment
from tests.support.terminal import Terminal

COMMAND = [sys.executable, "-m", "tests.support.at_screen", "plain"]


def run(typed: bytes | IO[Any], *, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[bytes]":
    given: dict[str, Any] = {"input": typed} if isinstance(typed, bytes) else {"stdin": typed}
    return subprocess.run(
        COMMAND, cwd=ROOT, env=clean_environment(env), capture_output=True, timeout=30, check=False, **given
    )


def said(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in ("hello", *lines)).encode()


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["said 'one'", "said 'two'"]),
        (b"one\r\ntwo", ["said 'one'", "said 'two'"]),
        (b"\n", ["said ''"]),
        ("日本".encode(), [f"said {'日本'!a}"]),
        (b"\xff\xe6\n", ["said '\\ufffd\\ufffd'"]),
        (b"cut \xe6", ["said 'cut \\ufffd'"]),
    ],
)
def test_each_line_is_one(typed: bytes, lines: list[str]) -> None:
    done = run(typed)
    assert (done.stdout, done.stderr, done.returncode) == (said(*lines), b"", 0)


def test_a_line_has_an_end() -> None:
    done = run(b"x" * (3 * LONGEST))
    assert len(done.stdout.splitlines()) > 2
    assert done.stdout.count(b"x") == 3 * LONGEST


def test_a_file_and_the_null_device_are_read_to_their_end(tmp_path: Path) -> None:
    path = tmp_path / "typed"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        assert run(file).stdout == said("said 'one'", "said 'two'")
    with Path(os.devnull).open() as null:
        assert run(null).stdout == said()


def test_many_lines_are_taken_in_order() -> None:
    numbers = [str(number) for number in range(5000)]
    assert run("\n".join(numbers).encode()).stdout == said(*(f"said '{number}'" for number in numbers))


def test_what_nobody_reads_does_not_pile_up() -> None:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(12):
            process.stdin.write(b"x" * (MOST_UNREAD // 4) + b"\n")
        process.stdin.close()
        assert process.stdout.readline() == b"hello\n"
        lines = process.stdout.read().decode().splitlines()
    found = [
        re.fullmatch(r"\* ([0-9]+) lines are left out here: nobody read the output", each) for each in lines
    ]
    left_out = sum(int(each[1]) for each in found if each is not None)
    assert left_out > 3
    assert left_out + found.count(None) == 12


def test_a_reader_that_takes_nothing_does_not_keep_it() -> None:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x" * 1_000_000 + b"\n")  # more than a pipe takes
        process.stdin.close()
        assert process.wait(30) == 0
        assert process.stdout.read().startswith(b"hello\n")


def test_a_closed_output_ends_it() -> None:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.stdout.close()
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.wait(30) == 0


def test_a_full_disk_ends_it_and_is_told() -> None:
    with (
        Path("/dev/full").open("wb") as full,
        subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=full,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stderr is not None
        assert process.wait(30) == 1
        assert process.stderr.read().endswith(b"Unwritable: No space left on device\n")


def test_what_was_shown_before_an_error_is_printed() -> None:
    done = run(b"!raw x\n!fail\n")
    assert (done.stdout, done.returncode) == (said("x"), 1)
    assert b"RuntimeError: it failed" in done.stderr


def test_waiting_for_a_line_can_be_given_up() -> None:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == b"told to stop\n"


def test_what_the_output_has_no_letters_for_is_written_in_others() -> None:
    done = run("!status x\n!raw 日\n".encode(), env={"PYTHONIOENCODING": "ascii"})
    assert done.stdout == said("\\u65e5")


def test_at_a_terminal_the_line_is_the_terminals_own() -> None:
    with Terminal(COMMAND, cwd=str(ROOT), env={"TERM": "dumb"}) as terminal:
        terminal.wait_for("hello")
        terminal.press("one\x7fe\n")
        terminal.wait_for("said 'one'")
        terminal.press("\x04")
        assert terminal.wait() == 0
        assert b"\x1b" not in terminal.written
        assert terminal.is_as_before()
