"""The command `token` makes what a server lets in, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatroom.auth.keys import secret_key
from chatroom.auth.rights import Rights
from chatroom.auth.webtokens import LEEWAY, MOST_AHEAD, Expected, FixedKeys, WebTokens
from chatroom.cli import main
from chatroom.core.errors import StartError
from chatroom.mint import MintSettings, mint, read_mint
from tests.support.process import ROOT
from tests.support.signing import NOW, SECRET, as_json, jwk, private_key, unnamed

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def secret(tmp_path: Path) -> str:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    return str(tmp_path / "secret")


def asked(*arguments: str, **environ: str) -> MintSettings:
    found = read_mint(arguments, environ)
    assert isinstance(found, MintSettings)
    return found


def mistake(*arguments: str, **environ: str) -> str:
    with pytest.raises(StartError) as caught:
        mint(asked(*arguments, **environ), NOW)
    line = str(caught.value)
    assert line.isprintable()
    return line


def identity(token: str, secret: str, *expected: str | None, now: float = NOW) -> Any:
    return WebTokens(FixedKeys((secret_key(secret),)), Expected(*expected), lambda: now).verify(token)


def test_a_token_is_what_it_was_asked_to_be(secret: str) -> None:
    options = (
        "--sub",
        "alice",
        "--room",
        "general:rw",
        "--room",
        "ops-*:r",
        "--room",
        "a:b:w",
        "--ttl",
        "2h",
    )
    token = mint(asked(*options, "--jwt-secret-file", secret), NOW)
    found = identity(token, secret)
    assert (found.username, found.expires) == ("alice", NOW + 7200)
    assert found.rights == Rights.parse({"general": "rw", "ops-*": "r", "a:b": "w"})
    assert identity(token, secret, now=NOW + 7200 + LEEWAY - 1)
    assert not identity(token, secret, now=NOW + 7200 + LEEWAY)


def test_without_rooms_it_is_everything_and_lasts_an_hour(secret: str) -> None:
    found = identity(mint(asked("--sub", "éric", f"--jwt-secret-file={secret}"), NOW), secret)
    assert (found.username, found.rights, found.expires) == ("éric", Rights.everything(), NOW + 3600)


def test_audience_and_issuer_are_those_of_the_server(secret: str) -> None:
    options = ("--sub", "alice", "--jwt-secret-file", secret)
    token = mint(asked(*options, "--jwt-audience", "chat", "--jwt-issuer", "us"), NOW)
    assert identity(token, secret, "chat", "us")
    assert not identity(token, secret, "chat", "them")
    assert not identity(token, secret)
    assert not identity(mint(asked(*options), NOW), secret, "chat", None)


def test_keys_may_come_from_the_environment(secret: str) -> None:
    environ = {
        "CHATROOM_JWT_SECRET_FILE": secret,
        "CHATROOM_JWT_AUDIENCE": "chat",
        "CHATROOM_JWT_ISSUER": "us",
        "CHATROOM_PORT": "x",
        "CHATROOM_SUB": "bob",
    }
    found = asked("--sub", "alice", **environ)
    assert (found.sub, found.jwt_secret_file) == ("alice", secret)
    assert identity(mint(found, NOW), secret, "chat", "us")
    assert asked("--sub", "alice", "--jwt-audience", "mail", **environ).jwt_audience == "mail"


def test_the_longest_life_is_let_in(secret: str) -> None:
    options = ("--sub", "alice", "--ttl", f"{MOST_AHEAD // 3600}h", "--jwt-secret-file", secret)
    assert identity(mint(asked(*options), NOW), secret).expires == NOW + MOST_AHEAD


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "token needs a username: --sub alice"),
        ("--sub alice", "token needs the server's --jwt-secret-file"),
        ("--jwt-secret-file SECRET", "token needs a username: --sub alice"),
        (
            "--sub al\u00a0ice --jwt-secret-file SECRET",
            "--sub: username may only contain letters, digits and ASCII punctuation",
        ),
        ("--sub= --jwt-secret-file SECRET", "--sub: username must have 1 to 32 characters"),
        ("--sub", "--sub: needs a value; --help lists the options"),
        (
            "--sub alice --room general",
            "--room: 'general' names no rights: write it like general:rw, with letters of rwm",
        ),
        (
            "--sub alice --room general:x",
            '--room: rooms: \'general\' must be "r", "w", "m", several of them, or ""',
        ),
        ("--sub alice --room :r", "--room: rooms: '': room must have 1 to 64 characters"),
        ("--sub alice --room a:r --room a:w", "--room: a room is given twice: give all its rights at once"),
        ("--sub alice --ttl 0s", "--ttl: '0s' is out of range: give a duration from 1s to 30d"),
        ("--sub alice --ttl 31d", "--ttl: '31d' is out of range: give a duration from 1s to 30d"),
        ("--sub alice --ttl -1h", "--ttl: needs a value; --help lists the options"),
        ("--sub alice --ttl=-1h", "--ttl: '-1h' is not a duration: write it like 500ms, 20s, 5m, 1h or 7d"),
        ("--sub alice --ttl 60", "--ttl: '60' has no unit: write 60s, or another of ms, s, m, h, d"),
        ("--sub alice --subs x", "unknown option '--subs'; did you mean --sub?"),
        ("--sub alice bob", "unexpected argument 'bob'; --help lists the options"),
        ("--sub alice --jwt-secret-file ", "--jwt-secret-file: an empty file name: give the path of a file"),
    ],
)
def test_wrong_use_is_one_line(arguments: str, line: str, secret: str) -> None:
    given = arguments.split(" ") if arguments else []
    if "--room" in given or "--ttl" in arguments:
        given += ["--jwt-secret-file", "SECRET"]
    said = mistake(*(secret if each == "SECRET" else each for each in given))
    assert said == line


def test_a_room_is_told_apart_by_its_clean_name(secret: str) -> None:
    options = ("--sub", "alice", "--jwt-secret-file", secret, "--room", "é:r", "--room")
    assert "given twice" in mistake(*options, "e\u0301:w")
    assert asked(*options, "É:w").rooms == (("é", "r"), ("É", "w"))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"short\n", "has 5 bytes"), (as_json(jwk(private_key("P-256"))), "holds a key that is no secret")],
    ids=unnamed,
)
def test_a_secret_that_the_server_would_not_take(secret: str, content: bytes, says: str) -> None:
    Path(secret).write_bytes(content)
    assert says in mistake("--sub", "alice", "--jwt-secret-file", secret)
    Path(secret).unlink()
    assert "can't be read" in mistake("--sub", "alice", "--jwt-secret-file", secret)


def test_what_no_server_would_take_is_refused(secret: str) -> None:
    rooms = [part for number in range(400) for part in ("--room", f"a-rather-long-name-{number}:rw")]
    line = mistake("--sub", "alice", "--jwt-secret-file", secret, *rooms)
    assert re.fullmatch(
        r"the token has \d+ characters, and a server takes 8192 at most: name fewer rooms", line
    )


# As a command


def test_the_command_prints_the_token_and_nothing_else(secret: str, capfd: Captured) -> None:
    assert main(["token", "--sub", "alice", "--jwt-secret-file", secret], {}) == 0
    out, err = capfd.readouterr()
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", out, re.ASCII)
    assert err == ""


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_a_token_that_nobody_gets_is_told(secret: str, redirect: str) -> None:
    command = f'"$0" -m chatroom token --sub alice --jwt-secret-file "$1" {redirect}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, secret], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr == "chatroom: the token can't be written: see where standard output goes\n"


def test_its_help_names_its_options(capfd: Captured) -> None:
    assert main(["token", "--help"], {}) == 0
    out, _ = capfd.readouterr()
    flags = set(re.findall(r"^  (--[\w-]+)", out, re.MULTILINE))
    assert flags == {
        "--sub", "--room", "--ttl", "--jwt-secret-file", "--jwt-audience", "--jwt-issuer", "--help",
    }  # fmt: skip


def test_a_mistake_is_exit_code_2(capfd: Captured) -> None:
    assert main(["token", "--sub", "a\nb"], {}) == 2
    assert capfd.readouterr() == ("", "chatroom: --sub: username may not contain control characters\n")
