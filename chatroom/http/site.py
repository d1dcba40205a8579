"""The site behind the front door: who is let in, and what plain HTTP is answered.

1. A handshake and `GET /handshake` go through the same steps; they differ only in the last one, which
   takes a place or only looks whether there is one.
2. All refused tokens are answered alike, and looked at alike. A wrong one is counted against its sender's
   address; a right one is let in, whatever others behind that address have tried.
3. Nothing here waits.
"""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from chatroom.auth.tokens import Identity, Verifier
from chatroom.core.connectionlimits import ConnectionLimits, Place
from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.logevents import log_event
from chatroom.core.pace import Sampler, Window
from chatroom.http.handshake import (
    HANDSHAKE_PATH,
    METRICS_PATH,
    PATHS,
    SUBPROTOCOL,
    JoinRequest,
    Upgrade,
    let_in,
)

DEFAULT_USERNAME = "anonymous"
LOGGED_REFUSALS = 10
"""Refusals of a second with a line each in the log; of the others it has the number."""
SHOWN_PATH = 64
"""Characters of a path that are logged."""
SHOWN_SEGMENTS = 6
HIDDEN = "*"
"""Instead of a part of a path that could be a secret."""
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9._~-]{1,16}")
METRICS_A_SECOND = 20
"""How often a second metrics are made anew: it takes milliseconds, and anyone may ask."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A client that was let in: its name, by what right it is here, where it goes, and its place."""

    place: Place
    peer: Peer
    username: str
    identity: Identity
    wish: JoinRequest
    subprotocol: bool = False


class Door:
    """The steps of `let_in` up to the last; see AdmissionPolicy."""

    def __init__(
        self,
        verifier: Verifier,
        tallies: ConnectionLimits,
        origins: frozenset[str] | None,
        clock: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self.tallies = tallies
        self.origins = origins
        self._clock = clock

    def check_address(self, peer: Peer) -> None:
        """429 if the address has too many connections."""
        self.tallies.check_address(peer)

    def identify(self, peer: Peer, token: str | None) -> Identity:
        """Whom the token stands for, else 401, or 429 after too many wrong ones."""
        identity = self._verifier.verify(token)
        if identity is None:
            self.tallies.wrong_token(peer, self._clock())
            raise Refusal(401, "Unauthorized", (("WWW-Authenticate", "Bearer"),))
        return identity

    def renew(self, peer: Peer, username: str, token: str) -> Identity | None:
        """Whom a token stands for that comes later, on a connection of `username`.

        None if the token isn't for that name, or is wrong, which counts as it does at the door.
        """
        try:
            identity = self.identify(peer, token)
        except Refusal:
            return None
        return identity if self._verifier.allows(identity, username) else None

    def knows(self, token: str) -> bool:
        """Whether this is a token, without counting it if it is none."""
        return self._verifier.verify(token) is not None

    def authorize(self, identity: Identity, wish: JoinRequest) -> str:
        """The username; 403 without the right to it or to the room."""
        username = wish.username or identity.username or DEFAULT_USERNAME
        if identity.username not in (None, username):
            raise Refusal(403, "This token is bound to another username")
        if not self._verifier.allows(identity, username):
            raise Refusal(403, "This username is reserved for other tokens")
        if not identity.rights.can(wish.room, "r"):
            raise Refusal(403, "No right to this room")
        return username

    def check_room_for(self, username: str) -> None:
        """429 if the username has too many connections, 503 if the server has."""
        self.tallies.check_user(username)
        self.tallies.check_full()


class Entrance(Door):
    """The door for those who come in."""

    def enter(self, peer: Peer, identity: Identity, username: str, wish: JoinRequest) -> Admission:
        """Take a place."""
        self.check_room_for(username)
        return Admission(self.tallies.enter(peer, username), peer, username, identity, wish)


class Enquiry(Door):
    """The door for those who only ask whether they would be let in."""

    def enter(self, peer: Peer, identity: Identity, username: str, wish: JoinRequest) -> Response:
        """Say yes."""
        self.check_room_for(username)
        return _json({"username": username, "room": wish.room})


def _json(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value, ensure_ascii=False).encode() + b"\n", "application/json")


