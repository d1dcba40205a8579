"""Addresses of servers: what names a place, how a place is shown, and that no mistake is repeated."""

import ssl
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.address import HTTP, WEBSOCKET, Place, read_url, trusting
from chatroom.core.errors import StartError
from tests.support.process import ROOT, clean_environment

SECRET = "s3" + "cret"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("http://localhost:3000", Place("localhost", 3000)),
        ("https://chat.example", Place("chat.example", None, "", True)),
        ("https://chat.example/chat/", Place("chat.example", None, "/chat", True)),
        ("http://[::1]:3000", Place("::1", 3000)),
        ("http://[2001:DB8::0:1]", Place("2001:db8::1")),
        ("http://127.0.0.1/", Place("127.0.0.1")),
        ("HTTP://Chat.Example", Place("chat.example")),
        ("https://h:443/caf%C3%A9", Place("h", None, "/caf%C3%A9", True)),
        ("https://h:80", Place("h", 80, "", True)),
        ("http://xn--mnchen-3ya.example", Place("xn--mnchen-3ya.example")),
    ],
)
def test_an_address_names_a_place(text: str, place: Place) -> None:
    assert read_url(text, schemes=HTTP) == place
    assert read_url(place.shown, schemes=HTTP) == place


@pytest.mark.parametrize(
    ("text", "shown", "address"),
    [
        ("ws://localhost:3000", "ws://localhost:3000", ("localhost", 3000)),
        ("http://localhost:3000/", "ws://localhost:3000", ("localhost", 3000)),
        ("ws://h:80", "ws://h", ("h", 80)),
        ("wss://chat.example", "wss://chat.example", ("chat.example", 443)),
        ("https://Chat.example:443/chat", "wss://chat.example/chat", ("chat.example", 443)),
        ("WSS://[::1]:80", "wss://[::1]:80", ("::1", 80)),
        (f"ws://{'x' * 58}:3000", f"ws://{'x' * 58}:3000", ("x" * 58, 3000)),
        (f"ws://{'x' * 63}.example:3000", f"ws://{'x' * 63}.example:3000", (f"{'x' * 63}.example", 3000)),
        (f"ws://{'x' * 63}:80", f"ws://{'x' * 63}", ("x" * 63, 80)),
    ],
)
def test_for_a_websocket_both_kinds_of_schemes_mean_the_same(
    text: str, shown: str, address: tuple[str, int]
) -> None:
    place = read_url(text, schemes=WEBSOCKET)
    assert (place.shown, place.address) == (shown, address)
    assert read_url(shown, schemes=WEBSOCKET) == place


def test_a_unix_socket_is_shown_by_its_path() -> None:
    assert Place(unix="/run/s").shown == "unix:/run/s"


NO_ADDRESS = "no address of a server: write it like wss://chat.example or ws://localhost:3000"
NO_HOST = "an address begins with HOST or HOST:PORT, IPv6 in brackets"
NO_NAME = "the host of an address is a name of letters, digits, dots and hyphens, or an IP"
NO_PORT = "the port of an address is a number from 1 to 65535"
NO_PATH = "the path of an address is percent-encoded ASCII"
NO_QUERY = (
    "an address has no query or fragment here: --room and --username say where, and CHATROOM_TOKEN or "
    "--token-file give the token"
)
NO_USER = "an address has no user and no @ here: CHATROOM_TOKEN or --token-file give the token"
TOO_LONG = "the last part of a host's name is too long beside its port: write the whole name"
NO_SIX = "what stands in brackets is no IPv6 address"
NO_ASCII = "the host of an address is ASCII: write a name in other letters as xn--…"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", NO_ADDRESS), ("localhost", NO_ADDRESS), ("localhost:3000", NO_ADDRESS),
        ("file:///x", NO_ADDRESS), ("unix:/run/s", NO_ADDRESS), (" ws://h", NO_ADDRESS),
        ("ws:/h", NO_ADDRESS), ("\nws://h", NO_ADDRESS),
        ("ws://", NO_HOST), ("ws://:3000", NO_HOST), ("ws://h:x", NO_HOST), ("ws://h:", NO_HOST),
        ("ws://[::1", NO_HOST), ("ws://::1", NO_HOST), ("ws://[fe80::1%eth0]", NO_HOST),
        ("ws://a b", NO_NAME), ("ws://-h", NO_NAME), ("ws://h\n", NO_NAME), ("ws://%41", NO_NAME),
        ("ws://a..b", NO_NAME), ("ws://a.-b", NO_NAME), (f"ws://{'x' * 64}.example", NO_NAME),
        (f"ws://{'x' * 59}:3000", TOO_LONG), (f"ws://{'x.' * 128}", NO_NAME),
        ("ws://h\x1b[31m/", NO_HOST), ("ws://h\x1b/", NO_NAME),
        ("ws://h:70000", NO_PORT), ("ws://h:0", NO_PORT),
        ("ws://[1:2]", NO_SIX),
        ("ws://m\u00fcnchen.example", NO_ASCII), ("ws://h:\u0663", NO_ASCII),
        ("ws://h/a b", NO_PATH), ("ws://h/\u00e9", NO_PATH), ("ws://h/%", NO_PATH),
        ("ws://h/\r\nX:", NO_PATH),
        (f"ws://me:{SECRET}@h", NO_USER), (f"ws://{SECRET}@h", NO_USER), (f"ws://me:x/{SECRET}@h", NO_USER),
        (f"ws://h/?token={SECRET}", NO_QUERY), (f"ws://h?token={SECRET}", NO_QUERY),
        (f"ws://h/#{SECRET}", NO_QUERY), ("ws://h/?", NO_QUERY), (f"ws://h/?\n{SECRET}", NO_QUERY),
    ],
)  # fmt: skip
def test_what_is_no_address(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the sentences differ)
        read_url(text, schemes=WEBSOCKET)
    assert str(caught.value) == why


def test_an_address_for_http_is_of_http() -> None:
    with pytest.raises(ValueError, match=r"^no address .* https://chat\.example or http://localhost:3000$"):
        read_url("ws://localhost", schemes=HTTP)
    with pytest.raises(ValueError, match=r"^an address has no query or fragment here: CHATROOM_TOKEN or"):
        read_url("http://localhost/?room=ops", schemes=HTTP)


PIECES = (SECRET, "ws://", "h", ":", "/", "@", "?", "#", "[", "]", "%", " ", "\n", "\u00e9")


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_an_error_repeats_nothing(text: str) -> None:
    said = ""
    try:
        place = read_url(text, schemes=WEBSOCKET)
    except ValueError as error:
        said = "".join(traceback.format_exception(error))
    else:
        assert read_url(place.shown, schemes=WEBSOCKET) == place
    assert SECRET not in said


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(
            StartError, match=f"--ca {path} can't be used .*: give a PEM file of certificates"
        ):
            trusting(str(path))


def test_certificates_are_checked_by_the_file_alone() -> None:
    context = trusting(str(ROOT / "tests" / "support" / "localhost.pem"))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1


def test_an_address_is_read_without_what_is_slow_to_import() -> None:
    code = (
        "import sys; from chatroom.client.address import WEBSOCKET, read_url; "
        "read_url('wss://h', schemes=WEBSOCKET); "
        "sys.exit(bool({'ssl', 'http.client', 'socket', 'trio', 'urllib.request'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    environ = clean_environment(measured=False)
    assert subprocess.run(command, env=environ, check=False, timeout=60).returncode == 0
