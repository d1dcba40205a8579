"""The screen for pipes and for terminals that can do nothing but print lines: lines in, lines out.

Owns standard input and output while it runs. Rules:

1. No escape sequence is written. The status and the prompt aren't shown.
2. Waiting for a line can be given up at any moment, whatever standard input is.
3. The last line needs no end. What is no UTF-8 is replaced, and a line is never longer than LONGEST.
4. An output that is closed or can't be written is the end of what is typed.
5. A slow reader of the output holds up nothing. While more than MOST_UNREAD waits for it, what comes is left
   out, and a line says so. At the end it is waited for as long as it goes on reading; a reader that takes
   nothing for LAST_SECONDS doesn't get the rest.
6. Standard output is written past `sys.stdout`: a thread that is stuck there would hold its lock, and the
   interpreter would never end.

It doesn't know what a line means.
"""

import codecs
import os
import sys
from collections.abc import Sequence
from math import inf

import trio

from chatroom.client.screen import Program, Typist, Unwritable
from chatroom.system.stdio import STANDARD_IN, STANDARD_OUT, write_out

LONGEST = 1024 * 1024
"""Characters after which a line ends, in any case."""
MOST_UNREAD = 4 * 1024 * 1024
"""Characters that may wait to be printed."""
LAST_SECONDS = 5.0
_READ_BYTES = 64 * 1024
_AHEAD = 100
"""Lines that are read before the first of them is asked for."""


class PlainScreen:
    """The screen; see `Screen`. `run` runs a program with it, once."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._begun = ""
        self._typist: Typist | None = None
        self._shown, self._to_print = trio.open_memory_channel[str](inf)
        self._typed, self._lines = trio.open_memory_channel[str](_AHEAD)
        self._reading = trio.CancelScope()
        self._printing = trio.CancelScope(shield=True)  # what is shown is printed, however the program ends
        self._over = False
        self._unread = self._left_out = 0
        self._at_terminal = os.isatty(STANDARD_OUT)
        self._failure: OSError | None = None

    # What is shown

    def attend(self, typist: Typist) -> None:
        self._typist = typist

    def show(self, lines: Sequence[str]) -> None:
        if self._unread > MOST_UNREAD:
            self._left_out += len(lines)
            return
        self._tell_left_out()
        text = "".join(f"{line}\n" for line in lines)
        self._unread += len(text)
        self._shown.send_nowait(text)

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._shown.send_nowait(f"* {self._left_out} lines are left out here: nobody read the output\n")
            self._left_out = 0

    def set_prompt(self, text: str) -> None:
        """There is no place for it."""

    def set_status(self, text: str) -> None:
        """There is no place for it."""

    def put_back(self, text: str) -> None:
        """A line that was sent can't be edited again."""

    def take_back(self, text: str) -> None:
        """Nothing was put back."""

    def ring(self) -> None:
        """Lines make no noise."""

    @property
    def is_there(self) -> bool:
        return False

    async def next_line(self) -> str | None:
        try:
            return await self._lines.receive()
        except trio.EndOfChannel:
            return None

    # Running

    def run(self, program: Program) -> int:
        """Run `program` until it is done, and all is printed that somebody reads."""
        return trio.run(self._main, program)

    async def _main(self, program: Program) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print)
            try:
                async with trio.open_nursery() as inner:
                    inner.start_soon(self._read)
                    code = await program(self)
                    inner.cancel_scope.cancel()
            finally:
                self._tell_left_out()
                self._shown.close()
                self._over = True
                self._printing.deadline = trio.current_time() + LAST_SECONDS
        if self._failure is not None:
            raise Unwritable(self._failure.strerror)
        return code

    async def _print(self) -> None:
        """Print what is shown, in a thread (rules 5 and 6)."""
        with self._printing:
            async for text in self._to_print:
                if not await trio.to_thread.run_sync(self._write, text, abandon_on_cancel=True):
                    self._reading.cancel()
                self._unread = max(0, self._unread - len(text))
                if self._over:
                    self._printing.deadline = trio.current_time() + LAST_SECONDS

    def _write(self, text: str) -> bool:
        """Whether somebody takes it."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        try:
            return write_out(text.encode(encoding, "backslashreplace"), lambda: None)
        except OSError as error:
            if not self._at_terminal:  # one that is gone
                self._failure = error
            return False

    async def _read(self) -> None:
        async with self._typed:
            with self._reading:
                while data := await _some_bytes():
                    await self._take(self._decode(data))
                await self._take(self._decode(b"", final=True))
                if self._begun:
                    await self._typed.send(self._begun)

    async def _take(self, text: str) -> None:
        *lines, self._begun = (self._begun + text).split("\n")
        if len(self._begun) > LONGEST:
            lines.append(self._begun)
            self._begun = ""
        for line in lines:
            await self._typed.send(line.removesuffix("\r"))


async def _some_bytes() -> bytes:
    """The next bytes of standard input; none at its end."""
    try:
        await trio.lowlevel.wait_readable(STANDARD_IN)
    except OSError:  # a file, which has no readiness, or none that can be waited for
        return await trio.to_thread.run_sync(_read_bytes, abandon_on_cancel=True)
    return _read_bytes()


def _read_bytes() -> bytes:
    try:
        return os.read(STANDARD_IN, _READ_BYTES)
    except OSError:  # the terminal is gone
        return b""
