"""The site behind the front door: admission of clients, and the answers to plain HTTP.

Owns the steps of admission, the answer to each path, and the log of refusals. Rules:

1. A handshake and `GET /handshake` go through the same steps. Only the last step differs: a handshake takes
   a slot, `GET /handshake` only looks whether one is free. In between it is asked whether a moderator has
   banned the name from the room. If the store can't say at once, the room does when it is entered.
2. All refused tokens get the same answer, after the same work. A wrong token is counted against its sender's
   address. A right token is admitted, whatever others behind that address have tried.
3. Nothing here waits, but for the store when it is asked for bans.

It doesn't know sockets, nor what a connection does once it is admitted.
"""

import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn

import trio

from chatroom.auth.rights import Access
from chatroom.auth.tokens import OPERATOR, Identity, Verifier
from chatroom.core.connectionlimits import ConnectionLimits, Slot
from chatroom.core.errors import Refusal, Unavailable
from chatroom.core.http import Peer, Request, Response
from chatroom.core.logevents import log_event
from chatroom.core.pace import Sampler, Window
from chatroom.core.sanctions import Sanction
from chatroom.http.api import EVENT_STREAM, Caller, Route
from chatroom.http.api import vet as vet_call
from chatroom.http.handshake import (
    METRICS_PATH,
    PATHS,
    SUBPROTOCOL,
    JoinRequest,
    Upgrade,
    Vetted,
    vet,
)

DEFAULT_USERNAME = "anonymous"
OPERATOR_NAME = "operator"
"""The name of who comes to the admin socket and gives none."""
LOGGED_REFUSALS = 10
"""Refusals a second that get a log line each. The others are only counted."""
SHOWN_PATH = 64
"""Characters of a path that are logged."""
SHOWN_SEGMENTS = 6
HIDDEN = "*"
"""Stands for a segment of a path that could be a secret."""
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9._~-]{1,16}")
BAN_SECONDS = 0.25
"""How long a handshake waits to hear of a ban. Entering the room waits for a silent store, too."""
NO_RIGHT = {
    "r": "No right to this room",
    "w": "No right to write in this room",
    "wm": "No right to write in this room",
    "m": "No right to moderate this room",
}
"""What is said to whom has none of these rights."""
_EACH: dict[str, tuple[Access, ...]] = {"r": ("r",), "w": ("w",), "wm": ("w", "m"), "m": ("m",)}
METRICS_A_SECOND = 20
"""How often a second metrics are rendered: rendering takes milliseconds, and anyone may ask."""


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted client: its slot, its name, its identity, and the room that it joins."""

    slot: Slot
    peer: Peer
    username: str
    identity: Identity
    join_request: JoinRequest
    subprotocol: bool = False


class Admissions:
    """The steps of admission, see AdmissionPolicy; and the two last steps, `admit` and `preview`."""

    def __init__(
        self,
        verifier: Verifier,
        connection_limits: ConnectionLimits,
        origins: frozenset[str] | None,
        clock: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self.connection_limits = connection_limits
        self.origins = origins
        self._clock = clock

    def check_address(self, peer: Peer) -> None:
        """Raises Refusal 429 if the address has too many connections."""
        self.connection_limits.check_address(peer)

    def authenticate(self, peer: Peer, token: str | None) -> Identity:
        """The identity that the token proves. Raises Refusal 401, or 429 after too many wrong tokens."""
        identity = self._verifier.verify(token)
        if identity is None:
            self.connection_limits.wrong_token(peer, self._clock())
            raise Refusal(401, "Unauthorized", (("WWW-Authenticate", "Bearer"),))
        return identity

    def renew(self, peer: Peer, username: str, token: str) -> Identity | None:
        """The identity of a later token, sent on a connection of `username`.

        None if the token isn't for that name, or is wrong. A wrong one counts as it does in a handshake.
        """
        try:
            identity = self.authenticate(peer, token)
        except Refusal:
            return None
        return identity if self._verifier.allows(identity, username) else None

    def is_token(self, text: str) -> bool:
        """Whether `text` is a valid token. A wrong one isn't counted."""
        return self._verifier.verify(text) is not None

    def authorize(self, identity: Identity, join_request: JoinRequest) -> str:
        """The connection's username. Raises Refusal 403 without the right to that name or to the room."""
        username = self._name(identity, join_request.username)
        if not identity.rights.can(join_request.room, "r"):
            raise Refusal(403, NO_RIGHT["r"])
        return username

    def authorize_call(self, identity: Identity, username: str | None, room: str, access: str) -> str:
        """See CallPolicy."""
        username = self._name(identity, username)
        if access and not any(identity.rights.can(room, each) for each in _EACH[access]):
            raise Refusal(403, NO_RIGHT[access])
        return username

    def _name(self, identity: Identity, username: str | None) -> str:
        username = username or identity.username or DEFAULT_USERNAME
        if identity.username not in (None, username):
            raise Refusal(403, "This token is bound to another username")
        if not self._verifier.allows(identity, username):
            raise Refusal(403, "This username is reserved for other tokens")
        return username

    def admit(self, vetted: Vetted[Identity]) -> Admission:
        """The last step of a handshake: take a slot. Raises Refusal 429 or 503 if none is free."""
        self._check_slots(vetted.username)
        slot = self.connection_limits.take_slot(vetted.peer, vetted.username)
        return Admission(slot, vetted.peer, vetted.username, vetted.identity, vetted.join_request)

    def preview(self, vetted: Vetted[Identity]) -> Response:
        """The last step of `GET /handshake`: answer as whom the client would be admitted. Raises Refusal."""
        self._check_slots(vetted.username)
        return _json({"username": vetted.username, "room": vetted.join_request.room})

    def _check_slots(self, username: str) -> None:
        self.connection_limits.check_user(username)
        self.connection_limits.check_full()


