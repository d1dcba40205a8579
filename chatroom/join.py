"""The command `join`: a person in a room of a server, at a terminal.

    ./chat.pyz join ws://localhost:3000 --room general --username alice

Owns its options, which screen is used, and the exit codes:

    0    left
    1    the server doesn't let the person in, or has sent them away, or the output can't be written: the
         reason on standard error; or something that was typed isn't stored, as far as is known
    2    the command makes no sense as it was written

1. Where a line can't be edited, lines are read and printed without any escape sequence: where standard input
   or output is no terminal, with TERM=dumb, and with NO_COLOR, until --editor says otherwise.
2. What edits lines is imported only where they are edited.

It doesn't know what is said, nor how.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from chatroom.client.address import trusting
from chatroom.client.connection import Client
from chatroom.client.conversation import Conversation, Leaving
from chatroom.client.credentials import ask_at_terminal
from chatroom.client.cursor import Begin
from chatroom.client.dialer import Dialer
from chatroom.client.plainscreen import PlainScreen
from chatroom.client.screen import Run, Screen, Unwritable
from chatroom.client.seen import Seen
from chatroom.client.settings import CLIENT_OPTIONS, ClientSettings, read_client
from chatroom.client.statefolder import state_folder
from chatroom.client.stopping import call_at_signals
from chatroom.client.typedhistory import TypedHistory
from chatroom.config import parsers
from chatroom.config.options import Option, Parser, value_of
from chatroom.core.errors import StartError
from chatroom.system.stdio import STANDARD_IN, STANDARD_OUT, print_error, print_out, takes_colours

REFUSED = 1
JOIN_OPTIONS = (
    *CLIENT_OPTIONS,
    Option("editor", "editor", parsers.choice("auto", "on", "off"), "auto", "WHEN",
           "edit lines on the screen: on, off, or auto: on a terminal that can, unless NO_COLOR is set"),
)  # fmt: skip
_EDITOR = JOIN_OPTIONS[-1]
EXAMPLE = "./chat.pyz join ws://localhost:3000 --room general --username alice"


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """Where to, who, and what the screen can do."""

    client: ClientSettings
    edited: bool
    colour: bool


def read_join(arguments: Sequence[str], environ: Mapping[str, str]) -> JoinSettings | str:
    """Read the options of `join`, or return its help text. Raises StartError."""
    parser = Parser(
        JOIN_OPTIONS,
        prog="chatroom join",
        usage="./chat.pyz join URL [options]",
        description="Talks in a room of a server. /help lists what can be typed. The token is in the "
        "variable CHATROOM_TOKEN, a --token-file or a file of tokens, or is asked for.",
        words=True,
    )
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    edited = _is_edited(value_of(_EDITOR, given.editor, {}), environ)
    client = read_client("join", given, environ, example=EXAMPLE, ask=ask_at_terminal)
    return JoinSettings(client, edited, colour=edited and not environ.get("NO_COLOR"))


def _is_edited(wanted: str, environ: Mapping[str, str]) -> bool:
    """Whether lines are edited on the screen. Raises StartError."""
    at_terminal = os.isatty(STANDARD_IN) and os.isatty(STANDARD_OUT)
    if wanted == "on" and not at_terminal:
        raise StartError("--editor on needs a terminal at standard input and output: leave it out")
    if wanted != "auto":
        return wanted == "on"
    return at_terminal and takes_colours(environ)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Talk until the person leaves, and return the exit code. Raises StartError, also in a group."""
    asked = read_join(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
        return 0
    folder = _state_folder(environ)
    talk = _Talk(asked, Seen(folder and folder / "seen.json", asked.client.place.shown))
    try:
        return talk.end(_screen(asked, folder)(talk.program))
    except Unwritable as error:
        print_error(f"standard output can't be written ({error})")
        return REFUSED


def _state_folder(environ: Mapping[str, str]) -> Path | None:
    try:
        return Path(state_folder(environ))
    except StartError:
        return None  # nothing is remembered then


def _screen(asked: JoinSettings, folder: Path | None) -> Run:
    if not asked.edited:
        return PlainScreen().run
    from chatroom.client.editor import Editor  # noqa: PLC0415  (see rule 2)

    history = TypedHistory(folder and folder / "history", is_secret=asked.client.credentials.are_in)
    return Editor(history, colours=asked.colour).run


class _Talk:
    """One conversation, as a program of a screen, and what it leaves to be said when the screen is gone."""

    def __init__(self, asked: JoinSettings, seen: Seen) -> None:
        self._asked = asked
        self._seen = seen
        self._reason = ""
        place = asked.client.place
        self._dialer = Dialer(place, trusting(asked.client.ca) if place.secure else None)

    async def program(self, screen: Screen) -> int:
        """Talk, until the person or a signal ends it."""
        who = self._asked.client
        client = Client(
            self._dialer, who.credentials.token, room=who.room, username=who.username, begin=Begin.RECENT
        )
        conversation = Conversation(screen, client, self._seen, colour=self._asked.colour)
        async with trio.open_nursery() as nursery:
            await nursery.start(call_at_signals, client.stop)
            leaving = await conversation.run()
            nursery.cancel_scope.cancel()
        self._reason = conversation.reason
        return 0 if leaving is Leaving.QUIT else REFUSED

    def end(self, code: int) -> int:
        """The screen is gone: say why, if the person didn't want to go."""
        if self._reason:
            print_error(self._reason)
        return code
