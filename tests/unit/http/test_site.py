"""Who is let in and who is refused first, and what plain HTTP is answered."""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import pytest
import trio
from trio.testing import MockClock

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity, TokenTable
from chatroom.core.connectionlimits import ConnectionLimits, Slot
from chatroom.core.errors import Refusal, Unavailable
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.core.names import clean_username
from chatroom.core.sanctions import Action, Sanction
from chatroom.http.handshake import HANDSHAKE_PATH, route
from chatroom.http.site import BAN_SECONDS, LOGGED_REFUSALS, METRICS_A_SECOND, Admission, Admissions, ChatSite

PEER = Peer("192.0.2.1")
LOCAL = Peer("127.0.0.1", exempt=True)
NOW_MS = 1_764_000_000_000
MODERATED = """
[[token]]
token = "free"
[[token]]
token = "keeper"
rooms = { general = "rwm" }
"""
TOKENS = """
[[token]]
token = "free"

[[token]]
token = "alices"
username = "alice"
rooms = { general = "rw", "ops-*" = "r", mute = "w" }
"""
PAGE = Response(200, b"<page>", "text/html")
METRICS = Response(200, b"metrics")
UPGRADE = (
    ("host", "localhost"),
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


@dataclass
class Harness:
    """A site with everything real but the clock."""

    limits: Limits = field(default_factory=Limits)
    origins: frozenset[str] | None = None
    now: float = 1000.0
    troubles: tuple[str, ...] = ()
    tokens: str = TOKENS
    metrics_made: int = 0
    bans: dict[tuple[str, str], Sanction] = field(default_factory=dict)
    unavailable: bool = False
    silence: float = 0.0
    watched: list[ChatSite] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection_limits = ConnectionLimits(self.limits)
        verifier = TokenTable.parse(self.tokens, "tokens")
        self.admissions = Admissions(verifier, self.connection_limits, self.origins, lambda: self.now)
        self.site = ChatSite(
            admissions=self.admissions,
            page=lambda request: PAGE,
            metrics=self._make_metrics,
            troubles=lambda: self.troubles,
            clock=lambda: self.now,
            watch=self.watched.append,
            ban=self._ban,
            wall_clock=lambda: NOW_MS / 1000,
        )

    async def _ban(self, room: str, username: str) -> Sanction | None:
        await trio.sleep(self.silence)
        if self.unavailable:
            raise Unavailable("the store is away")
        return self.bans.get((room, username))

    def _make_metrics(self) -> Response:
        self.metrics_made += 1
        return METRICS

    def ask(self, request: Request) -> Response:
        """A plain request, as the front door passes it on."""
        assert route(request, draining=self.site.draining) is None
        if request.path == HANDSHAKE_PATH:
            return self.site.preview(self.site.vet(request, None))
        return self.site.answer(request)

    def admit(self, request: Request) -> Admission:
        """A handshake, as the front door passes it on."""
        upgrade = route(request, draining=self.site.draining)
        assert upgrade is not None
        return self.site.admit(self.site.vet(request, upgrade), upgrade)


def get(target: str = "/", *headers: tuple[str, str], peer: Peer = PEER, method: str = "GET") -> Request:
    path, _, query = target.partition("?")
    return Request(method, path, query, (("host", "localhost"), *headers), "1.1", peer)


def handshake(query: str, *headers: tuple[str, str], peer: Peer = PEER) -> Request:
    return Request("GET", "/", query, (*UPGRADE, *headers), "1.1", peer)


def both(query: str, *headers: tuple[str, str], peer: Peer = PEER) -> list[tuple[str, Request]]:
    """The handshake, and the question whether it would be let in."""
    return [
        ("admit", handshake(query, *headers, peer=peer)),
        ("ask", get(f"/handshake?{query}", *headers, peer=peer)),
    ]


def refusal(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value


# Who is banned


async def refusal_by_ban(harness: Harness, query: str) -> Refusal | None:
    upgrade = route(handshake(query), draining=False)
    try:
        await harness.site.check_ban(harness.site.vet(handshake(query), upgrade))
    except Refusal as refused:
        return refused
    return None


async def test_who_is_banned_from_a_room_is_refused_there_and_told_for_how_long() -> None:
    harness = Harness(tokens=MODERATED)
    harness.bans["general", "bob"] = Sanction(Action.BAN, "bob", "carol", NOW_MS + 89_001, "")
    refused = await refusal_by_ban(harness, "token=free&username=bob")
    assert refused is not None
    assert (refused.status, refused.text, dict(refused.headers)) == (
        403,
        "Banned from this room",
        {"Retry-After": "90"},
    )
    assert await refusal_by_ban(harness, "token=free&username=bob&room=ops") is None
    assert await refusal_by_ban(harness, "token=free&username=alice") is None
    harness.bans["general", "bob"] = Sanction(Action.BAN, "bob", "carol", None, "")
    refused = await refusal_by_ban(harness, "token=free&username=bob")
    assert refused is not None
    assert refused.headers == ()


async def test_a_ban_does_not_bite_who_comes_with_the_right_to_moderate() -> None:
    harness = Harness(tokens=MODERATED)
    harness.bans["general", "bob"] = Sanction(Action.BAN, "bob", "carol", None, "")
    assert await refusal_by_ban(harness, "token=keeper&username=bob") is None


async def test_a_store_that_cannot_say_who_is_banned_keeps_nobody_out() -> None:
    harness = Harness(tokens=MODERATED, unavailable=True)
    assert await refusal_by_ban(harness, "token=free&username=bob") is None


async def test_a_handshake_does_not_wait_for_a_store_that_is_silent(autojump_clock: MockClock) -> None:
    harness = Harness(tokens=MODERATED, silence=3.0)
    harness.bans["general", "bob"] = Sanction(Action.BAN, "bob", "carol", None, "")
    began = trio.current_time()
    assert await refusal_by_ban(harness, "token=free&username=bob") is None
    assert trio.current_time() - began <= BAN_SECONDS


# Who is let in


@pytest.mark.parametrize(
    ("query", "username", "room"),
    [
        ("token=free", "anonymous", "general"),
        ("token=free&username=bob&room=r", "bob", "r"),
        ("token=alices", "alice", "general"),
        ("token=alices&username=alice&room=ops-1", "alice", "ops-1"),
        ("token=free&username=&room=", "anonymous", "general"),
    ],
)
def test_who_comes_in_gets_the_name_it_asks_for_or_that_of_its_token(
    query: str, username: str, room: str
) -> None:
    harness = Harness()
    admission = harness.admit(handshake(query))
    assert (admission.username, admission.join_request.room, admission.peer) == (username, room, PEER)
    assert not admission.subprotocol
    assert json.loads(harness.ask(get(f"/handshake?{query}")).body) == {"username": username, "room": room}


def test_an_admission_carries_rights_and_where_to_resume() -> None:
    admission = Harness().admit(handshake("token=alices&since=42&epoch=e1"))
    assert (admission.join_request.since, admission.join_request.epoch) == (42, "e1")
    assert admission.identity.rights.can("ops-1", "r")
    assert not admission.identity.rights.can("ops-1", "w")
    assert Harness().admit(handshake("token=free")).identity.rights == Rights.everything()


@pytest.mark.parametrize(
    ("offer", "answered"),
    [("chatroom.v1, bearer.free", True), ("chatroom.v1", True), ("other", False)],
)
def test_the_subprotocol_is_told_to_the_connection(offer: str, answered: bool) -> None:
    query = "" if "bearer" in offer else "token=free"
    admission = Harness().admit(handshake(query, ("sec-websocket-protocol", offer)))
    assert admission.subprotocol == answered


def test_a_slot_is_taken_by_a_handshake_and_not_by_a_preview() -> None:
    harness = Harness()
    harness.ask(get("/handshake?token=free"))
    assert harness.connection_limits.statistics().connections == 0
    admission = harness.admit(handshake("token=free"))
    assert harness.connection_limits.statistics().connections == 1
    admission.slot.release()
    assert harness.connection_limits.statistics().connections == 0


# A name that is bound

ACCENTED = """
[[token]]
token = "composed"
username = "Zo\u00eb"

[[token]]
token = "decomposed"
username = "Zoe\u0308"

[[token]]
token = "wide"
username = "\uff21\uff22"
"""


@pytest.mark.parametrize("token", ["composed", "decomposed"])
@pytest.mark.parametrize("asked", ["Zo\u00eb", "Zoe\u0308", "\uff3ao\u00eb"])
def test_a_bound_name_is_the_same_however_it_is_spelled(token: str, asked: str) -> None:
    harness = Harness(tokens=ACCENTED)
    query = urlencode({"token": token, "username": asked})
    assert harness.admit(handshake(query)).username == "Zo\u00eb"
    assert json.loads(harness.ask(get(f"/handshake?{query}")).body)["username"] == "Zo\u00eb"


@pytest.mark.parametrize(
    ("token", "asked"),
    [
        ("composed", "Zoe"),
        ("composed", "zo\u00eb"),
        ("composed", "Zo\u0451"),  # a letter that looks alike
        ("composed", "Zo\u00eb2"),
        ("composed", "anonymous"),
        ("wide", "ab"),
        ("alices", "\u0430lice"),
    ],
)
def test_nobody_speaks_under_another_name_than_their_tokens(token: str, asked: str) -> None:
    harness = Harness(tokens=TOKENS + ACCENTED)
    for act, request in both(urlencode({"token": token, "username": asked})):
        found = refusal(lambda act=act, request=request: getattr(harness, act)(request))
        assert (found.status, found.text) == (403, "This token is bound to another username")


RESERVED = "This username is reserved for other tokens"


@pytest.mark.parametrize("asked", ["alice", "Zo\u00eb", "Zoe\u0308", "\uff21\uff22"])
def test_a_name_that_a_token_is_bound_to_is_for_nobody_else(asked: str) -> None:
    harness = Harness(tokens=TOKENS + ACCENTED)
    for act, request in both(urlencode({"token": "free", "username": asked})):
        found = refusal(lambda act=act, request=request: getattr(harness, act)(request))
        assert (found.status, found.text) == (403, RESERVED)
    name = clean_username(asked)
    assert harness.admissions.renew(PEER, name, "free") is None
    assert harness.admit(handshake("token=free&username=Alice")).username == "Alice"


def test_the_name_of_those_without_one_may_be_reserved() -> None:
    harness = Harness(tokens=TOKENS + '[[token]]\ntoken = "x"\nusername = "anonymous"\n')
    assert refusal(lambda: harness.admit(handshake("token=free"))).text == RESERVED
    assert harness.admit(handshake("token=free&username=bob")).username == "bob"
    assert harness.admit(handshake("token=x")).username == "anonymous"


def test_several_tokens_may_be_bound_to_one_name() -> None:
    """So that one can be replaced by the other, without a cut."""
    harness = Harness(tokens=TOKENS + '[[token]]\ntoken = "new"\nusername = "alice"\n')
    for token in ("alices", "new"):
        assert harness.admit(handshake(f"token={token}")).username == "alice"
    assert harness.admissions.renew(PEER, "alice", "new") is not None


def test_a_bound_name_in_other_widths_is_the_ordinary_one() -> None:
    assert Harness(tokens=ACCENTED).admit(handshake("token=wide&username=AB")).username == "AB"
    assert Harness(tokens=ACCENTED).admit(handshake("token=wide")).username == "AB"


# Who is refused, and why first

REFUSED: list[tuple[str, str, tuple[tuple[str, str], ...], int]] = [
    ("no token", "", (), 401),
    ("a wrong token", "token=wrong", (), 401),
    ("a token that is none", "token=%ff", (), 401),
    ("another's name", "token=alices&username=bob", (), 403),
    ("no right to read", "token=alices&room=secret", (), 403),
    ("a right to write only", "token=alices&room=mute", (), 403),
    ("a bad name", "token=free&username=a%20b", (), 400),
    ("a bad room", "token=free&room=%00", (), 400),
    ("a bad since", "token=free&since=x&epoch=e", (), 400),
    ("since without epoch", "token=free&since=1", (), 400),
    ("twice", "token=free&room=a&room=b", (), 400),
    ("contradictory tokens", "token=free", (("authorization", "Bearer other"),), 400),
    ("a foreign origin", "token=free", (("origin", "https://evil.example"),), 403),
]


@pytest.mark.parametrize(
    ("query", "headers", "status"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_a_handshake_and_the_question_about_it_are_refused_alike(
    query: str, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    harness = Harness(origins=frozenset({"https://good.example"}))
    found = [
        refusal(lambda act=act, request=request: getattr(harness, act)(request))
        for act, request in both(query, *headers)
    ]
    assert [each.status for each in found] == [status, status]
    assert found[0].text == found[1].text
    assert "\n" not in found[0].text
    assert harness.connection_limits.statistics().connections == 0


def test_all_refused_tokens_are_answered_in_the_same_words() -> None:
    said = {
        (found.text, found.headers)
        for query in ("", "token=wrong", "token=%ff", "token=%zz", "token=a%20b", "token=" + "x" * 4000)
        for act, request in both(query)
        for found in [refusal(lambda act=act, request=request: getattr(Harness(), act)(request))]
    }
    assert said == {("Unauthorized", (("WWW-Authenticate", "Bearer"),))}


def crowded(harness: Harness) -> list[Slot]:
    """Fill the harness for PEER's address, for bob and for everybody."""
    return [
        harness.connection_limits.take_slot(PEER, "bob"),
        harness.connection_limits.take_slot(LOCAL, "bob"),
    ]


FULL = Limits(connections=2, per_user=2, per_address=1)
ORIGIN = ("origin", "https://evil.example")
STAGES: list[tuple[str, int]] = [
    # Each row mends what the row before was refused for; the rest stays wrong.
    ("draining", 503),
    ("twice", 400),
    ("origin", 403),
    ("address", 429),
    ("token", 401),
    ("names", 400),
    ("rights", 403),
    ("username", 429),
    ("full", 503),
]


@pytest.mark.parametrize("act", ["admit", "ask"])
@pytest.mark.parametrize(("stage", "status"), STAGES)
def test_where_several_reasons_apply_the_first_one_is_told(act: str, stage: str, status: int) -> None:
    reached = [name for name, _ in STAGES].index(stage)

    def mended(name: str) -> bool:
        return [each for each, _ in STAGES].index(name) < reached

    harness = Harness(limits=FULL, origins=frozenset({"https://good.example"}))
    crowded(harness)
    harness.site.draining = not mended("draining")
    token = "alices" if mended("token") else "wrong"
    username = "username=bob" if mended("names") else "username=a%20b"
    room = "room=secret" if not mended("rights") else "room=general"
    if mended("rights"):
        token = "free"
    if mended("username"):
        username = "username=carol"
    query = f"token={token}&{username}&{room}" + ("" if mended("twice") else "&room=x")
    headers = () if mended("origin") else (ORIGIN,)
    peer = LOCAL if mended("address") else PEER
    request = dict(both(query, *headers, peer=peer))[act]
    found = refusal(lambda: getattr(harness, act)(request))
    assert found.status == status
    retry = dict(found.headers).get("Retry-After")
    assert (retry is not None) == (status in {429, 503})


def test_a_released_slot_can_be_taken() -> None:
    harness = Harness(limits=replace(FULL, per_address=9, per_user=9))
    slots = crowded(harness)
    assert refusal(lambda: harness.admit(handshake("token=free"))).status == 503
    slots[0].release()
    harness.admit(handshake("token=free"))


class CountingVerifier:
    """Says how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self._table = TokenTable.parse(TOKENS, "tokens")

    def verify(self, token: str | None) -> Identity | None:
        self.asked.append(token)
        return self._table.verify(token)

    def allows(self, identity: Identity, username: str) -> bool:
        return self._table.allows(identity, username)


@pytest.mark.parametrize("act", ["admit", "ask"])
def test_each_handshake_asks_the_verifier_once_whatever_is_wrong(act: str) -> None:
    """So the time until a 401 doesn't say what is wrong; past the count it is the same, with 429."""
    harness = Harness(limits=Limits(wrong_tokens=6))
    verifier = CountingVerifier()
    harness.site._admissions = Admissions(verifier, harness.connection_limits, None, lambda: harness.now)
    for query, headers in (
        ("", ()),
        ("token=wrong", ()),
        ("token=%ff", ()),
        ("token=alices%20", ()),
        ("", (("authorization", "Bearer x y"),)),
        ("token=" + "x" * 4000, ()),
    ):
        request = dict(both(query, *headers))[act]
        assert refusal(lambda request=request: getattr(harness, act)(request)).status == 401
    assert len(verifier.asked) == 6
    for query in ("token=wrong", "", "token=%ff"):
        request = dict(both(query))[act]
        found = refusal(lambda request=request: getattr(harness, act)(request))
        assert (found.status, found.headers) == (429, (("Retry-After", "60"),)), "all of them were counted"
    getattr(harness, act)(dict(both("token=free"))[act])
    assert len(verifier.asked) == 10


def test_a_right_token_is_let_in_whatever_its_neighbours_have_tried() -> None:
    """A shared address, or a web page that has its visitors' browsers try wrong tokens, shuts nobody out."""
    harness = Harness(limits=Limits(wrong_tokens=3))
    told = [
        refusal(lambda act=act, request=request: getattr(harness, act)(request)).status
        for act, request in both("token=wrong") * 3
    ]
    assert told == [401, 401, 401, 429, 429, 429]
    assert harness.admit(handshake("token=free")).username == "anonymous"
    assert harness.ask(get("/handshake?token=alices")).status == 200
    assert refusal(lambda: harness.admit(handshake("token=wrong", peer=Peer("192.0.2.2")))).status == 401
    harness.now += 61
    assert refusal(lambda: harness.admit(handshake("token=wrong"))).status == 401


def test_past_the_count_of_wrong_tokens_the_order_of_refusals_is_the_same() -> None:
    harness = Harness(
        limits=Limits(wrong_tokens=1, per_address=1), origins=frozenset({"https://good.example"})
    )
    assert refusal(lambda: harness.admit(handshake(""))).status == 401
    for query, headers, status in (
        ("token=wrong&username=a%20b", (), 429),  # before the names
        ("token=wrong", (ORIGIN,), 403),
        ("token=wrong&room=a&room=b", (), 400),
        ("token=free&username=a%20b", (), 400),
        ("token=alices&room=secret", (), 403),
    ):
        request = handshake(query, *headers)
        assert refusal(lambda request=request: harness.admit(request)).status == status
    harness.admit(handshake("token=free"))
    found = refusal(lambda: harness.admit(handshake("token=free")))
    assert (found.status, found.text) == (429, "Too many connections from your address")


def test_a_token_that_comes_later_is_counted_and_let_in_in_the_same_way() -> None:
    harness = Harness(limits=Limits(wrong_tokens=3))
    admission = harness.admit(handshake("token=free"))
    renewed = harness.admissions.renew(admission.peer, "alice", "alices")
    assert renewed is not None
    assert renewed.username == "alice"
    assert harness.admissions.renew(admission.peer, "carol", "alices") is None
    for _ in range(4):
        assert harness.admissions.renew(admission.peer, "alice", "wrong") is None
    assert refusal(lambda: harness.admit(handshake("token=wrong"))).status == 429
    assert harness.admissions.renew(admission.peer, "alice", "alices") is not None
    assert harness.admissions.renew(LOCAL, "alice", "alices") is not None


# Plain HTTP


def test_paths_have_their_answers() -> None:
    harness = Harness()
    assert harness.ask(get("/")) is PAGE
    assert harness.ask(get("/healthz")) == Response(200, b"ok\n")
    assert harness.ask(get("/metrics")) is METRICS
    ready = harness.ask(get("/readyz"))
    assert (ready.status, json.loads(ready.body), ready.content_type) == (
        200,
        {"ready": True},
        "application/json",
    )


@pytest.mark.parametrize(
    ("draining", "troubles", "reasons"),
    [
        (True, (), ["draining"]),
        (False, ("a commit is waiting",), ["a commit is waiting"]),
        (True, ("a commit is waiting",), ["draining"]),
    ],
)
def test_a_server_that_is_not_ready_says_why_and_goes_on_answering(
    draining: bool, troubles: tuple[str, ...], reasons: list[str]
) -> None:
    harness = Harness(troubles=troubles)
    harness.site.draining = draining
    ready = harness.ask(get("/readyz"))
    assert (ready.status, json.loads(ready.body)) == (503, {"ready": False, "reasons": reasons})
    assert harness.ask(get("/healthz")).status == 200
    assert harness.ask(get("/")) is PAGE


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("POST", "/", 405), ("DELETE", "/metrics", 405), ("OPTIONS", "/x", 404)],
)
def test_anything_else_is_refused_before_the_site_sees_it(method: str, path: str, status: int) -> None:
    assert refusal(lambda: Harness().ask(get(path, method=method))).status == status


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/handshake?token=free"])
def test_head_is_answered_as_get_is(path: str) -> None:
    assert Harness().ask(get(path, method="HEAD")) == Harness().ask(get(path))


# Refusals are counted, and logged a few times a second


Logged = Callable[[], list[dict[str, object]]]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    caplog.set_level(logging.INFO)
    return lambda: [record.fields for record in caplog.records]  # type: ignore[attr-defined]


def test_refusals_in_one_moment_are_logged_each(logged: Logged) -> None:
    harness = Harness()
    for status in (401, 401, 404, 408, 429):
        harness.site.refused(PEER, status, None if status == 408 else get("/?token=s3cret"))
    assert [fields["status"] for fields in logged()] == [401, 401, 404, 408, 429]
    assert logged()[0] == {"peer": "192.0.2.1", "status": 401, "path": "/", "count": 1}
    assert logged()[3] == {"peer": "192.0.2.1", "status": 408, "path": None, "count": 1}
    assert harness.site.refusals == {401: 2, 404: 1, 408: 1, 429: 1}
    assert harness.watched == []
    assert "s3cret" not in str(logged())


def test_of_too_many_refusals_the_number_is_logged_within_a_second(logged: Logged) -> None:
    harness = Harness()
    for number in range(100):
        harness.site.refused(PEER, 401 if number % 2 else 404, get("/"))
    assert len(logged()) == LOGGED_REFUSALS
    assert harness.watched == [harness.site], "asked once to be called back"
    assert harness.site.on_timer(harness.now + 0.4) == pytest.approx(0.6)
    assert harness.site.on_timer(harness.now + 1) == math.inf
    assert logged()[LOGGED_REFUSALS:] == [{"status": 404, "count": 45}, {"status": 401, "count": 45}]
    harness.site.refused(PEER, 401, None)
    assert len(logged()) == LOGGED_REFUSALS + 2, "that second isn't over by its own clock"
    harness.now += 1
    harness.site.refused(PEER, 401, None)
    harness.site.log_refusals()
    assert sum(int(str(fields["count"])) for fields in logged()) == 102
    assert harness.site.on_timer(harness.now) == math.inf


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "/"),
        ("/handshake", "/handshake"),
        ("/chat", "/chat"),
        ("/chat/", "/chat/"),
        ("//chat/ws.v1/~a_b-C", "//chat/ws.v1/~a_b-C"),
        ("/free", "/*"),  # a token, however short
        ("/chat/free/x", "/chat/*/x"),
        ("/ws/0123456789abcdef", "/ws/0123456789abcdef"),
        ("/ws/0123456789abcdefg", "/ws/*"),
        ("/ws/a%20b", "/ws/*"),
        ("/ws;token=abc/x", "/*/x"),
        ("/token=abc", "/*"),
        ("/1/2/3/4/5/6/7/8", "/1/2/3/4/5/*"),
        ("/" + "a" * 1000, "/*"),
        ("/" + "abc-/" * 100, "/abc-/abc-/abc-/abc-/abc-/*"),
        ("/0123456789abcdef/0123456789abcdef/0123456789abcdef/0123456789abcdef",
         "/0123456789abcdef/0123456789abcdef/0123456789abcdef/*"),
    ],
)  # fmt: skip
def test_a_path_is_logged_so_that_a_mistaken_prefix_can_be_seen_and_no_token(
    logged: Logged, path: str, shown: str
) -> None:
    Harness().site.refused(PEER, 404, get(path + "?token=s3cret"))
    (fields,) = logged()
    assert fields["path"] == shown
    assert len(shown) <= 64


def test_metrics_are_made_anew_a_few_times_a_second_at_most() -> None:
    harness = Harness()
    for _ in range(3 * METRICS_A_SECOND):
        assert harness.ask(get("/metrics")) == METRICS
    assert harness.metrics_made == METRICS_A_SECOND
    harness.now += 1.0
    harness.ask(get("/metrics"))
    assert harness.metrics_made == METRICS_A_SECOND + 1
