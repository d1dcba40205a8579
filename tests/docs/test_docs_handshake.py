"""The handshake as docs/protocol.md tells it: its parameters, and its refusals in their order."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import trio

from chatroom.auth.tokens import TokenTable
from chatroom.core.connectionlimits import ConnectionLimits
from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.core.sanctions import Action, Sanction
from chatroom.http import handshake
from chatroom.http.handshake import route
from chatroom.http.site import DEFAULT_USERNAME, Admission, Admissions, ChatSite
from tests.support.pages import ROOT, rows, section, words

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
LIMITS = Limits(connections=2, per_user=1, per_address=1)
TOKENS = """
[[token]]
token = "good"
username = "alice"
rooms = { general = "rw" }
"""
HEADERS = {
    "host": "chat.example",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}


def test_the_parameters_and_their_defaults() -> None:
    table = rows(DOCUMENT, "Connecting")
    assert {words(name)[0] for name, _, _ in table} == set(handshake.KNOWN)
    defaults = {words(name)[0]: words(default) for name, default, _ in table}
    assert (defaults["username"], defaults["room"]) == ([DEFAULT_USERNAME], [handshake.DEFAULT_ROOM])
    (line,) = re.findall(r"^    GET /\?(.+)$", DOCUMENT, re.MULTILINE)
    assert [pair.split("=")[0] for pair in line.split("&")] == [words(name)[0] for name, _, _ in table]


class Attempt:
    """A handshake with everything wrong, until one thing after the other is put right."""

    def __init__(self) -> None:
        self.connection_limits = ConnectionLimits(LIMITS)
        verifier = TokenTable.parse(TOKENS, "tokens")
        origins = frozenset({"https://chat.example"})
        self.bans = [Sanction(Action.BAN, "alice", "carol", 60_000, "")]
        self.site = ChatSite(
            admissions=Admissions(verifier, self.connection_limits, origins, lambda: 0.0),
            page=lambda _: Response(200),
            metrics=lambda: Response(200),
            troubles=lambda: (),
            clock=lambda: 0.0,
            watch=lambda _: None,
            ban=self._ban,
            wall_clock=lambda: 0.0,
        )
        self.refusal: Refusal | None = None
        self.draining = True
        self.peer = Peer("192.0.2.1")
        self.slots = [
            self.connection_limits.take_slot(self.peer, "alice"),
            self.connection_limits.take_slot(Peer("192.0.2.2"), "bob"),
        ]
        headers = HEADERS | {
            "upgrade": "nothing",
            "sec-websocket-version": "8",
            "origin": "https://elsewhere",
        }
        self.request = Request("POST", "/nowhere", "room=a&room=b", tuple(headers.items()), "1.0", self.peer)

    async def _ban(self, _room: str, _username: str) -> Sanction | None:
        await trio.lowlevel.checkpoint()
        return self.bans[0] if self.bans else None

    def header(self, name: str, value: str) -> None:
        headers = tuple((key, value if key == name else old) for key, old in self.request.headers)
        self.request = replace(self.request, headers=headers)

    def answer(self) -> int:
        try:
            upgrade = route(self.request, draining=self.draining)
            assert upgrade is not None
            vetted = self.site.vet(self.request, upgrade)
            trio.run(self.site.check_ban, vetted)
            admission = self.site.admit(vetted, upgrade)
        except Refusal as refusal:
            self.refusal = refusal
            return refusal.status
        assert isinstance(admission, Admission)
        self.refusal = None
        return 101

    def mended(self) -> Iterator[int]:
        """What is answered, one mistake less each time."""
        yield self.answer()
        self.draining = False
        yield self.answer()
        self.request = replace(self.request, path="/")
        yield self.answer()
        self.request = replace(self.request, method="GET")
        self.request = replace(self.request, headers=(*self.request.headers, ("host", "again")))
        yield self.answer()
        self.request = replace(self.request, headers=self.request.headers[:-1])
        yield self.answer()
        self.request = replace(self.request, http_version="1.1")
        self.header("upgrade", "websocket")
        yield self.answer()
        self.header("sec-websocket-version", "13")
        yield self.answer()
        self.request = replace(self.request, query="room=a%20b&token=wrong")
        yield self.answer()
        self.header("origin", "https://chat.example")
        yield self.answer()
        self.request = replace(self.request, peer=Peer("192.0.2.3"))
        yield self.answer()
        self.request = replace(self.request, query="room=a%20b&token=good")
        yield self.answer()
        self.request = replace(self.request, query="room=ops&token=good")
        yield self.answer()
        self.request = replace(self.request, query="room=general&token=good")
        yield self.answer()
        self.bans.clear()
        yield self.answer()
        self.slots[0].release()
        self.connection_limits.take_slot(Peer("192.0.2.4"), "carol")
        yield self.answer()
        self.slots[1].release()
        yield self.answer()


def test_the_refusals_come_in_the_order_of_the_table() -> None:
    documented = [int(status) for status, _ in rows(DOCUMENT, "Refusals")]
    assert [*documented, 101] == list(Attempt().mended())


def test_every_status_is_named() -> None:
    raised: set[str] = set()
    for path in (ROOT / "chatroom").rglob("*.py"):
        raised |= set(re.findall(r"(?:Refusal|_refusal)\((\d{3})\b", Path(path).read_text("utf-8")))
    of_proxies = {"500", "502", "504"}
    assert raised | of_proxies == set(re.findall(r"\b[45]\d\d\b", section(DOCUMENT, "Refusals")))


def test_the_statuses_to_wait_after_are_those_with_a_header_for_it() -> None:
    table = rows(DOCUMENT, "Refusals")
    waiting = [("Retry-After" in when) for _, when in table]
    assert {status for status, when in table if "Retry-After" in when} == {"403", "429", "503"}
    attempt = Attempt()
    refusals = [attempt.refusal for _ in attempt.mended()]
    assert refusals.pop() is None
    for refusal, waits in zip(refusals, waiting, strict=True):
        assert refusal is not None
        assert ("Retry-After" in dict(refusal.headers)) == waits, refusal.status
