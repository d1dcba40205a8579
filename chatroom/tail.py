"""The command `tail`: follows a room, a line for each record.

    ./chat.pyz tail wss://chat.example --room ops --state ops.state >> ops.log

Owns the options of the command, and what it prints. Exit codes:

    0   stopped as asked (SIGTERM, SIGINT, SIGHUP), or nobody reads any more
    1   the server doesn't let it in, or has sent it away; or it is no chatroom
    2   the command makes no sense as it was written, or can't write

1. Each record is written once, in order. What can't be shown is told by a line of its own.
2. The position is saved when its line was written, so a kill repeats lines rather than lose them.
3. What concerns the connection goes to standard error.

It doesn't know how records come; see `client.core`.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from chatroom.client.address import trusting
from chatroom.client.connection import Client
from chatroom.client.cursor import Begin, Position
from chatroom.client.dialer import Dialer
from chatroom.client.events import Ending, Entered, Event, Gap, Lost, Recorded, Replaced
from chatroom.client.lines import gap, json_line, replaced, text_line
from chatroom.client.output import Output
from chatroom.client.positionfile import PositionFile
from chatroom.client.settings import CLIENT_OPTIONS, ClientSettings, read_client
from chatroom.client.stopping import call_at_signals
from chatroom.config import parsers
from chatroom.config.options import Option, Parser, values_of
from chatroom.core.errors import StartError
from chatroom.system.stdio import STANDARD_OUT, print_error, print_out, takes_colours

_EXAMPLE = "./chat.pyz tail wss://chat.example --room ops"
_SAVE_SECONDS = 0.1

TAIL_OPTIONS = (
    *CLIENT_OPTIONS,
    Option("since", "since", parsers.whole(0, 2**53 - 1), None, "ID",
           "begin behind this record; with --epoch"),
    Option("epoch", "epoch", parsers.text, None, "EPOCH", "the history that --since means"),
    Option("all", "from_first", parsers.switch, "0", "", "begin with the first message that is kept"),
    Option("state", "state", parsers.path, None, "FILE",
           "go on where it was last time, and remember the place in this file"),
    Option("json", "as_json", parsers.switch, "0", "",
           "print each record as its frame, one JSON object a line"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TailSettings:
    """Which room, from where on, and how."""

    client: ClientSettings
    position: Position | None
    from_first: bool
    state: str | None
    as_json: bool


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Follow the room until that ends. Returns the exit code. Raises StartError, also in a group."""
    asked = read_tail(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return 0
    who = asked.client
    state = None if asked.state is None else PositionFile(asked.state, who.place.shown, who.room)
    position = asked.position if state is None else state.read()
    colour = not asked.as_json and os.isatty(STANDARD_OUT) and takes_colours(environ)
    return trio.run(_Tail(asked, state, position, colour=colour).run)


def read_tail(arguments: Sequence[str], environ: Mapping[str, str]) -> TailSettings | str:
    """Read the options of `tail`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        TAIL_OPTIONS,
        prog="chatroom tail",
        usage="./chat.pyz tail URL [--room NAME] [--since ID --epoch EPOCH | --all | --state FILE] [--json]",
        description="Prints what is said in a room from now on, a line for each message. The token is in the "
        "variable CHATROOM_TOKEN, a --token-file or a file of tokens.",
        words=True,
    )
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    client = read_client("tail", given, environ, example=_EXAMPLE)
    values = values_of(TAIL_OPTIONS[len(CLIENT_OPTIONS) :], given, {})
    since, epoch = values.pop("since"), values.pop("epoch")
    if (since is None) != (epoch is None):
        raise StartError("--since and --epoch belong together: ids begin anew with each epoch")
    if since is not None and (values["from_first"] or values["state"] is not None):
        raise StartError(
            "--since, --all and --state exclude each other: say where to begin (--all --state: at first)"
        )
    return TailSettings(client, None if since is None else Position(epoch, since), **values)


class _Tail:
    """One command."""

    def __init__(
        self, asked: TailSettings, state: PositionFile | None, position: Position | None, *, colour: bool
    ) -> None:
        self._asked = asked
        self._state = state
        self._position = self._put_up_to = position
        self._colour = colour
        self._epoch = "" if position is None else position.epoch
        self._output: Output[Position | None] = Output(position)
        self._lost = False
        self._client: Client | None = None

    async def run(self) -> int:
        """Follow the room. Returns the exit code."""
        who = self._asked.client
        self._client = client = Client(
            Dialer(who.place, trusting(who.ca) if who.place.secure else None),
            who.credentials.token,
            room=who.room,
            username=who.username,
            begin=Begin.FIRST if self._asked.from_first else Begin.NOW,
            fill=True,
            position=self._position,
        )
        ended = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(call_at_signals, nursery.cancel_scope.cancel)
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._save)
                ended = await client.run(self._handle)
                await self._output.drained()
                nursery.cancel_scope.cancel()
        finally:
            self._save_now()
        if ended is None or ended.ending is Ending.STOPPED:
            return 0
        print_error(ended.reason)
        return 1

    async def _handle(self, event: Event) -> None:
        room = self._asked.client.room
        match event:
            case Entered(epoch=epoch):
                self._epoch = epoch
                self._back()
                if self._put_up_to is None and self._client is not None and not self._asked.from_first:
                    self._put_up_to = self._client.core.position
                    self._output.begin(self._put_up_to)
            case Recorded(frame=frame, id=number):
                self._put_up_to = Position(self._epoch, number)
                await self._put(frame.whole)
            case Gap(after=after, before=before, filled=filled) if after or not self._asked.from_first:
                await self._put(gap(room, after, before, filled=filled))
            case Replaced(epoch=epoch):
                self._put_up_to = Position(epoch, 0)
                await self._put(replaced(room, epoch))
            case Lost(reason=reason) if not self._lost:
                self._lost = True
                print_error(f"{reason}: trying again until it works")
            case _:
                pass

    def _back(self) -> None:
        if self._lost:
            self._lost = False
            print_error("connected again")

    async def _put(self, record: Mapping[str, object]) -> None:
        line = (
            json_line(record) if self._asked.as_json else text_line(record, colour=self._colour, clock=_clock)
        )
        await self._output.put(f"{line}\n".encode(), self._put_up_to)

    async def _write(self, scope: trio.CancelScope) -> None:
        await self._output.run()
        scope.cancel()

    async def _save(self) -> None:
        """Remember the position soon after it has changed."""
        saved = None
        while True:
            if saved == self._output.reached:
                await self._output.changed()
            else:
                saved = self._output.reached
                self._save_now()
                await trio.sleep(_SAVE_SECONDS)

    def _save_now(self) -> None:
        if self._state is not None and self._output.reached is not None:
            self._state.save(self._output.reached)


def _clock(ts: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ts / 1000))
