"""The screen for terminals where a typed line is edited: a line at the bottom, and the talk above it.

Owns the terminal while it runs, through prompt_toolkit. Rules:

1. The talk is printed above the line and scrolls away: no second screen, no mouse. So the terminal's own
   scrolling, selecting and searching work as ever.
2. prompt_toolkit needs asyncio. So the outermost loop is one of asyncio, and Trio runs as its guest in the
   same thread: no locks. What happens at the keyboard is handed to Trio by its token.
3. Nothing is asked of the terminal that it may not answer, such as where its cursor is.
4. An error in here ends the program; it never waits for a key. But a key that prompt_toolkit can't carry out
   rings, and nothing more. A terminal that is gone is the end of what is typed.
5. A line that is too long for the terminal is broken here, and its rest is indented. Where a terminal breaks
   it, the rest could look like a line of its own, of somebody else. So it may break none, should it take a
   character to be wider than we do. (A line that has scrolled away is the terminal's: if its window becomes
   narrower, it breaks the line as it likes.)
6. In the background, as after `bg`, the terminal is another program's: until the end nothing is printed, and
   its modes are left alone. Setting them would stop us.

It doesn't know what a line means. It is imported only where a line is edited.
"""

import asyncio
import os
import re
import signal
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import accumulate
from math import inf
from typing import Any, TextIO

import trio
from prompt_toolkit.application import Application, in_terminal
from prompt_toolkit.application.current import get_app, set_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, is_searching
from prompt_toolkit.formatted_text import StyleAndTextTuples, fragment_list_to_text
from prompt_toolkit.history import History
from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
from prompt_toolkit.input.vt100 import Vt100Input, cooked_mode, raw_mode
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.key_binding.key_bindings import Binding
from prompt_toolkit.key_binding.key_processor import KeyPress, KeyProcessor
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.layout.processors import BeforeInput, Processor, Transformation, TransformationInput
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth
from prompt_toolkit.widgets import SearchToolbar

from chatroom.client.completing import Completing
from chatroom.client.printable import printable
from chatroom.client.screen import Completions, Program, Typist
from chatroom.client.typedhistory import MOST, TypedHistory
from chatroom.client.typedline import is_shown_as_it_is, shown
from chatroom.system.stdio import print_out

_FOCUS_ON, _FOCUS_OFF = "\x1b[?1004h", "\x1b[?1004l"
_TURNED_TO, _TURNED_AWAY = Keys.ControlF23, Keys.ControlF24
"""Keys that no keyboard has stand for what a terminal reports of its focus."""
_KEY = re.compile(r"\x1b\[[0-9;]*[@-~]")
"""What terminals send for a key that is no character."""
_STYLE = Style.from_dict({"prompt": "bold", "status": "dim", "chosen": "bold nodim"})
_ESCAPE_SECONDS = 0.1
"""How long after an Escape it may still be the begin of another key."""
_ARGUMENT_DIGITS = 3
"""How much of an argument counts, such as `repeat 100 times`; a sign is one of the digits."""
_BACKGROUND_SECONDS = 0.1
"""How often it is looked whether the terminal is ours again."""
_INDENT = 11
"""Columns before the rest of a line, like those before the further lines of a text (see `lines`)."""
_COLOUR = r"\x1b\[[0-9;]*m"
_WORD = re.compile(rf" |(?:{_COLOUR}|[^ ])+")
_PIECE = re.compile(rf"{_COLOUR}|.", re.DOTALL)
"""A blank or a word; and a colour or one of the characters of a word."""
_WIDE_FOR_SOME = frozenset(map(chr, range(0x3248, 0x3250)))
"""Numbers in circles, which the C library has in two columns."""
_WIDENS = "\ufe0f"
"""What makes an emoji of the character before it, which takes two columns then, for some terminals."""


