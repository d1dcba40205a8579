"""What `join`, `tail` and `say` have in common: where, as whom, and by which token."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from chatroom.client.address import Place
from chatroom.client.settings import CLIENT_OPTIONS, ClientSettings, read_client
from chatroom.config.options import Parser
from chatroom.core.errors import StartError

SECRET = "s3" + "cret"
URL = "ws://localhost:3000"
EXAMPLE = "echo hello | ./chat.pyz say ws://localhost:3000"


def asked(
    *arguments: str, ask: Callable[[Place], str | None] | None = None, **environ: str
) -> ClientSettings:
    parser = Parser(CLIENT_OPTIONS, prog="chatroom say", usage=EXAMPLE, description="", words=True)
    given = parser.read(arguments)
    assert not isinstance(given, str)
    return read_client("say", given, environ, example=EXAMPLE, ask=ask)


def test_what_is_left_out() -> None:
    found = asked(URL, CHATROOM_TOKEN=SECRET)
    assert found.place.shown == URL
    assert (found.room, found.username, found.ca) == ("general", None, None)
    assert found.credentials.token() == SECRET


def test_all_that_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    found = asked(
        "--room", "ge\u0301ne\u0301ral", "https://Chat.example:443/chat/", "--username", "\uff41lice",
        "--token-file", str(tmp_path / "token"), "--ca", "ca.pem", CHATROOM_TOKEN="other",
    )  # fmt: skip
    assert found.place.shown == "wss://chat.example/chat"
    assert (found.room, found.username, found.ca) == ("g\u00e9n\u00e9ral", "alice", "ca.pem")
    assert found.credentials.token() == SECRET


def test_the_name_beside_the_token_counts_where_no_other_is_given(tmp_path: Path) -> None:
    file = tmp_path / "chatroom" / "netrc"
    file.parent.mkdir()
    file.touch(mode=0o600)
    file.write_text(f"machine localhost:3000 login alice password {SECRET}")
    assert asked(URL, XDG_CONFIG_HOME=str(tmp_path)).username == "alice"
    assert asked(URL, "--username", "bob", XDG_CONFIG_HOME=str(tmp_path)).username == "bob"


def test_the_variables_of_the_server_mean_nothing() -> None:
    found = asked(URL, CHATROOM_TOKEN=SECRET, CHATROOM_ROOM="ops", CHATROOM_CA="x", CHATROOM_USERNAME="a")
    assert (found.room, found.username, found.ca) == ("general", None, None)


def test_a_person_is_asked_only_where_the_command_asks() -> None:
    assert asked(URL, ask=lambda place: f"for-{place.host}").credentials.token() == "for-localhost"
    with pytest.raises(
        StartError, match=r"^a token is needed: set CHATROOM_TOKEN or give --token-file FILE;"
    ):
        asked(URL)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("", f"say needs the address of a server: {EXAMPLE}"),
        (f"{URL} {SECRET}", f"say takes one word, the address of a server: {EXAMPLE}"),
        (SECRET, "no address of a server: write it like wss://chat.example or ws://localhost:3000"),
        (f"{URL}/?token={SECRET}", "an address has no query or fragment here: --room and --username say "
         "where, and CHATROOM_TOKEN or --token-file give the token"),
        (f"ws://me:{SECRET}@h", "an address has no user and no @ here: CHATROOM_TOKEN or --token-file give "
         "the token"),
        (f"{URL} --token {SECRET}", "unknown option '--token'; did you mean --token-file?"),
        (f"{URL} --token={SECRET}", "unknown option '--token'; did you mean --token-file?"),
        (f"{URL} --room a\x1b", "--room: room may not contain control characters"),
        (f"{URL} --room {'x' * 65}", "--room: room must have 1 to 64 characters"),
        (f"{URL} --username a\u202eb", "--username: username may not contain invisible characters"),
        (f"{URL} --ca f", "--ca means nothing without TLS: write the address with wss://, or leave it out"),
        (f"{URL} --token-file /nowhere", "--token-file /nowhere can't be read (No such file or directory): "
         "give a file with the token"),
        (f"{URL} --token-file=", "--token-file: an empty file name: give the path of a file"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_without_the_secret(arguments: str, why: str) -> None:
    with pytest.raises(StartError, match=f"^{re.escape(why)}$"):
        asked(*arguments.split(" ") if arguments else ())
    assert SECRET not in why
