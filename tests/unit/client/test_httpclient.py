"""Requests to a server: what is sent, what an answer means, and what is said of a failure."""

import json
import socket
import ssl
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from chatroom.client.address import Place
from chatroom.client.httpclient import MAX_ANSWER, MAX_PAUSES, Client, Refused, Unreachable
from tests.support.answering import Answering, answer, refusal
from tests.support.process import ROOT

PEM = ROOT / "tests" / "support" / "localhost.pem"
SECRET = "s3" + "cret"


def ask(place: Place, **options: Any) -> dict[str, Any]:
    """One request."""
    with closing(Client(place, **options)) as client:
        return client.ask("GET", "/rooms")


# Requests


def test_a_request_has_what_it_was_given() -> None:
    with Answering(answer({"id": 1}), answer({})) as server:
        client = Client(server.place, token=SECRET, username="\u00e9")
        body = {"text": "hi\u00e9"}
        assert client.ask("POST", "/rooms/r/messages", {"a": "&"}, body, "k1") == {"id": 1}
        assert client.ask("GET", "/rooms") == {}
        client.close()
    (head, sent), (second, nothing) = server.requests
    assert head.splitlines()[0] == "POST /rooms/r/messages?username=%C3%A9&a=%26 HTTP/1.1"
    assert f"Authorization: Bearer {SECRET}" in head
    assert "Idempotency-Key: k1" in head
    assert "Content-Type: application/json" in head
    assert json.loads(sent) == body
    assert second.splitlines()[0] == "GET /rooms?username=%C3%A9 HTTP/1.1"
    assert nothing == b""


def test_a_path_in_the_address_stands_before_that_of_the_request() -> None:
    with Answering(answer({})) as server:
        ask(server.place._replace(path="/chat"))
    assert server.requests[0][0].startswith("GET /chat/rooms HTTP/1.1\n")
    assert "Authorization" not in server.requests[0][0]


def test_a_unix_socket_is_asked_in_the_same_way(tmp_path: Path) -> None:
    with Answering(answer({"a": 1}), unix=tmp_path / "s") as server:
        assert ask(server.place) == {"a": 1}
    assert "Host: localhost" in server.requests[0][0]


@pytest.mark.parametrize("when", ["at once", "before the next request"])
def test_a_connection_that_was_closed_is_opened_again(when: str) -> None:
    first = answer({"n": 1}, close=when == "at once")
    answers = [first, answer({"n": 2})] if when == "at once" else [first, None, answer({"n": 2})]
    with ExitStack() as stack, Answering(*answers) as server:
        client = stack.enter_context(closing(Client(server.place)))
        assert [client.ask("GET", "/rooms")["n"] for _ in range(2)] == [1, 2]


def test_a_new_connection_that_is_closed_is_not_tried_again() -> None:
    with Answering(None, answer({})) as server, pytest.raises(Unreachable, match="can't be reached"):
        ask(server.place)
    assert len(server.requests) == 1


# Answers


def test_who_asks_too_fast_waits_as_long_as_the_server_says() -> None:
    slept: list[float] = []
    slow = refusal("429 Too Many Requests", "Too many messages of this username", "Retry-After: 2")
    with Answering(slow, slow, answer({"id": 1})) as server:
        assert ask(server.place, sleep=slept.append) == {"id": 1}
    assert slept == [2, 2]


@pytest.mark.parametrize("header", [[], ["Retry-After: soon"], [f"Retry-After: {MAX_PAUSES + 1:.0f}"]])
def test_nobody_waits_without_end(header: list[str]) -> None:
    slow = refusal("429 Too Many Requests", "Too many", *header)
    with Answering(slow) as server, pytest.raises(Refused, match=r"^Too many \(429\)$"):
        ask(server.place, sleep=lambda _: pytest.fail("it waits"))


STRANGE = "PLACE gives no answer of a chatroom, but"
LATE = "PLACE can't be reached:"


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (refusal("403 Forbidden", "No right to this room\n"), Refused, "No right to this room (403)"),
        (refusal("404 Not Found", "\u00e9 \u2713"), Refused, "\u00e9 \u2713 (404)"),
        (refusal("503 Service Unavailable", "Restarting"), Unreachable, "Restarting (503)"),
        (answer(b"<h1>Bad", "502 Bad Gateway", "text/html"), Unreachable, f"{STRANGE} 502 and text/html"),
        (refusal("404 Not Found", "x" * 501), Unreachable, f"{STRANGE} 404 and text/plain"),
        (refusal("404 Not Found", ""), Unreachable, f"{STRANGE} 404 and text/plain"),
        (answer(b"", "301 Moved", "text/plain", "Location: /"), Unreachable, f"{STRANGE} 301 and text/plain"),
        (answer([]), Unreachable, f"{STRANGE} 200 and application/json"),
        (answer(b"{"), Unreachable, f"{STRANGE} 200 and application/json"),
        (answer(b"[" * 100_000), Unreachable, f"{STRANGE} 200 and application/json"),
        (answer(b"\xff"), Unreachable, f"{STRANGE} 200 and application/json"),
        (answer({})[:-1], Unreachable, f"{LATE} no HTTP (IncompleteRead)"),
        (answer(b"x" * (MAX_ANSWER + 1)), Unreachable, "PLACE answers without end"),
        (b"SSH-2.0-x\r\n\r\n", Unreachable, f"{LATE} no HTTP (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, Unreachable, f"{LATE} no HTTP (LineTooLong)"),
        (None, Unreachable, f"{LATE} Remote end closed connection without response"),
    ],
)
def test_what_is_said_of_an_answer(reply: bytes | None, kind: type[Exception], said: str) -> None:
    with Answering(reply) as server, pytest.raises(kind) as caught:
        ask(server.place, token=SECRET, seconds=0.5)
    assert str(caught.value) == said.replace("PLACE", server.place.shown)
    assert SECRET not in str(caught.value)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = Place("127.0.0.1", closed.getsockname()[1])
    with pytest.raises(Unreachable, match=r"^http://127.0.0.1:\d+ can't be reached: Connection refused$"):
        ask(place)
    with pytest.raises(Unreachable, match=r"^unix:.*/s can't be reached: No such file or directory$"):
        Client(Place(unix=str(tmp_path / "s"))).ask("GET", "/rooms")
    with pytest.raises(Unreachable, match=r"^http://nowhere\.invalid can't be reached: "):
        ask(Place("nowhere.invalid"))


def test_a_server_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Place("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(Unreachable, match=r"can't be reached: no answer in time$"):
            ask(place, seconds=0.1)


# TLS


def one_answer_by_tls() -> Place:
    """A server with a certificate for localhost that no system trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    listening = socket.create_server(("", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as plain:
            try:
                with context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(4096)
                    secure.sendall(answer({"a": 1}))
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    return Place("localhost", listening.getsockname()[1], secure=True)


def test_a_certificate_is_checked() -> None:
    with pytest.raises(Unreachable, match=r"its certificate isn't trusted \(self.signed certificate\)$"):
        ask(one_answer_by_tls())
    assert ask(one_answer_by_tls(), ca=str(PEM)) == {"a": 1}
    place = one_answer_by_tls()._replace(host="127.0.0.2")
    with pytest.raises(Unreachable, match=r"its certificate isn't trusted \(IP address mismatch"):
        ask(place, ca=str(PEM))