class Editor:
    """The screen; see `Screen`. `run` runs a program with it, once."""

    def __init__(self, history: TypedHistory, *, colours: bool) -> None:
        self._typist: Typist | None = None
        self._attended = asyncio.Event()
        self._prompt = self._status = self._told = ""
        self._pending: list[str] = []
        self._printing = self._away = self._over = False
        self._failure: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._typed, self._lines = trio.open_memory_channel[str | None](inf)
        self._completing = Completing(self._complete)
        self._buffer = _Line(history=_History(history), on_text_changed=lambda _: self._changed())
        self._output = _Output(sys.stdout, lambda: _size(sys.stdout.fileno()), os.environ.get("TERM"))
        self._app = self._make_app(colours)

    # What is shown

    def attend(self, typist: Typist) -> None:
        self._typist = typist
        self._attended.set()

    def show(self, lines: Sequence[str]) -> None:
        self._pending += lines
        if not self._printing:
            self._printing = True
            asyncio.get_running_loop().call_soon(self._print)

    def set_prompt(self, text: str) -> None:
        self._prompt = text
        self._app.invalidate()

    def set_status(self, text: str) -> None:
        if text != self._status:
            self._status = text
            self._app.invalidate()

    def put_back(self, text: str) -> None:
        if not self._buffer.text:
            self._told = text  # nobody has typed it now
            self._buffer.insert_text(text)

    def take_back(self, text: str) -> None:
        if self._buffer.text == text:
            self._buffer.reset()
            self._changed()

    def ring(self) -> None:
        self._output.bell()

    @property
    def is_there(self) -> bool:
        return True

    async def next_line(self) -> str | None:
        return await self._lines.receive()

    def _print(self) -> None:
        """Print what waits, above the line: hide the line, print, and show it again, in one write."""
        self._printing = False
        if self._away:
            return
        columns = self._output.get_size().columns
        text = "".join(f"{row}\r\n" for line in self._pending for row in _rows(line, columns))
        self._pending.clear()
        with set_app(self._app), self._output.at_once():
            if self._app.is_running:
                self._app.renderer.erase()
            self._output.disable_autowrap()
            self._output.write_raw(text)
            self._output.enable_autowrap()
            if self._app.is_running:
                self._app.renderer.render(self._app, self._app.layout)

    # Running

    def run(self, program: Program) -> int:
        """Run `program` until it is done."""
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(self._failed)
        try:
            return loop.run_until_complete(self._host(program))
        finally:
            loop.close()
            print_out("")  # if the terminal is gone, what it didn't take is forgotten

    async def _host(self, program: Program) -> int:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            self._guest,
            program,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        edit = asyncio.ensure_future(self._edit())
        outcome = await done
        self._over = True
        if self._app.is_running and not self._app.is_done:
            self._app.exit()
        elif not self._attended.is_set():
            edit.cancel()
        await asyncio.wait([edit])
        with suppress(OSError):
            self._print()
        if self._failure is not None:
            raise self._failure
        return int(outcome.unwrap())

    async def _guest(self, program: Program) -> int:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            return await program(self)
        return 0  # the terminal is gone, or `_failure` says what it was

    async def _edit(self) -> None:
        """Take the terminal, once the program is ready to give it back whatever happens."""
        await self._attended.wait()
        try:
            await self._app.run_async(pre_run=self._begin, set_exception_handler=False)
        except EOFError:
            pass
        except Exception as error:
            self._fail(error)
        finally:
            with suppress(OSError):
                self._output.write_raw(_FOCUS_OFF)
                self._output.flush()
            self._ask_to_leave()

    def _begin(self) -> None:
        self._output.write_raw(_FOCUS_ON)
        self._at_signal(signal.SIGTSTP, self._suspend)
        self._at_signal(signal.SIGQUIT, lambda: signal.raise_signal(signal.SIGTERM))
        if self._over:
            self._app.exit()

    def _at_signal(self, number: signal.Signals, call: Callable[[], None]) -> None:
        """Call it at a signal, unless somebody wants that one to be ignored."""
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, call)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something failed in a call from the loop."""
        self._fail(context.get("exception") or RuntimeError(context["message"]))

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, OSError):
            self._ask_to_leave()
            return
        self._failure = self._failure or error
        self._in_trio(self._scope.cancel)

    def _in_trio(self, call: Callable[..., object], *arguments: object) -> None:
        """Call it in Trio; if Trio has ended, nobody wants it."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(call, *arguments)

    # The keyboard

    def _changed(self) -> None:
        if self._typist is not None and self._buffer.text != self._told:
            self._told = self._buffer.text
            self._in_trio(self._typist.typing, self._told)

    def _complete(self, before: str) -> Completions:
        return Completions(0, ()) if self._typist is None else self._typist.complete(before)

    def _enter(self, event: KeyPressEvent) -> None:
        self._in_trio(self._typed.send_nowait, self._buffer.text)
        self._buffer.reset(append_to_history=True)
        self._changed()

    def _newline(self, event: KeyPressEvent) -> None:
        self._buffer.insert_text("\n")

    def _tab(self, event: KeyPressEvent, *, backwards: bool = False) -> None:
        before = self._buffer.document.text_before_cursor
        made = self._completing.press(before, backwards=backwards)
        if made is not None:
            self._buffer.document = Document(made + self._buffer.document.text_after_cursor, len(made))

    def _interrupt(self, event: KeyPressEvent) -> None:
        if self._buffer.text:
            self._buffer.reset()
            self._changed()
        else:
            self._ask_to_leave()

    def _leave(self, event: KeyPressEvent) -> None:
        self._ask_to_leave()

    def _ask_to_leave(self) -> None:
        if self._typist is not None:
            self._in_trio(self._typist.leave)
        self._in_trio(self._typed.send_nowait, None)

    def _look(self, there: bool) -> None:
        if self._typist is not None:
            self._in_trio(self._typist.looking, there)

    def _suspend(self) -> None:
        if not self._away:
            self._away = True
            self._app.create_background_task(self._be_away())

    async def _be_away(self) -> None:
        """Stop, as at a signal; and come back when the terminal is ours again, unless it is over before."""
        async with in_terminal():
            self._output.write_raw(_FOCUS_OFF)
            self._output.flush()
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTSTP)
            os.kill(0, signal.SIGTSTP)
            self._at_signal(signal.SIGTSTP, self._suspend)
            while not self._over and not _is_ours(sys.stdin.fileno()):  # noqa: ASYNC110  (nothing tells of it)
                await asyncio.sleep(_BACKGROUND_SECONDS)
            self._output.write_raw(_FOCUS_ON)
        self._away = False
        self._print()

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        empty = Condition(lambda: not self._buffer.text)
        typing = ~is_searching
        for key in ("enter", "c-j", "c-o"):
            bindings.add(key, filter=typing)(self._enter)
        bindings.add("escape", "enter", filter=typing)(self._newline)
        bindings.add("tab", filter=typing)(self._tab)
        bindings.add("s-tab", filter=typing)(lambda event: self._tab(event, backwards=True))
        bindings.add("c-c", filter=typing)(self._interrupt)
        bindings.add("<sigint>", filter=typing)(self._interrupt)
        bindings.add("c-d", filter=typing & empty)(self._leave)
        bindings.add("c-z")(lambda event: self._suspend())
        bindings.add(_TURNED_TO)(lambda event: self._look(True))
        bindings.add(_TURNED_AWAY)(lambda event: self._look(False))
        bindings.add("c-o", filter=is_searching)(_nothing)
        bindings.add("escape", "#")(_nothing)
        for answer in (Keys.CPRResponse, Keys.Vt100MouseEvent):
            bindings.add(answer, eager=True)(_nothing)  # by rule 3 it was typed or pasted
        return bindings

    # The layout

    def _make_app(self, colours: bool) -> Application[None]:
        search = SearchToolbar()
        search.control.input_processors = [_Shown(), *(search.control.input_processors or ())]
        control = BufferControl(
            self._buffer,
            input_processors=[_Shown(), BeforeInput(lambda: self._prompt, style="class:prompt")],
            search_buffer_control=search.control,
            preview_search=True,
        )
        line = Window(control, height=self._height, wrap_lines=True, dont_extend_height=True)
        status = Window(FormattedTextControl(self._bottom), height=1, dont_extend_height=True)
        is_roomy = Condition(lambda: self._output.get_size().rows > 2)
        ANSI_SEQUENCES.update({"\x1b[I": _TURNED_TO, "\x1b[O": _TURNED_AWAY})
        app = Application[None](
            layout=Layout(
                HSplit([line, search, ConditionalContainer(status, is_roomy)]), focused_element=line
            ),
            style=_STYLE,
            include_default_pygments_style=False,
            key_bindings=self._bindings(),
            color_depth=ColorDepth.DEPTH_4_BIT if colours else ColorDepth.DEPTH_1_BIT,
            erase_when_done=True,
            terminal_size_polling_interval=None,
            input=_Input(sys.stdin),
            output=self._output,
        )
        app.ttimeoutlen = _ESCAPE_SECONDS
        app.key_processor = _Keys(app.key_processor)
        return app

    def _height(self) -> Dimension:
        return Dimension(min=1, max=max(1, self._output.get_size().rows // 2))

    def _bottom(self) -> StyleAndTextTuples:
        """The choices while one walks through them, else the status."""
        width = self._output.get_size().columns - 1
        choices, chosen = self._completing.shown(self._buffer.document.text_before_cursor)
        if not choices:
            return [("class:status", _cut(self._status, width))]
        parts: StyleAndTextTuples = []
        for number in range(len(choices)):  # from the chosen one on, so that it is always to be seen
            choice = printable(choices[(chosen + number) % len(choices)])
            width -= get_cwidth(choice) + 2
            if width < 0 and number:
                break
            parts.append(("class:status" if number else "class:chosen", f"{choice}  "))
        return parts


class _Output(Vt100_Output):
    """A terminal that isn't asked where its cursor is, and that is given several things in one write."""

    def __init__(self, stdout: TextIO, get_size: Callable[[], Size], term: str | None) -> None:
        self._held = False
        super().__init__(stdout, get_size, term, enable_cpr=False)

    def flush(self) -> None:
        if not self._held:
            super().flush()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is written meanwhile goes out as one at the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self.flush()


class _Input(Vt100Input):
    """A keyboard whose modes are set only while the terminal is ours, and whose unknown keys do nothing."""

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self.vt100_parser = _Parser(self.vt100_parser.feed_key_callback)

    def raw_mode(self) -> raw_mode:
        return _Raw(self.fileno())

    def cooked_mode(self) -> cooked_mode:
        return _Cooked(self.fileno())


class _Parser(Vt100Parser):
    """Reads keys. One that isn't known counts as one, and not as the characters that stand for it."""

    def _get_match(self, prefix: str) -> Keys | tuple[Keys, ...] | None:
        return super()._get_match(prefix) or (Keys.Ignore if _KEY.fullmatch(prefix) else None)


class _Raw(raw_mode):
    def __exit__(self, *error: object) -> None:
        if _is_ours(self.fileno):
            super().__exit__(*error)


class _Cooked(cooked_mode):
    def __exit__(self, *error: object) -> None:
        if _is_ours(self.fileno):
            super().__exit__(*error)


def _is_ours(descriptor: int) -> bool:
    """Whether this program has the terminal, or nobody has it."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return True


class _Keys(KeyProcessor):
    """Carries out keys, those of another one; by rule 4 none ends the program, nor is at work for minutes."""

    def __init__(self, other: KeyProcessor) -> None:
        super().__init__(other._bindings)

    def _call_handler(self, handler: Binding, key_sequence: list[KeyPress]) -> None:
        if handler.keys == (Keys.Any,) and len(key_sequence[0].data) > 1:
            self.arg = None  # a key without a meaning, whose sequence would be inserted
            return
        self.arg = self.arg and self.arg[:_ARGUMENT_DIGITS]
        try:
            super()._call_handler(handler, key_sequence)
        except OSError:
            raise  # the terminal is gone
        except Exception:
            get_app().output.bell()


def _nothing(event: KeyPressEvent) -> None:
    """What a key does that does nothing."""


class _Shown(Processor):
    """Shows the typed line as `typedline` has it."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        if is_shown_as_it_is(fragment_list_to_text(transformation_input.fragments)):
            return Transformation(transformation_input.fragments)
        pieces = [(each[0], piece) for each in transformation_input.fragments for piece in shown(each[1])]
        ends = [0, *accumulate(len(piece) for _, piece in pieces)]
        return Transformation(
            [*pieces],
            source_to_display=lambda place: ends[min(place, len(pieces))] + max(0, place - len(pieces)),
            display_to_source=lambda place: bisect_right(ends, place) - 1 + max(0, place - ends[-1]),
        )


class _Line(Buffer):
    """The line that is edited. The lines before it are there at once: their key may come with the Enter."""

    def reset(self, document: Document | None = None, append_to_history: bool = False) -> None:
        super().reset(document, append_to_history)
        before = self.history.get_strings()
        self._working_lines.extendleft(reversed(before))
        self.working_index = len(before)

    def load_history_if_not_yet_loaded(self) -> None:
        """It is."""


class _History(History):
    """The lines of a TypedHistory and those that it doesn't keep, as prompt_toolkit goes through them."""

    def __init__(self, typed: TypedHistory) -> None:
        super().__init__()
        self._typed = typed
        self._lines = [*typed.lines]

    def get_strings(self) -> list[str]:
        return self._lines

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._lines)

    def append_string(self, string: str) -> None:
        self._lines = [*self._lines[1 - MOST :], string]
        self.store_string(string)

    def store_string(self, string: str) -> None:
        self._typed.add(string)


def _size(descriptor: int) -> Size:
    """What the terminal says of its size; the usual one, if it can't say."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        columns = rows = 0
    return Size(rows=rows or 24, columns=columns or 80)


def _rows(line: str, columns: int) -> list[str]:
    """A line as rows of so many columns, broken at blanks, and in words longer than a row; see rule 5."""
    indent = min(len(line) - len(line.lstrip(" ")) or _INDENT, columns // 4)
    if _width(line) <= columns:
        return [line]
    rows: list[str] = []
    row, used = "", 0
    for word in _WORD.findall(line):
        for piece in [word] if _width(word) <= columns - indent else _PIECE.findall(word):
            width = _width(piece)
            if used + width > columns and used > indent:
                rows.append(row.rstrip(" "))
                row, used = " " * indent, indent
                if piece == " ":
                    continue
            row, used = row + piece, used + width
    return [*rows, row]


def _width(text: str) -> int:
    """The most columns that a text takes, which may have colours in it."""
    return sum(map(_columns, re.sub(_COLOUR, "", text)))


@lru_cache(4096)
def _columns(character: str) -> int:
    """The most columns that a character takes: terminals differ, and many go by the C library."""
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 1 if character == _WIDENS else get_cwidth(character)
    is_wide = unicodedata.east_asian_width(character) in {"W", "F"} or character in _WIDE_FOR_SOME
    return max(get_cwidth(character), 2 if is_wide else 1)


def _cut(text: str, width: int) -> str:
    """The begin of a text, as far as `width` columns go."""
    while get_cwidth(text) > width:
        text = text[:-2] + "…" if len(text) > 1 else ""
    return text