def _json(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value, ensure_ascii=False).encode() + b"\n", "application/json")


class ChatSite:
    """The server's answers behind the front door; see frontdoor.Site."""

    def __init__(
        self,
        *,
        admissions: Admissions,
        page: Callable[[Request], Response],
        metrics: Callable[[], Response],
        troubles: Callable[[], tuple[str, ...]],
        clock: Callable[[], float],
        watch: Callable[["ChatSite"], None],
        ban: Callable[[str, str], Awaitable[Sanction | None]],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`ban` is the ban from that room of that username, if one is in force; it raises Unavailable."""
        self._ban = ban
        self._wall_clock = wall_clock
        self._admissions = admissions
        self._page = page
        self._metrics = metrics
        self._troubles = troubles
        self._clock = clock
        self._watch = watch
        self._sampler = Sampler(LOGGED_REFUSALS)
        self._recent: Response | None = None
        self._made = Window(METRICS_A_SECOND, 1.0)
        self._logged_untrusted_proxy = False
        self.refusals: Counter[int] = Counter()
        self.draining = False
        self.metrics_elsewhere = False
        """Metrics have a port of their own, and this site doesn't serve them."""

    @property
    def paths(self) -> frozenset[str]:
        """The paths that are served."""
        return PATHS - {METRICS_PATH} if self.metrics_elsewhere else PATHS

    def answer(self, request: Request) -> Response:
        """The answer to a plain GET. Raises Refusal."""
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
                raise AssertionError(f"{request.path} is answered by preview")

    def vet(self, request: Request, upgrade: Upgrade | None) -> Vetted[Identity]:
        """The client of a handshake, or of `GET /handshake` without an upgrade. Raises Refusal."""
        return vet(request, upgrade, self._admissions)

    async def check_ban(self, vetted: Vetted[Identity]) -> None:
        """Raises Refusal 403 if the client is banned from its room."""
        room = vetted.join_request.room
        if vetted.identity.rights.can(room, "m"):
            return
        ban = None
        with suppress(Unavailable), trio.move_on_after(BAN_SECONDS):
            ban = await self._ban(room, vetted.username)
        if ban is not None:
            left = None if ban.until is None else max(1, math.ceil(ban.until / 1000 - self._wall_clock()))
            headers = () if left is None else (("Retry-After", str(left)),)
            raise Refusal(403, "Banned from this room", headers)

    def admit(self, vetted: Vetted[Identity], upgrade: Upgrade) -> Admission:
        """Admit a WebSocket. Raises Refusal."""
        admission = self._admissions.admit(vetted)
        return replace(admission, subprotocol=SUBPROTOCOL in upgrade.subprotocols)

    def preview(self, vetted: Vetted[Identity]) -> Response:
        """The answer to `GET /handshake`. Raises Refusal."""
        return self._admissions.preview(vetted)

    def vet_call(self, request: Request, asked: Route) -> Caller[Identity]:
        """Who asks for something in a room, and may have it unless banned. Raises Refusal."""
        return vet_call(request, asked, self._admissions)

    def take_slot(self, caller: Caller[Identity]) -> Slot:
        """Count a request that is carried out, and that keeps no connection. Raises Refusal 503."""
        self._admissions.connection_limits.check_full()
        return self.count(caller)

    def count(self, caller: Caller[Identity]) -> Slot:
        """Count a request, however full the server is."""
        return self._admissions.connection_limits.take_slot(caller.peer, None)

    def admit_stream(self, caller: Caller[Identity], join_request: JoinRequest) -> Admission:
        """The last step of a stream: take a slot. Raises Refusal 429 or 503 if none is free."""
        return self._admissions.admit(Vetted(caller.peer, caller.identity, caller.username, join_request))

    def untrusted_proxy(self, peer: Peer) -> None:
        """Log, once, that the operator may have forgotten a trusted proxy."""
        if not self._logged_untrusted_proxy:
            self._logged_untrusted_proxy = True
            hint = "its X-Forwarded-For is ignored; if it is your proxy, name it by --trusted-proxy"
            log_event(logging.WARNING, "untrusted_proxy", peer=peer.address, hint=hint)

    def refused(self, peer: Peer, status: int, request: Request | None) -> None:
        """Count a refusal and log it. When there are too many, only their number is logged."""
        self.refusals[status] += 1
        waiting = self._sampler.waiting
        if self._sampler.passes(status, self._clock()):
            path = None if request is None else self._shown(request.path)
            log_event(logging.INFO, "refused", peer=peer.address, status=status, path=path, count=1)
        elif not waiting:
            self._watch(self)

    def on_timer(self, now: float) -> float:
        """Log the number of further refusals, if that is due. Returns the seconds until the next call."""
        if wait := self._sampler.wait(now):
            return wait
        self.log_refusals()
        return math.inf

    def log_refusals(self) -> None:
        """Log the numbers of the refusals that have no log line yet."""
        for status, count in self._sampler.left_out().items():
            log_event(logging.INFO, "refused", status=status, count=count)

    def _shown(self, path: str) -> str:
        """A path for the log. It shows a mistaken prefix, but no token that has slipped into the path."""
        if path in PATHS:
            return path
        segments = path[:SHOWN_PATH].split("/", SHOWN_SEGMENTS)  # the last one has the rest
        if len(path) > SHOWN_PATH:
            segments[-1] = HIDDEN  # a segment that was cut may be part of a token
        return "/".join(map(self._shown_segment, segments))

    def _shown_segment(self, segment: str) -> str:
        plain = not segment or (_PLAIN_SEGMENT.fullmatch(segment) and not self._admissions.is_token(segment))
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


class _SideSite:
    """What is answered beside the port of clients: metrics, liveness and readiness. Nobody is admitted."""

    paths = frozenset({METRICS_PATH, "/healthz", "/readyz"})

    def __init__(self, site: ChatSite) -> None:
        self._site = site
        self.answer = site.answer
        self.refused = site.refused

    def vet(self, request: Request, upgrade: Upgrade | None) -> NoReturn:
        """Never called: a handshake needs a path that isn't served here."""
        raise AssertionError(request.path)

    async def check_ban(self, vetted: NoReturn) -> None:
        """Never called, as nothing is vetted here."""

    def admit(self, vetted: NoReturn, upgrade: Upgrade) -> NoReturn:
        """Never called, as nothing is vetted here."""
        raise AssertionError(upgrade)

    def preview(self, vetted: NoReturn) -> NoReturn:
        """Never called, as nothing is vetted here."""
        raise AssertionError(vetted)

    def untrusted_proxy(self, peer: Peer) -> None:
        """Log nothing: no address is counted here."""


class MetricsSite(_SideSite):
    """The answers at a port for metrics."""

    draining = False


class OperatorSite(_SideSite):
    """The answers at the admin socket: requests about rooms, which need no token, beside the others."""

    @property
    def draining(self) -> bool:
        """The server is about to stop."""
        return self._site.draining

    def vet_call(self, request: Request, asked: Route) -> Caller[Identity]:
        """The operator, by any name. Raises Refusal."""
        if asked.command == EVENT_STREAM:
            raise Refusal(404, "There are no streams at this socket")
        return vet_call(request, asked, OPERATORS)

    def take_slot(self, caller: Caller[Identity]) -> Slot:
        """Count a request. A full server must not keep its operators out."""
        return self._site.count(caller)


class _Operators:
    """The steps of `vet_call` for those who come to the admin socket; see CallPolicy."""

    origins = None

    def check_address(self, peer: Peer) -> None:
        """Nothing is counted."""

    def authenticate(self, peer: Peer, token: str | None) -> Identity:
        """The file's mode has decided who comes here."""
        return OPERATOR

    def authorize(self, identity: Identity, join_request: JoinRequest) -> NoReturn:
        """Never called, as nobody joins here."""
        raise AssertionError(join_request)

    def authorize_call(self, identity: Identity, username: str | None, room: str, access: str) -> str:
        """Any name, also one that is reserved for tokens, and all rights."""
        return username or OPERATOR_NAME


OPERATORS = _Operators()
