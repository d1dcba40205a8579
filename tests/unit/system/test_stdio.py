"""The standard descriptors: closed, full, without a reader."""

import os
import subprocess
import sys

import pytest

from chatroom.system.stdio import print_error, print_out, stderr_muted


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
