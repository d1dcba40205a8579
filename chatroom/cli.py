"""The command line: from the arguments to an exit code.

    0   stopped as asked (SIGTERM, SIGINT), or printed --help or --version, or did what a command says
    1   ended by force (a second signal), or by an error of our own: one `crash` in the log, or one line
    2   can't start as asked: one line on standard error says what to do

`admin`, `join`, `tail` and `say` have exit codes of their own beside these; see there. So a stop that comes
before one of the last three has begun means what it says: nothing has gone wrong, or that nothing was said.

Owns the commands and the exit codes. Rules:

1. No traceback is shown, except in the log at `--log-level debug`.
2. The server's modules are imported only when a server starts, so that `--help` and `--version` are quick.

It doesn't know the options of a command.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from chatroom.config.options import quoted
from chatroom.core.errors import StartError
from chatroom.core.logevents import frames, log_event, logger, whereabouts
from chatroom.logs import logging_to
from chatroom.system.stdio import (
    catch_signals,
    fill_standard_descriptors,
    print_error,
    print_out,
    raise_at_stops,
    unblock_signals,
)

if TYPE_CHECKING:
    from chatroom.config.settings import Settings

STANDARD_ERROR = 2
CLIENTS = ("join", "tail", "say")
COMMANDS = ("serve", "admin", "backup", "copy", "export", "import", "token", *CLIENTS)


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    run: "Callable[[Settings], int] | None" = None,
) -> int:
    """Run the command line and return the exit code. `run` serves until a stop is asked for."""
    fill_standard_descriptors()
    environ = os.environ if environ is None else environ
    command = "serve"
    try:
        command, options = _command(sys.argv[1:] if argv is None else argv)
        if command != "serve":
            return _finish(lambda: _run_command(command, options, environ), _print_crash)
        from chatroom.config.settings import read_settings  # noqa: PLC0415  (the other commands have their own)

        asked = read_settings(options, environ)
        if isinstance(asked, str):
            unblock_signals()
            print_out(asked)
            return 0
        asked_to_stop = catch_signals()
        with logging_to(STANDARD_ERROR, asked.log_level, asked.log_format):
            serve = run or partial(_run, asked_to_stop=asked_to_stop)
            return _finish(lambda: serve(asked), _log_crash)
    except StartError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        return _interrupted(command)


def _command(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of the command, which may be left out, and the options behind it. Raises StartError."""
    if not arguments or arguments[0].startswith("-"):
        return "serve", arguments
    if arguments[0] not in COMMANDS:
        raise StartError(
            f"unknown command{quoted(arguments[0])}; write {', '.join(COMMANDS)} or nothing, then the options"
        )
    return arguments[0], arguments[1:]


def _run_command(command: str, options: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command that doesn't serve, and return the exit code. Raises StartError and KeyboardInterrupt."""
    run = _imported(command)
    if command in CLIENTS:
        raise_at_stops()
    unblock_signals()
    return run(options, environ) or 0


def _imported(command: str) -> Callable[[Sequence[str], Mapping[str, str]], int | None]:
    """What runs a command that doesn't serve; see rule 2."""
    match command:
        case "admin":
            from chatroom import admin  # noqa: PLC0415

            return admin.run
        case "backup" | "copy":
            from chatroom import copies  # noqa: PLC0415

            return copies.run_backup if command == "backup" else copies.run_copy
        case "export" | "import":
            from chatroom import transfer  # noqa: PLC0415

            return transfer.run_export if command == "export" else transfer.run_import
        case "join":
            from chatroom import join  # noqa: PLC0415

            return join.run
        case "say":
            from chatroom import say  # noqa: PLC0415

            return say.run
        case "tail":
            from chatroom import tail  # noqa: PLC0415

            return tail.run
        case _:
            from chatroom import mint  # noqa: PLC0415

            return mint.run


def _interrupted(command: str) -> int:
    """The exit code where a stop came before a command could take it, or nobody took it."""
    match command:
        case "say":
            print_error("it was interrupted: nothing was said")
            return 75
        case "join" | "tail":
            return 0
        case _:
            return 1


def _run(settings: "Settings", *, asked_to_stop: Callable[[], bool]) -> int:
    import trio  # noqa: PLC0415  (see rule 2)

    from chatroom.server import serve  # noqa: PLC0415

    return trio.run(serve, settings, asked_to_stop)


def _finish(run: Callable[[], int], report: Callable[[BaseException], None]) -> int:
    """Run, and return the exit code; 1 behind a `report` if it failed by an error of our own.

    Trio may raise each kind of ending inside a group. Raises StartError and KeyboardInterrupt on their own.
    """
    try:
        return run()
    except (Exception, BaseExceptionGroup) as error:
        leaves = list(_leaves(error))
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            raise KeyboardInterrupt from None
        crashes = [leaf for leaf in leaves if not isinstance(leaf, StartError)]
        if not crashes:
            raise StartError(str(leaves[0])) from None
        report(crashes[0])
        return 1


def _log_crash(error: BaseException) -> None:
    fields = whereabouts(error)
    if logger.isEnabledFor(logging.DEBUG):
        fields["traceback"] = frames(error)
    log_event(logging.ERROR, "crash", **fields)


def _print_crash(error: BaseException) -> None:
    print_error(f"this is a fault of chatroom, please report it: {' at '.join(whereabouts(error).values())}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)
