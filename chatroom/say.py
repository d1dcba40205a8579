"""The command `say`: has texts stored in a room, each exactly once.

    echo "deploy done" | ./chat.pyz say wss://chat.example --room ops

Owns the options of the command, and what it prints. Exit codes:

    0    stored
    1    refused: the message, or whoever sends it; or there was nothing to say
    2    the command makes no sense as it was written
    75   unknown: nobody has answered in time. The same command again stores nothing twice

1. One line says what came of it: on standard output if it is stored, else on standard error. With --wait
   standard output has the answer.
2. The outbox is tidied up last of all, behind whatever runs at the end of a process, and then the process is
   gone at once: a command that is killed before that hasn't succeeded, and can be tried again.

It doesn't know how a text is stored; see `client.saying`.
"""

import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import trio

from chatroom.client.address import trusting
from chatroom.client.batches import Batch
from chatroom.client.connection import Client
from chatroom.client.cursor import Begin, Position
from chatroom.client.dialer import Dialer
from chatroom.client.outboxfile import Occupied, OutboxFile, open_outbox
from chatroom.client.owner import owner_of
from chatroom.client.printable import printable, printable_lines
from chatroom.client.saying import Feed, Outcome, Result, Sayer
from chatroom.client.settings import CLIENT_OPTIONS, ClientSettings, read_client
from chatroom.client.statefolder import state_folder
from chatroom.client.stopping import call_at_signals
from chatroom.config import parsers
from chatroom.config.options import Option, Parser, values_of
from chatroom.core.errors import StartError
from chatroom.system.stdio import STANDARD_IN, end_process, print_error, print_out, read_in

STORED, REFUSED, UNKNOWN = 0, 1, 75
LARGEST = 16 * 1024 * 1024
"""Bytes of the longest text: no server takes a larger frame."""
_READ_BYTES = 64 * 1024
_CODES = {
    Result.STORED: STORED,
    Result.REFUSED: REFUSED,
    Result.UNKNOWN: UNKNOWN,
    Result.FULL: UNKNOWN,
}
_AGAIN = "The same command again stores nothing twice"
_EXAMPLE = 'echo "deploy done" | ./chat.pyz say wss://chat.example --room ops'


