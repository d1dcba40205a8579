"""From arguments to exit codes: what is printed where, and never a traceback."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from chatroom import __version__
from chatroom.cli import main
from chatroom.config.settings import Settings
from chatroom.core.errors import StartError
from chatroom.core.logevents import log_event

Captured = pytest.CaptureFixture[str]


def raising(error: BaseException) -> Callable[[Settings], int]:
    def run(_: Settings) -> int:
        raise error

    return run


def unused(_: Settings) -> int:
    raise AssertionError("must not serve")


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("command", [[], ["serve"]])
def test_what_the_server_returns_is_the_exit_code(command: list[str], code: int, capfd: Captured) -> None:
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return code

    assert main([*command, "--port", "0"], {"CHATROOM_RATE": "7"}, run=run) == code
    assert (seen[0].port, seen[0].limits.message_rate) == (0, 7)
    assert capfd.readouterr() == ("", "")


def test_arguments_and_environment_of_the_process_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["chat.pyz", "--port", "4"])
    monkeypatch.setenv("CHATROOM_BURST", "5")
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 0

    assert main(run=run) == 0
    assert (seen[0].port, seen[0].limits.message_burst) == (4, 5)


WRITE = (
    "write serve, admin, backup, copy, export, import, token, join, tail, say or nothing, then the options\n"
)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "x"], "chatroom: --port: 'x' is not a whole number from 0 to 65535\n"),
        (["serve", "--port"], "chatroom: --port: needs a value; --help lists the options\n"),
        (
            ["tokens"],
            f"chatroom: unknown command 'tokens'; {WRITE}",
        ),
        (
            ["back\np"],
            f"chatroom: unknown command 'back\\np'; {WRITE}",
        ),
        (["serve", "serve"], "chatroom: unexpected argument 'serve'; --help lists the options\n"),
        (
            ["redis://:s3cret@h"],
            f"chatroom: unknown command; {WRITE}",
        ),
        (
            [""],
            f"chatroom: unknown command ''; {WRITE}",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], line: str, capfd: Captured) -> None:
    assert main(arguments, {}, run=unused) == 2
    assert capfd.readouterr() == ("", line)


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "-h"]])
def test_help(arguments: list[str], capfd: Captured) -> None:
    assert main(arguments, {"CHATROOM_PORT": "x"}, run=unused) == 0
    out, err = capfd.readouterr()
    assert out.startswith("usage: ./chat.pyz [serve] [options]")
    assert err == ""


def test_version(capfd: Captured) -> None:
    assert main(["--version"], {}, run=unused) == 0
    assert capfd.readouterr() == (f"chatroom {__version__}\n", "")


@pytest.mark.parametrize(
    "error",
    [
        StartError("port 3000 is\nin use"),
        ExceptionGroup("x", [ExceptionGroup("y", [StartError("port 3000 is\nin use")])]),
        ExceptionGroup("x", [StartError("port 3000 is\nin use"), StartError("other")]),
    ],
)
def test_a_server_that_cannot_start_says_one_line(error: Exception, capfd: Captured) -> None:
    assert main([], {}, run=raising(error)) == 2
    assert capfd.readouterr() == ("", "chatroom: port 3000 is\\u000ain use\n")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("x", [ValueError(), KeyboardInterrupt()])]
)
def test_an_interrupt_that_nobody_took_ends_with_1(error: BaseException, capfd: Captured) -> None:
    assert main([], {}, run=raising(error)) == 1
    assert capfd.readouterr() == ("", "")


SECRET = "s3" + "cret"


def crashed() -> Exception:
    try:
        int(SECRET)
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        crashed(),
        ExceptionGroup("x", [StartError("no"), crashed()]),
        BaseExceptionGroup("x", [ExceptionGroup("y", [crashed()])]),
    ],
)
@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_crash_is_one_event(error: BaseException, level: str, capfd: Captured) -> None:
    assert main(["--log-level", level, "--log-format", "json"], {}, run=raising(error)) == 1
    out, err = capfd.readouterr()
    assert out == ""
    entry = json.loads(err)
    assert (entry["level"], entry["event"], entry["exception"]) == ("error", "crash", "ValueError")
    assert ":" in entry["location"]
    assert ("traceback" in entry) == (level == "debug")
    assert SECRET not in err


def test_the_log_is_complete_before_the_last_line(capfd: Captured) -> None:
    def run(_: Settings) -> int:
        for number in range(500):
            log_event(logging.WARNING, "x", number=number)
        raise StartError("the end")

    assert main([], {}, run=run) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 501
    assert lines[-1] == "chatroom: the end"


def python(*arguments: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, **more)  # type: ignore[call-overload, no-any-return]


def test_the_module_runs() -> None:
    done = python("-m", "chatroom", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"chatroom {__version__}\n".encode(), b"")
    done = python("-m", "chatroom", "--port", "x")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)


def test_bytes_that_are_no_text_are_refused_in_one_line() -> None:
    done = python("-m", "chatroom", os.fsdecode(b"\xff\n"))
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    done = python("-m", "chatroom", env={**os.environ, "CHATROOM_PORT": os.fsdecode(b"\xff\n")})
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_help_and_version_do_not_import_what_serves() -> None:
    code = (
        "import sys; from chatroom.cli import main; main(['--version']); main(['--help']); "
        "sys.exit(bool({'trio', 'prometheus_client', 'chatroom.server'} & set(sys.modules)))"
    )
    assert python("-c", code).returncode == 0


def test_help_into_a_closed_pipe_is_harmless() -> None:
    command = ["sh", "-c", '"$0" -m chatroom --help | true', sys.executable]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.stderr == b""


def test_a_process_without_any_standard_descriptor_runs() -> None:
    code = (
        "import os, sys; from chatroom.cli import main; os.closerange(0, 3); "
        "sys.exit(main([], {}, run=lambda _: 7 if os.readlink('/proc/self/fd/2') == os.devnull else 8))"
    )
    assert python("-c", code).returncode == 7
