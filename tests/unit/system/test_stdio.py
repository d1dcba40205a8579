"""The standard descriptors: closed, full, without a reader."""

import os
import signal
import subprocess
import sys

import pytest

from chatroom.system.stdio import print_error, print_out, stderr_muted, takes_colours
from tests.support.process import ROOT, clean_environment, heeding


def python(code: str, redirect: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run `code` under a shell that does something to its descriptors first."""
    command = f'exec "$0" -c "$1" {redirect}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, code], capture_output=True, check=False, timeout=60
    )


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    print_out("hello\n")
    assert capsys.readouterr() == ("hello\n", "")


def test_complain_is_one_line_that_names_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("a\nb\x1b" + "x" * 5000)
    err = capsys.readouterr().err
    assert err.startswith("chatroom: a\\u000ab\\u001bxxx")
    assert err.count("\n") == 1
    assert len(err) < 1100


@pytest.mark.parametrize(
    ("environ", "takes"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": ""}, False),
        ({}, False),
    ],
)
def test_which_terminals_take_colours(environ: dict[str, str], takes: bool) -> None:
    assert takes_colours(environ) is takes


def test_what_the_encoding_of_the_output_lacks_is_escaped() -> None:
    code = "from chatroom.system.stdio import print_out; assert print_out('r\\xe4um \\u2615\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment({"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}),
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == b"r\\xe4um \\u2615\n"


def test_streams_that_python_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    print_out("x")
    print_error("x")


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_an_output_that_fails_is_no_error_not_even_at_the_end(redirect: str) -> None:
    done = python("from chatroom.system.stdio import print_out; print_out('x'); print_out('y')", redirect)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "from chatroom.system.stdio import print_out; print_out('x'); print_out('y')"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-"])
def test_an_error_output_that_fails_is_no_error(redirect: str) -> None:
    done = python(
        "from chatroom.system.stdio import print_error, print_out; print_error('x'); print_out('y')", redirect
    )
    assert (done.returncode, done.stdout) == (0, b"y")


def test_closed_descriptors_are_filled() -> None:
    code = (
        "from chatroom.system.stdio import fill_standard_descriptors as fill; import os, sys; fill(); "
        "new = os.dup(0); sys.exit(new < 3 or os.readlink('/proc/self/fd/2') != os.devnull)"
    )
    assert python(code, "<&- 2>&-").returncode == 0


def test_open_descriptors_are_left_alone() -> None:
    code = (
        "from chatroom.system.stdio import fill_standard_descriptors as fill; import os; "
        "before = [os.fstat(n).st_ino for n in range(3)]; fill(); "
        "print(before == [os.fstat(n).st_ino for n in range(3)])"
    )
    assert python(code).stdout == b"True\n"


def test_what_is_written_unheard_is_lost_and_what_comes_after_is_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with stderr_muted():
        os.write(2, b"a long story")
    os.write(2, b"what matters")
    assert capfd.readouterr() == ("", "what matters")


# Streams of a command that may be interrupted

READ = (
    "from chatroom.system.stdio import read_lines, stopping_between_steps as s\n"
    "with s() as check:\n    print(list(read_lines(10, check)))"
)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a\nb\n\nc", [b"a", b"b", b"", b"c"]),
        (b"a\r\n\0\xff\n", [b"a\r", b"\0\xff"]),
        (b"x" * 100_000 + b"\na", [b"x" * 65_536]),
    ],
)
def test_lines_of_standard_input(content: bytes, lines: list[bytes]) -> None:
    done = subprocess.run([sys.executable, "-c", READ], input=content, capture_output=True, check=False)
    assert done.stdout.decode() == f"{lines}\n"


@pytest.mark.parametrize("what", ["reads", "writes"])
def test_a_stop_is_heeded_while_nothing_comes_or_goes(what: str) -> None:
    code = (
        "from chatroom.system import stdio, stdio as s\n"
        "with s.stopping_between_steps() as check:\n"
        "    s.print_error('ready')\n"
        + ("    list(s.read_lines(9, check))" if what == "reads" else "    s.write_out(bytes(10**6), check)")
    )
    with heeding(signal.SIGINT), subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == b"chatroom: ready\n"
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.stderr.read()
        process.kill()


STOPPED = """
import os, signal
from chatroom.system.stdio import raise_at_stops
for number in {ignored}:
    signal.signal(number, signal.SIG_IGN)
raise_at_stops()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    try:
        os.kill(os.getpid(), number)
        print("ignored")
    except KeyboardInterrupt:
        print("raised")
"""


@pytest.mark.parametrize(
    ("ignored", "raised"),
    [("[]", ["raised"] * 3), ("[2, 1]", ["raised", "ignored", "ignored"]), ("[15]", ["raised"] * 3)],
)
def test_stops_are_raised_but_what_is_ignored_stays_so(ignored: str, raised: list[str]) -> None:
    with heeding(signal.SIGINT, signal.SIGHUP):
        assert python(STOPPED.replace("{ignored}", ignored)).stdout.decode().split() == raised


def test_what_is_written_arrives() -> None:
    code = "from chatroom.system.stdio import write_out; assert write_out(b'xyz' * 10**6, lambda: None)"
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"xyz" * 10**6, b"")


def test_a_reader_of_much_that_goes_is_no_error_and_a_full_disk_is_one() -> None:
    code = "from chatroom.system.stdio import write_out; assert not write_out(b'xyz' * 10**6, lambda: None)"
    assert python(code, "| head -c 1").stderr == b""
    assert b"No space left" in python(code, "> /dev/full").stderr