def _pattern(text: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a later Python may read in another way
            return re.compile(text)
    except (re.error, RecursionError, OverflowError):
        raise ValueError(
            "this is no regular expression of Python; write \\. for a dot, \\( for a bracket"
        ) from None


SAY_OPTIONS = (
    *CLIENT_OPTIONS,
    Option("lines", "lines", parsers.switch, "0", "",
           "each line of standard input is a message, as it comes"),
    Option("timeout", "timeout", parsers.duration("100ms", "24h"), "30s", "TIME",
           "how long to wait for an answer of the server"),
    Option("wait", "wait", _pattern, None, "PATTERN",
           "then wait for a later message that matches this regular expression, and print it"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SaySettings:
    """Where to say it, and how."""

    client: ClientSettings
    lines: bool
    timeout: float
    wait: re.Pattern[str] | None


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Say it, print what came of it, and end the process. Returns an exit code only if nothing was tried.

    Raises StartError, also in a group, and KeyboardInterrupt if it is stopped before it has said anything.
    """
    asked = read_say(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return 0
    who = asked.client
    try:
        feed = _lines if asked.lines else _only(_whole_input())
        # The name that the server would give isn't known yet: the token has to do.
        whose = f"token {owner_of(who.credentials.token())}" if who.username is None else who.username
        outbox = open_outbox(state_folder(environ), who.place.shown, who.room, whose, seconds=asked.timeout)
    except Occupied:
        print_error("another say has been at work in this room all the time: nothing was said")
        return UNKNOWN
    outcome, kept = trio.run(_say, asked, outbox, feed)
    try:
        return _finish(asked, outbox, outcome, kept)
    except KeyboardInterrupt:
        print_error(f"it was interrupted. {_AGAIN}")
        return UNKNOWN


def _finish(
    asked: SaySettings, outbox: OutboxFile, outcome: Outcome, kept: Sequence[Batch] | None
) -> NoReturn:
    """Tell what came of it, tidy up, and end the process."""
    fault, finish = "", _nothing
    if kept is not None:
        try:
            finish = outbox.prepared(kept)
        except StartError as error:
            fault = str(error)
    code = _tell(outcome, asked, fault)
    end_process(code, finish if code == _CODES[outcome.result] else _nothing)


def _nothing() -> None:
    """Leave the outbox as it is."""


def read_say(arguments: Sequence[str], environ: Mapping[str, str]) -> SaySettings | str:
    """Read the options of `say`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        SAY_OPTIONS,
        prog="chatroom say",
        usage="./chat.pyz say URL [--room NAME] [options] < TEXT",
        description="Says all of standard input as one message. It ends with 0 when that is stored, with 1 "
        "when it is refused, and with 75 when that is unknown: then the same command again stores nothing "
        "twice. The token is in the variable CHATROOM_TOKEN, a --token-file or a file of tokens.",
        words=True,
    )
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    client = read_client("say", given, environ, example=_EXAMPLE)
    return SaySettings(client, **values_of(SAY_OPTIONS[len(CLIENT_OPTIONS) :], given, {}))


async def _say(asked: SaySettings, outbox: OutboxFile, feed: Feed) -> tuple[Outcome, Sequence[Batch] | None]:
    """What came of it, and what the outbox is to hold then; None: as it is."""
    who = asked.client
    context = trusting(who.ca) if who.place.secure else None

    def connect(position: Position | None) -> Client:
        return Client(
            Dialer(who.place, context),
            who.credentials.token,
            room=who.room,
            username=who.username,
            begin=Begin.NOW,
            fill=True,
            position=position,
        )

    sayer = Sayer(outbox, connect, seconds=asked.timeout, answer=asked.wait, now=lambda: int(time.time()))
    async with trio.open_nursery() as nursery:
        await nursery.start(call_at_signals, sayer.interrupt)
        outcome = await sayer.run(feed)
        nursery.cancel_scope.cancel()
    return outcome, None if outcome.result is Result.FULL else sayer.kept(outcome)


# What is to be said


def _whole_input() -> str:
    """All of standard input, as the server would strip it. Raises StartError."""
    if os.isatty(STANDARD_IN):
        print_error("type the message, and end it by Ctrl-D on a line of its own")
    content = bytearray()
    while len(content) <= LARGEST and (piece := _read()):
        content += piece
    if len(content) > LARGEST:
        raise StartError(f"standard input is larger than {LARGEST // 1024 // 1024} MiB: no message is")
    return _decoded(bytes(content), "standard input").strip()


def _read() -> bytes:
    """Raises StartError."""
    try:
        return read_in(_READ_BYTES)
    except OSError as error:
        raise StartError(f"standard input can't be read ({error.strerror})") from None


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise StartError(f"{what} isn't UTF-8 (byte {error.start + 1}): nothing of it was said") from None


def _only(text: str) -> Feed:
    """Gives one text, if it says anything."""

    async def feed(sayer: Sayer) -> None:
        await sayer.give([text] if text else [])
        sayer.end()

    return feed


async def _lines(sayer: Sayer) -> None:
    """Gives the lines of standard input that say anything, as they come."""
    number, rest = 0, b""
    while piece := await trio.to_thread.run_sync(_read, abandon_on_cancel=True):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > LARGEST:
            raise StartError(f"line {number + len(whole) + 1} is larger than {LARGEST // 1024 // 1024} MiB")
        await sayer.give(_texts(whole, number))
        number += len(whole)
    await sayer.give(_texts([rest], number))
    sayer.end()


def _texts(lines: Sequence[bytes], number: int) -> list[str]:
    """Lines as texts; `number` stand before them. Raises StartError."""
    decoded = [_decoded(line, f"line {number + index}").strip() for index, line in enumerate(lines, 1)]
    return [text for text in decoded if text]


# What came of it


def _tell(outcome: Outcome, asked: SaySettings, fault: str) -> int:
    """Print it. `fault` is why it can't be noted in the outbox. Returns the exit code."""
    room = printable(asked.client.room)
    match outcome.result:
        case Result.STORED if fault:
            print_error(f"stored {_stored(outcome)}, but {fault}. {_AGAIN}")
            return UNKNOWN
        case Result.STORED if outcome.answer is not None:
            if print_out("".join(f"{line}\n" for line in printable_lines(outcome.answer))):
                return STORED
            print_error(
                f"stored {_stored(outcome)}, but the answer can't be written to standard output. {_AGAIN}"
            )
            return UNKNOWN
        case Result.STORED:
            print_out(f"stored {_stored(outcome)} in {room}\n")
            return STORED
        case Result.REFUSED:
            print_error(_refused(outcome))
            return REFUSED
        case Result.FULL:
            print_error("the outbox is full of messages that couldn't be sent: nothing was added")
            return UNKNOWN
        case _:
            print_error(_unknown(outcome, asked))
            return UNKNOWN


def _stored(outcome: Outcome) -> str:
    """Which messages are stored."""
    ids = [entry.id for entry in outcome.entries if entry.id is not None]
    if outcome.stored == 1 and ids:
        return f"as {ids[0]}"
    return f"{outcome.stored} messages" + (f", the last as {ids[-1]}" if ids else "")


def _refused(outcome: Outcome) -> str:
    if not outcome.entries:
        return outcome.reason or "there is nothing to say: standard input is empty"
    faults = outcome.faults
    if not faults:
        return outcome.reason
    if len(outcome.entries) + outcome.forgotten == 1:
        return f"refused: {faults[0][1]}"
    (number, error), others = faults[0], len(faults) - 1 + max(0, outcome.refused - 1)
    more = f", and {others} more" if others else ""
    return f"message {number} refused: {error}{more}; {outcome.stored} stored"


def _unknown(outcome: Outcome, asked: SaySettings) -> str:
    if not outcome.entries and not outcome.forgotten:
        return f"nothing was said: {outcome.reason}"
    settled = sum(entry.settled for entry in outcome.entries)
    if outcome.entries and settled == len(outcome.entries):
        but = "but no answer has matched" if asked.wait else "but there may be more"
        return f"stored {_stored(outcome)}, {but}: {outcome.reason}"
    left, all_of_it = len(outcome.entries) - settled, len(outcome.entries) + outcome.forgotten
    what = "whether it is stored" if all_of_it == 1 else f"whether {left} of {all_of_it} are stored"
    return f"it isn't known {what}: {outcome.reason}. {_AGAIN}"