class ChatSite:
    """What is behind the front door; see frontdoor.Site."""

    def __init__(
        self,
        *,
        entrance: Entrance,
        enquiry: Enquiry,
        page: Callable[[Request], Response],
        metrics: Callable[[], Response],
        troubles: Callable[[], tuple[str, ...]],
        clock: Callable[[], float],
        watch: Callable[["ChatSite"], None],
    ) -> None:
        self._entrance = entrance
        self._enquiry = enquiry
        self._page = page
        self._metrics = metrics
        self._troubles = troubles
        self._clock = clock
        self._watch = watch
        self._sampler = Sampler(LOGGED_REFUSALS)
        self._recent: Response | None = None
        self._made = Window(METRICS_A_SECOND, 1.0)
        self._disbelieved = False
        self.refusals: Counter[int] = Counter()
        self.draining = False
        self.metrics_elsewhere = False
        """They have a port of their own, and are not here."""

    @property
    def paths(self) -> frozenset[str]:
        """What may be asked for."""
        return PATHS - {METRICS_PATH} if self.metrics_elsewhere else PATHS

    def answer(self, request: Request) -> Response:
        """The answer to a plain GET."""
        match request.path:
            case "/":
                return self._page(request)
            case "/healthz":
                return Response(200, b"ok\n")
            case "/readyz":
                return self._ready()
            case _ if request.path == METRICS_PATH:
                return self._recent_metrics()
            case _:
                assert request.path == HANDSHAKE_PATH
                return let_in(request, None, self._enquiry)

    def admit(self, request: Request, upgrade: Upgrade) -> Admission:
        """Let a WebSocket in."""
        admission = let_in(request, upgrade, self._entrance)
        return replace(admission, subprotocol=SUBPROTOCOL in upgrade.subprotocols)

    def disbelieved(self, peer: Peer) -> None:
        """Say once that somebody may have been forgotten as a trusted proxy."""
        if not self._disbelieved:
            self._disbelieved = True
            hint = "its X-Forwarded-For is ignored; if it is your proxy, name it by --trusted-proxy"
            log_event(logging.WARNING, "untrusted_proxy", peer=peer.address, hint=hint)

    def refused(self, peer: Peer, status: int, request: Request | None) -> None:
        """Count a refusal and log it, or its number if there are too many."""
        self.refusals[status] += 1
        waiting = self._sampler.waiting
        if self._sampler.passes(status, self._clock()):
            path = None if request is None else self._shown(request.path)
            log_event(logging.INFO, "refused", peer=peer.address, status=status, path=path, count=1)
        elif not waiting:
            self._watch(self)

    def on_timer(self, now: float) -> float:
        """Log how many more were refused, if that is due; return after how many seconds to call again."""
        if wait := self._sampler.wait(now):
            return wait
        self.tell_refusals()
        return math.inf

    def tell_refusals(self) -> None:
        """Log the numbers of those that aren't logged yet."""
        for status, count in self._sampler.left_out().items():
            log_event(logging.INFO, "refused", status=status, count=count)

    def _shown(self, path: str) -> str:
        """A path for the log: a mistaken prefix can be seen in it, but no token that has slipped into it."""
        if path in PATHS:
            return path
        segments = path[:SHOWN_PATH].split("/", SHOWN_SEGMENTS)  # the last one has the rest, with its slashes
        if len(path) > SHOWN_PATH:
            segments[-1] = HIDDEN  # cut in the middle, it may be anything
        return "/".join(map(self._shown_segment, segments))

    def _shown_segment(self, segment: str) -> str:
        plain = not segment or (_PLAIN_SEGMENT.fullmatch(segment) and not self._entrance.knows(segment))
        return segment if plain else HIDDEN

    def _recent_metrics(self) -> Response:
        now = self._clock()
        if self._recent is None or not self._made.wait(now):
            self._made.add(now)
            self._recent = self._metrics()
        return self._recent

    def _ready(self) -> Response:
        troubles = ("draining",) if self.draining else self._troubles()
        if troubles:
            return _json({"ready": False, "reasons": troubles}, 503)
        return _json({"ready": True})


class MetricsSite:
    """What is behind a port for metrics: them, and whether the server is well."""

    paths = frozenset({METRICS_PATH, "/healthz", "/readyz"})
    draining = False

    def __init__(self, site: ChatSite) -> None:
        self._site = site
        self.answer = site.answer
        self.refused = site.refused

    def admit(self, request: Request, upgrade: Upgrade) -> NoReturn:
        """Nobody: where a WebSocket may begin is none of the paths."""
        raise AssertionError(request.path)

    def disbelieved(self, peer: Peer) -> None:
        """Nobody counts here by their address."""
