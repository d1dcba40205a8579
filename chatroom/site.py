"""The site behind the front door: who is let in, and what plain HTTP is answered.

1. A handshake and `GET /handshake` go through the same steps; they differ only in the last one, which
   takes a place or only looks whether there is one.
2. All refused tokens are answered alike. A wrong one is counted against its sender's address.
3. Nothing here waits.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from chatroom.pure.bucket import Bucket, Window
from chatroom.pure.handshake import HANDSHAKE_PATH, PATHS, Upgrade, let_in
from chatroom.pure.query import SUBPROTOCOL, Wish
from chatroom.pure.tallies import Place, Tallies
from chatroom.pure.tokens import Identity, Verifier
from chatroom.values.errors import Refusal
from chatroom.values.http import Peer, Request, Response
from chatroom.values.journal import note

DEFAULT_USERNAME = "anonymous"
LOGGED_REFUSALS = 10.0
"""Refusals logged per second; the others are counted."""
METRICS_A_SECOND = 20
"""How often a second metrics are made anew: it takes milliseconds, and anyone may ask."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A client that was let in: its name, by what right it is here, where it goes, and its place."""

    place: Place
    peer: Peer
    username: str
    identity: Identity
    wish: Wish
    subprotocol: bool = False


class Door:
    """The steps of `let_in` up to the last; see Doorkeeper."""

    def __init__(
        self,
        verifier: Verifier,
        tallies: Tallies,
        origins: frozenset[str] | None,
        clock: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self.tallies = tallies
        self.origins = origins
        self._clock = clock

    def check_address(self, peer: Peer) -> None:
        """429 if the address has too many connections or wrong tokens."""
        self.tallies.check_address(peer, self._clock())

    def identify(self, peer: Peer, token: str | None) -> Identity:
        """Whom the token stands for, else 401."""
        identity = self.recognise(peer, token)
        if identity is None:
            raise Refusal(401, "Unauthorized", (("WWW-Authenticate", "Bearer"),))
        return identity

    def renew(self, peer: Peer, token: str) -> Identity | None:
        """Whom a token stands for that comes later, on a connection: it is no way around the count."""
        if self.tallies.wait_of_suspect(peer, self._clock()) > 0:
            return None
        return self.recognise(peer, token)

    def recognise(self, peer: Peer, token: str | None) -> Identity | None:
        """Whom the token stands for; a wrong one is counted."""
        identity = self._verifier.verify(token)
        if identity is None:
            self.tallies.wrong_token(peer, self._clock())
        return identity

    def authorise(self, identity: Identity, wish: Wish) -> str:
        """The username; 403 without the right to it or to the room."""
        username = wish.username or identity.username or DEFAULT_USERNAME
        if identity.username not in (None, username):
            raise Refusal(403, "This token is bound to another username")
        if not identity.rights.can(wish.room, "r"):
            raise Refusal(403, "No right to this room")
        return username

    def check_room_for(self, username: str) -> None:
        """429 if the username has too many connections, 503 if the server has."""
        self.tallies.check_user(username)
        self.tallies.check_full()


class Entrance(Door):
    """The door for those who come in."""

    def enter(self, peer: Peer, identity: Identity, username: str, wish: Wish) -> Admission:
        """Take a place."""
        self.check_room_for(username)
        return Admission(self.tallies.enter(peer, username), peer, username, identity, wish)


class Enquiry(Door):
    """The door for those who only ask whether they would be let in."""

    def enter(self, peer: Peer, identity: Identity, username: str, wish: Wish) -> Response:
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
        page: Response,
        metrics: Callable[[], Response],
        troubles: Callable[[], tuple[str, ...]],
        clock: Callable[[], float],
    ) -> None:
        self._entrance = entrance
        self._enquiry = enquiry
        self._page = page
        self._metrics = metrics
        self._troubles = troubles
        self._clock = clock
        self._logged = Bucket(LOGGED_REFUSALS, 1)
        self._unlogged = 0
        self._recent: Response | None = None
        self._made = Window(METRICS_A_SECOND, 1.0)
        self.refusals: Counter[int] = Counter()
        self.draining = False

    def answer(self, request: Request) -> Response:
        """The answer to a plain GET."""
        match request.path:
            case "/":
                return self._page
            case "/healthz":
                return Response(200, b"ok\n")
            case "/readyz":
                return self._ready()
            case "/metrics":
                return self._recent_metrics()
            case _:
                assert request.path == HANDSHAKE_PATH
                return let_in(request, None, self._enquiry)

    def admit(self, request: Request, upgrade: Upgrade) -> Admission:
        """Let a WebSocket in."""
        admission = let_in(request, upgrade, self._entrance)
        return replace(admission, subprotocol=SUBPROTOCOL in upgrade.subprotocols)

    def refused(self, peer: Peer, status: int, request: Request | None) -> None:
        """Count a refusal, and log it unless there are too many."""
        self.refusals[status] += 1
        now = self._clock()
        if not self._logged.idle(now):
            self._unlogged += 1
            return
        self._logged.reserve(now)
        # Any other path is the client's own words, and a token may have slipped into them.
        path = request.path if request is not None and request.path in PATHS else None
        note(logging.INFO, "refused", peer=peer.address, status=status, path=path, unlogged=self._unlogged)
        self._unlogged = 0

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
