"""Tokens: where they come from, in which order, and that no mistake repeats one."""

import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.auth.tokens import DEVELOPMENT_TOKENS
from chatroom.client.address import WEBSOCKET, Place, read_url
from chatroom.client.credentials import (
    DEVELOPMENT_TOKEN,
    Ask,
    Credentials,
    find_credentials,
    netrc_path,
    read_token,
)
from chatroom.core.errors import StartError
from tests.support.process import clean_environment, heeding

SECRET = "s3" + "cret"
PLACE = Place("chat.example", 3000)
EXAMPLE = "write lines like machine chat.example login NAME password TOKEN"


def write_netrc(home: Path, text: str | bytes, mode: int = 0o600) -> Path:
    file = home / ".config" / "chatroom" / "netrc"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    return file


def found(
    home: Path,
    place: Place = PLACE,
    *,
    token_file: Path | None = None,
    ask: Ask | None = None,
    **environ: str,
) -> Credentials:
    file = None if token_file is None else str(token_file)
    return find_credentials(place, {"HOME": str(home), **environ}, token_file=file, ask=ask)


def refused(home: Path, place: Place = PLACE, ask: Ask | None = None) -> str:
    with pytest.raises(StartError) as caught:
        found(home, place, ask=ask)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "\u00e9", "\x7f", "x" * 16385])
