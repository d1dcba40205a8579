"""The options that `join`, `tail` and `say` have in common, and what they give.

    ./chat.pyz COMMAND URL [--room NAME] [--username NAME] [--token-file FILE] [--ca FILE]

Owns these options, in the form of `config.options`, and the one word beside them, the address. Rules:

1. They come by the command line alone: variables like CHATROOM_PORT are the server's. Only the token has
   one; see `credentials`.
2. A name that no server takes is a mistake here already.
3. Every mistake is a StartError of one line. It repeats nothing of a word, which may be a secret at the
   wrong place.

It doesn't know what else a command takes.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from chatroom.client.address import WEBSOCKET, Place, read_url
from chatroom.client.credentials import Ask, Credentials, find_credentials
from chatroom.config import parsers
from chatroom.config.options import Option, values_of
from chatroom.core.errors import StartError
from chatroom.core.names import clean_room, clean_username

CLIENT_OPTIONS = (
    Option("room", "room", clean_room, "general", "NAME", "the room"),
    Option("username", "username", clean_username, None, "NAME",
           "the name to be seen under, where the token leaves it open"),
    Option("token-file", "token_file", parsers.path, None, "FILE",
           "file of the token, instead of the variable CHATROOM_TOKEN"),
    Option("ca", "ca", parsers.path, None, "FILE",
           "PEM file of the authorities whose certificates are believed, instead of the system's"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Where the server is, the room, and who comes; `username` is None where the token says it."""

    place: Place
    room: str
    username: str | None
    credentials: Credentials
    ca: str | None


def read_client(
    command: str,
    given: argparse.Namespace,
    environ: Mapping[str, str],
    *,
    example: str,
    ask: Ask | None = None,
) -> ClientSettings:
    """The settings in what a Parser of CLIENT_OPTIONS, with `words`, was given for `command`.

    `example` is a line that shows how the command is written. `ask` may ask a person for the token. Raises
    StartError.
    """
    if not given.words:
        raise StartError(f"{command} needs the address of a server: {example}")
    if len(given.words) > 1:
        raise StartError(f"{command} takes one word, the address of a server: {example}")
    try:
        place = read_url(given.words[0], schemes=WEBSOCKET)
    except ValueError as error:
        raise StartError(str(error)) from None
    values = values_of(CLIENT_OPTIONS, given, {})
    if values["ca"] is not None and not place.secure:
        raise StartError("--ca means nothing without TLS: write the address with wss://, or leave it out")
    credentials = find_credentials(place, environ, token_file=values["token_file"], ask=ask)
    username = credentials.username if values["username"] is None else values["username"]
    return ClientSettings(place, values["room"], username, credentials, values["ca"])
