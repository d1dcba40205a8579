"""Nothing leaks: tokens shown in every way, right and wrong, are in nothing that the server writes or says.

Each way has tokens of its own, so that a leak names the way. What is searched: both standard outputs, with
the log at debug in both formats, every byte sent to anybody, the files of the database, metrics and page.
What is searched for: the token, its usual encodings, and its digests in those encodings.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.process import ServerProcess
from tests.support.raw import BINARY, CLOSE, UPGRADE, Raw, close, command, frame, handshake, head
from tests.support.scene import await_true, refused_start
from tests.support.signing import SECRET, claims
from tests.support.signing import token as signed

HOST = ("Host", "localhost")


def token(name: str) -> str:
    """A token that occurs nowhere else: 20 hex digits that stand for the name."""
    return f"{name}-{hashlib.sha256(b'secret of ' + name.encode()).hexdigest()[:20]}"


def web_token(name: str, signer: bytes = SECRET) -> str:
    """A token that is signed."""
    return signed(claims(time.time(), jti=name), signer)


def variants(secret: str) -> set[bytes]:
    """What would give a secret away. A digest does, since it can be tried against at leisure."""
    digest = hashlib.sha256(secret.encode()).digest()
    # Without the name, or what is signed: it may be cut or escaped before that.
    core = secret.rpartition("." if secret.startswith("eyJ") else "-")[2].encode()
    found = {core, core.upper(), core[::-1], core.hex().encode()}
    for raw in (secret.encode(), core, digest, b"Bearer " + secret.encode()):
        encoded = (base64.b64encode(raw), base64.urlsafe_b64encode(raw))
        found |= {each.rstrip(b"=") for each in encoded}
    found |= {digest, digest.hex().encode(), digest.hex().upper().encode()}
    return found


@dataclass
class Listener:
    """Sends what a way has to send, and keeps every byte that comes back."""

    server: ServerProcess
    heard: bytearray = field(default_factory=bytearray)

    def tell(self, *pieces: bytes) -> None:
        """One connection: send it all, and hear the server out."""
        raw = Raw(self.server.port)
        raw.send(*pieces)
        raw.half_close()
        self.heard += raw.read_end()
        raw.close()

    def talk(self, good: str, *frames: bytes) -> None:
        """One let in by a good token, who sends these frames."""
        self.tell(handshake("/?token=" + good), *frames)


Way = Callable[[Listener, str, str], None]


def plain(target: str, *headers: tuple[str, str], method: str = "GET", version: str = "1.1") -> bytes:
    return head(f"{method} {target} HTTP/{version}", HOST, *headers)


def by_every_door(there: Listener, good: str, wrong: str) -> None:
    for each in (good, wrong):
        escaped = "".join(f"%{ord(char):02x}" for char in each)
        for value in (each, escaped, quote(each) + "%20", "%ff" + each, each + "%", each + " x"):
            there.tell(handshake(f"/?token={value}"))
            there.tell(plain(f"/handshake?token={value}"))
            there.tell(plain(f"/handshake?token={value}", method="HEAD"))
        for scheme in ("Bearer", "bearer", "Basic", "Token", ""):
            bearer = ("Authorization", f"{scheme} {each}")
            there.tell(handshake("/", bearer))
            there.tell(plain("/handshake", bearer))
            there.tell(handshake("/?token=other", bearer))
        for offer in (
            f"chatroom.v1, bearer.{each}",
            f"bearer.{each}",
            f"chatroom.v1, bearer.{each}, bearer.{each}",
            f"chatroom.v1, bearer.{each} x",
            f"chatroom.v1, {each}",
        ):
            there.tell(handshake("/", ("Sec-WebSocket-Protocol", offer)))


def beside_the_door(there: Listener, good: str, wrong: str) -> None:
    for each in (good, wrong):
        for path in ("/nowhere", "/metrics", "/handshake", "/readyz", "/", f"/{each}", f"//{each}@x/"):
            for method in ("GET", "POST", "OPTIONS"):
                there.tell(plain(f"{path}?token={each}", method=method))
            there.tell(handshake(f"{path}?token={each}&token={each}"))
        for name in ("Cookie", "Referer", "X-Token", "User-Agent", "X-Forwarded-For", "Forwarded", "Origin"):
            there.tell(handshake("/", (name, f"token={each}")))
        for query in ("room=%00", "username=%ff", "since=x&epoch=e", "room=a&room=b", f"x={each}"):
            there.tell(handshake(f"/?token={each}&{query}"))


def in_wrong_heads(there: Listener, good: str, wrong: str) -> None:
    for each in (good, wrong):
        data = each.encode()
        for sent in (
            b"GET /?token=" + data + b"\r\n\r\n",
            b"GET /?token=" + data + b" HTTP/9.9\r\nHost: a\r\n\r\n",
            b"GET /?token=" + data + b" HTTP/1.1\r\nbad " + data + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: " + data + b"!\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b": 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + data + b"\x00\r\n\r\n",
            b"GET http://" + data + b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /?token=" + data + b"x" * 33_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + data + b"x" * 33_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + (data + b": 1\r\n") * 65 + b"\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\ntoken=" + data,
            data,
            b"\x16\x03\x01" + data,
        ):
            there.tell(sent)
        there.tell(head(f"GET /?token={each} HTTP/1.0", *UPGRADE))
        there.tell(head(f"GET /?token={each} HTTP/1.1", *UPGRADE[:-1], ("Sec-WebSocket-Version", "8")))
        there.tell(handshake("/", ("Sec-WebSocket-Key", each)))


def in_commands(there: Listener, good: str, wrong: str) -> None:
    for each in (good, wrong):
        for sent in (
            command("auth", "c1", token=each),
            command("auth", token=[each]),
            command("auth", token={each: each}),
            command("auth", token=each + " "),
            command("auth", token=each, more=each),
            command("message", text="said", token=each),
            command("history", "c2", limit=each),
            command("switch_room", "c3", room="elsewhere", since=each),
            command("typing", active=each),
            frame(json.dumps({"event": "auth", "data": each})),
            frame(json.dumps({"event": "auth", "token": each, "data": {}})),
            frame(json.dumps({"event": "auth", "data": {"token": each}})[:-1]),
            frame(f'{{"event":"auth","data":{{"token":"{each}","token":"{each}"}}}}'),
            frame(f'{{"event":"auth","data":{{"token":"{each}\\ud800"}}}}'),
            frame(each),
        ):
            there.talk(good, sent, close(1000))
        there.talk(good, *([frame(each)] * 12))
        for last in (
            frame(each, BINARY),
            frame(each.encode() + b"\xff"),
            frame(each, first=0xF1),
            frame(each, mask=None),
            frame(each, length=100_000),
            frame(b"\x0b\xb7" + each.encode(), CLOSE),
            close(999, each),
        ):
            there.talk(good, last)
        if len(each) > 123:  # more than fits into a close frame
            continue
        # A close frame is answered by one like it, to whoever wrote it and to nobody else.
        heard = len(there.heard)
        there.talk(good, close(1000, each))
        there.heard[heard:] = there.heard[heard:].replace(frame_of_server(1000, each), b"")


def frame_of_server(code: int, reason: str) -> bytes:
    """A close frame as a server writes it: not masked."""
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes([0x80 | CLOSE, len(payload)]) + payload


WAYS = {"doors": by_every_door, "beside": beside_the_door, "heads": in_wrong_heads, "commands": in_commands}


@pytest.fixture(params=["text", "json"])
def listener(request: pytest.FixtureRequest, pyz: Path, tmp_path: Path) -> Iterator[Listener]:
    """A server at debug that knows a token of each way, one in plain text and the next by its digest."""
    tokens = tmp_path / "tokens.toml"
    entries = []
    for number, name in enumerate(WAYS):
        good = token(name)
        digest = hashlib.sha256(good.encode()).hexdigest()
        entries.append(f'[[token]]\ntoken = "{good}"' if number % 2 else f'[[token]]\nsha256 = "{digest}"')
    tokens.write_text("\n".join(entries))
    key = tmp_path / "secret"
    key.write_bytes(SECRET)
    sources = ("--tokens", str(tokens), "--jwt-secret-file", str(key))
    options = (*sources, "--log-level", "debug", "--log-format", request.param)
    folder = tmp_path / "server"
    folder.mkdir()
    with ServerProcess(*options, "--max-per-user", "1000", "--rate", "0", cwd=folder) as server:
        yield Listener(server)


def test_tokens_are_nowhere_but_with_who_has_them(listener: Listener) -> None:
    server = listener.server
    secrets = [SECRET.decode()]
    for name, way in WAYS.items():
        web = web_token(name), web_token(name, b"another secret, of 32 bytes and more")
        for good, wrong in ((token(name), token(f"wrong-{name}")), web):
            way(listener, good, wrong)
            secrets += (good, wrong)
    for path in ("/", "/metrics", "/readyz", "/nowhere"):
        listener.tell(plain(path))
    assert isinstance(server.cwd, Path)
    database = b"".join(path.read_bytes() for path in server.cwd.iterdir())
    assert b"said" in database, "messages were stored"
    assert server.stop() == 0
    closed = b"".join(path.read_bytes() for path in server.cwd.iterdir())
    stdout = "\n".join(server.lines).encode()
    places = {
        "stdout": stdout,
        "stderr": server.stderr.encode(),
        "answers": bytes(listener.heard),
        "database": database,
        "database when closed": closed,
    }
    assert all(places.values())
    for secret in secrets:
        for variant in variants(secret):
            for place, content in places.items():
                assert variant not in content, (secret, variant, place)
    answered = {int(part[:3]) for part in bytes(listener.heard).split(b"HTTP/1.1 ")[1:]}
    assert answered == {101, 200, 204, 400, 401, 404, 405, 414, 426, 431, 505}
    assert "Traceback" not in server.stderr


def test_what_a_wrong_token_file_holds_is_not_quoted(pyz: Path, tmp_path: Path) -> None:
    secret = token("file")
    for number, content in enumerate(
        (
            f'[[token]]\ntoken = "{secret}',
            f"[[token]]\ntoken = {secret}",
            f'[[token]]\ntoken = "{secret} "',
            f'[[token]]\nsha256 = "{secret}"',
            f'[[token]]\ntoken = "{secret}"\n{secret} = 1',
            f'[[token]]\ntoken = "{secret}"\nrooms = "{secret}"',
            f'[[token]]\ntoken = "{secret}"\nrooms = {{ a = "{secret}" }}',
            f'[[token]]\ntoken = "{secret}"\nusername = "{secret} {secret}"',
            f'[[token]]\ntoken = "{secret}"\n[[token]]\ntoken = "{secret}"',
            f'token = "{secret}"',
            f"[{secret}]",
            secret,
        )
    ):
        file = tmp_path / f"{number}.toml"
        file.write_text(content)
        line = refused_start("--tokens", str(file), "--port", "0", "--db", "none").encode()
        assert not any(variant in line for variant in variants(secret)), line


def test_the_search_finds_what_is_planted() -> None:
    secret = token("planted")
    digest = hashlib.sha256(secret.encode())
    for leak in (secret, secret[3:], digest.hexdigest(), base64.b64encode(secret.encode()).decode()):
        text = f"before {leak} after".encode()
        assert any(variant in text for variant in variants(secret)), leak
    assert not any(variant in b"nothing of it" for variant in variants(secret))


def test_every_way_is_taken(listener: Listener) -> None:
    """The tokens that are good let in, or the search would have nothing to find."""
    for name in WAYS:
        for good in (token(name), web_token(name)):
            before = len(listener.heard)
            listener.talk(good, close(1000))
            assert listener.heard[before:].startswith(b"HTTP/1.1 101")
    await_true(lambda: listener.server.stderr.count("LEAVE") >= 2 * len(WAYS), "all have left")