def test_a_token_that_no_header_can_hold(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a token is one line of visible ASCII characters$"):
        read_token(text)


# The sources in their order


def test_the_first_source_that_has_one_counts(tmp_path: Path) -> None:
    write_netrc(tmp_path, "machine chat.example login alice password from-netrc")
    file = tmp_path / "token"
    file.write_text(" from-file \n")
    everywhere = found(tmp_path, token_file=file, ask=lambda _: "typed", CHATROOM_TOKEN="from-variable")
    assert (everywhere.token(), everywhere.username) == ("from-file", None)
    variable = found(tmp_path, ask=lambda _: "typed", CHATROOM_TOKEN=" from-variable\n")
    assert (variable.token(), variable.username) == ("from-variable", None)
    netrc = found(tmp_path, ask=lambda _: "typed", CHATROOM_TOKEN=" ")
    assert (netrc.token(), netrc.username) == ("from-netrc", "alice")
    typed = found(tmp_path / "elsewhere", ask=lambda place: f"typed-for-{place.host}")
    assert (typed.token(), typed.username) == ("typed-for-chat.example", None)


def test_who_has_no_token_is_told_the_ways() -> None:
    home = Path("/nowhere")
    ways = (
        "a token is needed: set CHATROOM_TOKEN, give --token-file FILE or write machine chat.example login "
        "NAME password TOKEN into /nowhere/.config/chatroom/netrc"
    )
    assert refused(home) == ways
    assert refused(home, ask=lambda _: None) == ways
    assert refused(home, ask=lambda _: "") == ways
    for host in ("localhost", "127.0.0.1", "::1"):
        assert refused(home, Place(host)) == (
            f"{ways}; a server of this machine that has no --tokens takes dev-token"
        )
    with pytest.raises(
        StartError, match=r"^a token is needed: set CHATROOM_TOKEN or give --token-file FILE$"
    ):
        find_credentials(PLACE, {})


def test_the_token_that_is_named_is_one_of_development() -> None:
    assert DEVELOPMENT_TOKEN in DEVELOPMENT_TOKENS


@pytest.mark.parametrize("text", [f"{SECRET} {SECRET}", f"{SECRET}\u00e9"])
def test_what_is_no_token_is_not_repeated(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    why = "a token is one line of visible ASCII characters"
    for source, said in (
        ({"token_file": file}, f"--token-file {file}: {why}"),
        ({"CHATROOM_TOKEN": text}, f"CHATROOM_TOKEN: {why}"),
        ({"ask": lambda _: text}, f"the token that was typed: {why}"),
    ):
        with pytest.raises(StartError) as caught:
            found(tmp_path, **source)  # type: ignore[arg-type]
        assert str(caught.value) == said
        assert SECRET not in "".join(traceback.format_exception(caught.value))


# A token that is renewed


def test_a_file_is_read_anew_and_the_last_token_stays_while_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    credentials = found(tmp_path, token_file=file)
    assert credentials.token() == "first"
    file.write_text("second\n")
    assert credentials.token() == "second"
    file.write_text("")
    assert credentials.token() == "second"
    file.unlink()
    assert credentials.token() == "second"
    file.write_text("third")
    assert credentials.token() == "third"


def test_a_token_that_was_renewed_is_known_on(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    credentials = found(tmp_path, token_file=file)
    file.write_text("second\n")
    assert credentials.are_in("the second one")
    assert credentials.are_in("the first one")
    assert not credentials.are_in("another one")


def test_the_file_of_tokens_is_read_anew(tmp_path: Path) -> None:
    file = write_netrc(tmp_path, "default password first")
    credentials = found(tmp_path)
    file.write_text("default password second")
    assert credentials.token() == "second"
    file.chmod(0o644)
    file.write_text("default password third")
    assert credentials.token() == "second"
    file.chmod(0o600)
    assert credentials.token() == "third"
    file.write_text("machine other.example password fourth")
    assert credentials.token() == "third"


def test_a_pipe_gives_its_token_once_and_is_not_waited_for_again(tmp_path: Path) -> None:
    file = tmp_path / "pipe"
    os.mkfifo(file)
    writer = threading.Thread(target=file.write_bytes, args=[b"from-pipe\n"])
    writer.start()
    credentials = found(tmp_path, token_file=file)
    writer.join()
    assert [credentials.token(), credentials.token()] == ["from-pipe", "from-pipe"]


# The file of tokens


def test_where_the_file_of_tokens_is() -> None:
    assert netrc_path({"HOME": "/h"}) == "/h/.config/chatroom/netrc"
    assert netrc_path({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}) == "/c/chatroom/netrc"
    assert netrc_path({"HOME": "/h", "XDG_CONFIG_HOME": "c"}) == "/h/.config/chatroom/netrc"
    assert netrc_path({}) is None


HOSTS = """
# tokens of the team

machine Chat.Example:3000 login alice password with-port
#machine chat.example password commented-out
machine chat.example
    login bob
    # of the night shift
    password #without-port
machine chat.example password second
machine [::1]:3000 password six
machine ::2 password six-bare\r
machine other.example login carol account x password 'odd"
default login eve password any
"""


@pytest.mark.parametrize(
    ("url", "token", "username"),
    [
        ("ws://chat.example:3000", "with-port", "alice"),
        ("wss://CHAT.example", "#without-port", "bob"),
        ("ws://[::1]:3000", "six", None),
        ("ws://[::2]", "six-bare", None),
        ("ws://other.example", "'odd\"", "carol"),
        ("ws://chat.example.org", "any", "eve"),
    ],
)
def test_a_machine_is_found_with_its_port_or_without(
    url: str, token: str, username: str | None, tmp_path: Path
) -> None:
    write_netrc(tmp_path, HOSTS)
    credentials = found(tmp_path, read_url(url, schemes=WEBSOCKET))
    assert (credentials.token(), credentials.username) == (token, username)


def test_a_port_that_is_not_written_is_that_of_the_scheme(tmp_path: Path) -> None:
    write_netrc(tmp_path, "machine h:443 password secure machine h:80 password plain")
    assert found(tmp_path, Place("h", secure=True)).token() == "secure"
    assert found(tmp_path, Place("h")).token() == "plain"


def test_a_file_without_the_machine_is_no_mistake(tmp_path: Path) -> None:
    write_netrc(tmp_path, f"machine other.example password {SECRET}")
    assert found(tmp_path, ask=lambda _: "typed").token() == "typed"
    assert refused(tmp_path).startswith("a token is needed")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o666])
def test_a_file_that_others_may_read_or_change_is_refused(mode: int, tmp_path: Path) -> None:
    home = tmp_path / "my home"
    file = write_netrc(home, f"default password {SECRET}", mode)
    assert refused(home) == f"others may read or change {file}: chmod 600 '{file}'"


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_netrc(tmp_path, f"default password {SECRET}")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert refused(tmp_path) == (
        f"{file} belongs to somebody else, who may read the tokens: make one of your own"
    )


def test_what_is_no_ordinary_file_is_refused(tmp_path: Path) -> None:
    file = write_netrc(tmp_path, "")
    file.unlink()
    os.mkfifo(file, 0o600)
    assert refused(tmp_path) == f"{file} is no ordinary file: {EXAMPLE} into one"
    file.unlink()
    file.mkdir()
    assert refused(tmp_path) == f"{file} is no ordinary file: {EXAMPLE} into one"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"machine chat.example passwort {SECRET}", f"FILE, line 1: {EXAMPLE}"),
        (f"\n{SECRET}\n", f"FILE, line 2: {EXAMPLE}"),
        (f"password {SECRET}", f"FILE, line 1: {EXAMPLE}"),
        (f"macdef m\n{SECRET}", f"FILE, line 1: {EXAMPLE}"),
        (f"default password {SECRET}\nmachine", f"FILE, line 2: {EXAMPLE}"),
        (f"default password x\n#\npassword {SECRET}", f"FILE, line 3: {EXAMPLE}"),
        (f"default password {SECRET} {SECRET}", f"FILE, line 1: {EXAMPLE}"),
        (f"default password {SECRET}".encode() + b"\xff", f"FILE can't be read (it is not UTF-8): {EXAMPLE}"),
        (f"default password {SECRET}\n".encode() + b"#" * 65536, f"FILE is larger than 64 KiB: {EXAMPLE}"),
        (f"default password {SECRET}\u00e9",
         "FILE, password of default: a token is one line of visible ASCII characters"),
        ("machine chat.example login alice",
         "FILE, password of chat.example: a token is one line of visible ASCII characters"),
        (f"default login a\u202e password {SECRET}",
         "FILE, login of default: username may not contain invisible characters"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused_and_not_repeated(
    text: str | bytes, said: str, tmp_path: Path
) -> None:
    file = write_netrc(tmp_path, text)
    assert refused(tmp_path) == said.replace("FILE", str(file))


WORDS = (
    "machine",
    "login",
    "password",
    "default",
    "macdef",
    "chat.example",
    SECRET,
    "#",
    '"',
    "\\",
    "\n",
    " ",
)


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_whatever_stands_in_the_file_is_a_token_or_a_mistake_that_is_not_repeated(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    home = tmp_path_factory.getbasetemp() / "any"
    write_netrc(home, text)
    said = ""
    try:
        credentials = found(home)
    except StartError as error:
        said = "".join(traceback.format_exception(error))
    else:
        assert credentials.token() == read_token(credentials.token())
    assert SECRET not in said


# The terminal

ASKING = """
import os, sys
from chatroom.client.address import Place
from chatroom.client.credentials import ask_at_terminal
if len(sys.argv) > 1:
    os.open(sys.argv[1], os.O_RDWR)  # a session without a terminal gets this one
print(repr(ask_at_terminal(Place("chat.example", secure=True))))
"""
PROMPT = b"Token for https://chat.example: "


def asking(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", ASKING, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("typed", "answer"), [(f" {SECRET} \n".encode(), repr(SECRET)), (b"\n", "''"), (b"\x04", "None")]
)
def test_a_token_that_is_typed_is_not_seen(typed: bytes, answer: str) -> None:
    ours, theirs = pty.openpty()
    with asking(os.ttyname(theirs)) as process:
        shown = b""
        while not shown.endswith(PROMPT):
            shown += os.read(ours, 1024)
        assert not termios.tcgetattr(theirs)[3] & termios.ECHO
        os.write(ours, typed)
        out, err = process.communicate(timeout=60)
        assert (out.decode().strip(), err) == (answer, b"")
        assert termios.tcgetattr(theirs)[3] & termios.ECHO
    os.close(theirs)
    shown += os.read(ours, 1024) if typed.endswith(b"\n") else b""
    os.close(ours)
    assert SECRET.encode() not in shown


def test_while_a_token_is_typed_no_key_stops_or_kills() -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with asking(os.ttyname(theirs)) as process:
        shown = b""
        while not shown.endswith(PROMPT):
            shown += os.read(ours, 1024)
        os.write(ours, b"s3\x1a\x1ccret\n")
        out, err = process.communicate(timeout=60)
        assert (out.decode().strip(), err) == (repr("s3\x1a\x1ccret"), b"")
        assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


def test_control_c_at_the_question_leaves_the_terminal_as_it_was() -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with heeding(signal.SIGINT), asking(os.ttyname(theirs)) as process:
        shown = b""
        while not shown.endswith(PROMPT):
            shown += os.read(ours, 1024)
        os.write(ours, b"\x03")
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
        assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


def test_nobody_is_asked_where_there_is_no_terminal() -> None:
    with asking() as process:
        out, err = process.communicate(timeout=60)
    assert (out, err) == (b"None\n", b"")
