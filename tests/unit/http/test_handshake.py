"""The handshake: what asks for one, in which order it is refused, and what the library gets to see of it."""

from collections.abc import Iterable
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection
from wsproto.events import Request as HandshakeRequest

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request
from chatroom.http.handshake import (
    PATHS,
    JoinRequest,
    Upgrade,
    Vetted,
    allowed_origin,
    asks_upgrade,
    canonical,
    normal_origin,
    route,
    vet,
)

PEER = Peer("192.0.2.1")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = {
    "host": "chat.example:3000",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def request(
    headers: Iterable[tuple[str, str]] | dict[str, str] = (),
    *,
    method: str = "GET",
    path: str = "/",
    query: str = "",
    version: str = "1.1",
    secure: bool = False,
) -> Request:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Request(method, path, query, tuple(pairs), version, PEER, secure)


def handshake(changes: dict[str, str | None] | None = None, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The headers of a good handshake, changed (None: left out), and more of them."""
    headers = {**HANDSHAKE, **(changes or {})}
    return [*((name, value) for name, value in headers.items() if value is not None), *more]


def refusal(asked: Request, *, draining: bool = False) -> Refusal:
    with pytest.raises(Refusal) as caught:
        route(asked, draining=draining)
    return caught.value


def routed(asked: Request) -> Upgrade | None:
    return route(asked, draining=False)


# What asks for a handshake


def test_a_good_handshake_is_read() -> None:
    assert routed(request(HANDSHAKE)) == Upgrade(KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "UPGRADE"},
        {"connection": " , upgrade ,"},
        {"sec-websocket-extensions": "permessage-deflate; client_max_window_bits"},
        {"content-length": "0"},
        {"cookie": "\xff\xfe"},
    ],
)
def test_a_handshake_is_recognised_in_all_its_forms(changes: dict[str, str | None]) -> None:
    assert routed(request(handshake(changes))) == Upgrade(KEY)


def test_connection_may_be_repeated() -> None:
    assert routed(request(handshake(None, ("connection", "keep-alive")))) == Upgrade(KEY)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"connection": "upgrade"},
        {"upgrade": "h2c", "connection": "upgrade"},
        {"upgrade": "websockets", "connection": "upgrade"},
        {"sec-websocket-version": "13"},
    ],
)
def test_anything_else_is_a_plain_request(headers: dict[str, str]) -> None:
    asked = request({"host": "a", **headers})
    assert not asks_upgrade(asked)
    assert routed(asked) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"connection": None}, "Connection: Upgrade is missing"),
        ({"connection": "close"}, "Connection: Upgrade is missing"),
        ({"upgrade": None}, "Upgrade: websocket is missing"),
        ({"upgrade": "h2c"}, "Upgrade: websocket is missing"),
        ({"sec-websocket-version": None}, "Sec-WebSocket-Version is missing"),
        ({"sec-websocket-key": None}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        ({"sec-websocket-key": ""}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        ({"sec-websocket-key": "c2hvcnQ="}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        ({"sec-websocket-key": KEY + KEY}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        ({"sec-websocket-key": KEY[:-2]}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        ({"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZ-=="}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        (
            {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZ\xe9=="},
            "Sec-WebSocket-Key must be 16 bytes in base64",
        ),
        ({"content-length": "5"}, "A handshake has no body"),
        ({"transfer-encoding": "chunked"}, "A handshake has no body"),
        ({"expect": "100-continue"}, "A handshake has no body"),
        ({"sec-websocket-protocol": "a b"}, "Malformed Sec-WebSocket-Protocol"),
        ({"sec-websocket-protocol": "chatroom.v1; q=1"}, "Malformed Sec-WebSocket-Protocol"),
        ({"sec-websocket-protocol": "\xe9"}, "Malformed Sec-WebSocket-Protocol"),
        ({"sec-websocket-protocol": "a, b, a"}, "Subprotocol offered twice"),
    ],
)
def test_half_a_handshake_is_refused(changes: dict[str, str | None], text: str) -> None:
    refused = refusal(request(handshake(changes)))
    assert (refused.status, refused.text) == (400, text)


@pytest.mark.parametrize("version", ["12", "8", "14", "013", "13, 8", ""])
def test_another_version_is_told_the_right_one(version: str) -> None:
    refused = refusal(request(handshake({"sec-websocket-version": version})))
    assert refused.status == 426
    assert ("Sec-WebSocket-Version", "13") in refused.headers


def test_a_handshake_needs_http_1_1_and_a_plain_request_does_not() -> None:
    assert refusal(request(HANDSHAKE, version="1.0")).status == 505
    assert routed(request({}, version="1.0")) is None


def test_subprotocols_may_be_spread_over_several_headers() -> None:
    pairs = [("sec-websocket-protocol", value) for value in ("chatroom.v1", " bearer.T,\tother ,,")]
    assert routed(request(handshake(None, *pairs))) == Upgrade(KEY, ("chatroom.v1", "bearer.T", "other"))


def test_a_bad_token_among_the_subprotocols_is_no_fault_of_the_head() -> None:
    upgrade = routed(request(handshake({"sec-websocket-protocol": "chatroom.v1, bearer.a/b"})))
    assert upgrade == Upgrade(KEY, ("chatroom.v1", "bearer.a/b"))


# Paths, methods and the form of any head


@pytest.mark.parametrize("path", ["/", "/handshake", "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_known_paths_are_served(path: str, method: str) -> None:
    assert routed(request({"host": "a"}, path=path, method=method)) is None


@pytest.mark.parametrize(
    "path", ["//", "/index.html", "/Healthz", "/healthz/", "/%68ealthz", "/../", "/handshake;a"]
)
def test_other_paths_are_unknown(path: str) -> None:
    assert refusal(request(path=path)).status == 404
    assert refusal(request(path=path, method="BREW")).status == 404


@pytest.mark.parametrize("path", ["/handshake", "/healthz", "/nowhere"])
def test_a_handshake_happens_at_the_root_only(path: str) -> None:
    assert refusal(request(HANDSHAKE, path=path)).status == 404


@pytest.mark.parametrize(
    ("path", "method", "headers", "allow"),
    [
        ("/", "POST", {}, "GET, HEAD, OPTIONS"),
        ("/", "get", {}, "GET, HEAD, OPTIONS"),
        ("/", "OPTIONS", HANDSHAKE, "GET"),
        ("/metrics", "DELETE", {}, "GET, HEAD, OPTIONS"),
        ("/handshake", "PUT", {}, "GET, HEAD, OPTIONS"),
        ("/", "HEAD", HANDSHAKE, "GET"),
        ("/", "POST", HANDSHAKE, "GET"),
    ],
)
def test_other_methods_are_told_which_there_are(
    path: str, method: str, headers: dict[str, str], allow: str
) -> None:
    refused = refusal(request(headers, path=path, method=method))
    assert refused.status == 405
    assert refused.headers == (("Allow", allow),)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_browsers_and_balancers_may_ask_before_they_ask(path: str) -> None:
    assert route(request(path=path, method="OPTIONS"), draining=True) is None


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "authorization",
        "origin",
    ],
)
def test_headers_of_which_one_makes_sense_may_not_come_twice(name: str) -> None:
    value = HANDSHAKE.get(name, "0")
    pairs = [(other, text) for other, text in HANDSHAKE.items() if other != name]
    refused = refusal(request([*pairs, (name, value), (name, value)]))
    assert (refused.status, refused.text) == (400, f"Header {name} given twice")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "5, 5"},
        {"content-length": "1_0"},
        {"content-length": "\xb2"},
        {"content-length": "5", "transfer-encoding": "chunked"},
    ],
)
def test_lengths_that_contradict_are_refused(headers: dict[str, str]) -> None:
    assert refusal(request({"host": "a", **headers})).status == 400


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a/b",
        "a@b",
        "\xff",
        "é",
        "a:b",
        "a:123456",
        "[::1",
        "::1",
        "[::g]",
        "a,b",
        "a?b",
        "http://a",
        "a\tb",
    ],
)
def test_a_bad_host_is_refused(host: str) -> None:
    assert refusal(request({"host": host})).status == 400


@pytest.mark.parametrize("host", ["a", "a.b-c_d:3000", "127.0.0.1", "[::1]:3000", "xn--t-zfa.example", "a:"])
def test_a_good_host_is_not(host: str) -> None:
    assert routed(request({"host": host})) is None


def test_a_drain_refuses_handshakes_and_nothing_else() -> None:
    for asked in (request(HANDSHAKE), request({"host": "a"}, path="/handshake")):
        refused = refusal(asked, draining=True)
        assert refused.status == 503
        assert refused.headers[0][0] == "Retry-After"
    assert route(request({"host": "a"}, path="/readyz"), draining=True) is None


def test_draining_comes_before_the_path_and_the_path_before_the_form() -> None:
    broken = handshake({"sec-websocket-key": "x"}, ("host", "b"))
    assert refusal(request(broken, path="/nowhere", method="PUT"), draining=True).status == 503
    assert refusal(request(broken, path="/nowhere", method="PUT")).status == 404
    assert refusal(request(broken, method="PUT")).status == 405
    assert refusal(request(broken)).status == 400


# The order of what comes after the form


class Policy:
    """Refuses at the steps named in `faults`, and notes what it was asked."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        self.asked: list[tuple[object, ...]] = []
        self.origins: frozenset[str] | None = None

    def _step(self, name: str, status: int, *details: object) -> None:
        self.asked.append((name, *details))
        if name in self.faults:
            raise Refusal(status, name)

    def check_address(self, peer: Peer) -> None:
        self._step("address", 429, peer)

    def authenticate(self, peer: Peer, token: str | None) -> str:
        self._step("token", 401, peer, token)
        return "identity"

    def authorize(self, identity: str, join_request: JoinRequest) -> str:
        self._step("rights", 403, identity, join_request)
        return "alice"


def refusal_of(asked: Request, policy: Policy) -> str:
    with pytest.raises(Refusal) as caught:
        vet(asked, Upgrade(KEY), policy)
    return caught.value.text


def test_who_is_let_in_gets_the_last_answer_of_the_policy() -> None:
    policy = Policy()
    asked = request(HANDSHAKE, query="token=T&room=ops")
    join_request = JoinRequest(None, "ops")
    assert vet(asked, Upgrade(KEY), policy) == Vetted(PEER, "identity", "alice", join_request)
    assert policy.asked == [
        ("address", PEER),
        ("token", PEER, "T"),
        ("rights", "identity", join_request),
    ]


def test_a_token_among_the_subprotocols_counts_for_an_upgrade_only() -> None:
    policy = Policy()
    vet(request(), Upgrade(KEY, ("chatroom.v1", "bearer.T")), policy)
    assert policy.asked[1] == ("token", PEER, "T")
    vet(request(handshake({"sec-websocket-protocol": "chatroom.v1, bearer.T"})), None, policy)
    assert policy.asked[4] == ("token", PEER, None)


ORDER = ["twice", "origin", "address", "token", "names", "rights"]
TEXTS = {
    "twice": "Parameter room given twice",
    "origin": "Origin not allowed",
    "names": "since needs an epoch",
}


@pytest.mark.parametrize("faults", [pair for n in (1, 2) for pair in combinations(ORDER, n)] + [tuple(ORDER)])
def test_the_first_fault_in_the_order_is_the_one_told(faults: tuple[str, ...]) -> None:
    policy = Policy(*faults)
    policy.origins = frozenset()
    query = "&".join(
        ["room=a", *(["room=b"] if "twice" in faults else []), *(["since=1"] if "names" in faults else [])]
    )
    headers = [("host", "a"), *([("origin", "https://evil.example")] if "origin" in faults else [])]
    first = next(step for step in ORDER if step in faults)
    assert refusal_of(request(headers, query=query), policy) == TEXTS.get(first, first)


# Origin


def from_origin(origin: str, host: str = "chat.example", *, secure: bool = False) -> Request:
    return request({"host": host, "origin": origin}, secure=secure)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "nonsense", "\xff"])
def test_any_origin_is_let_in_where_none_are_listed(origin: str) -> None:
    assert allowed_origin(from_origin(origin), None)
    assert not allowed_origin(from_origin(origin), frozenset({"https://good.example"}))


def test_what_is_no_browser_is_let_in() -> None:
    assert allowed_origin(request({"host": "a"}), frozenset())


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("http://chat.example", "chat.example", False),
        ("http://chat.example", "chat.example:80", False),
        ("http://chat.example:80", "chat.example", False),
        ("http://chat.example", "chat.example:", False),
        ("HTTP://Chat.Example:3000", "chat.example:3000", False),
        ("https://chat.example", "CHAT.example:443", True),
        ("http://[::1]:3000", "[::1]:3000", False),
    ],
)
def test_the_servers_own_origin_is_let_in(origin: str, host: str, secure: bool) -> None:
    assert allowed_origin(from_origin(origin, host, secure=secure), frozenset())


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("https://chat.example", "chat.example", False),
        ("http://chat.example", "chat.example", True),
        ("http://chat.example:3000", "chat.example:3001", False),
        ("http://chat.example:443", "chat.example", False),
        ("http://chat.example.evil", "chat.example", False),
        ("http://evil@chat.example", "chat.example", False),
        ("http://chat.example/", "chat.example", False),
        ("http://chat.example http://evil", "chat.example", False),
        ("null", "null", False),
    ],
)
def test_what_only_looks_like_it_is_not(origin: str, host: str, secure: bool) -> None:
    assert not allowed_origin(from_origin(origin, host, secure=secure), frozenset())


def test_a_listed_origin_is_let_in_exactly() -> None:
    listed = frozenset({"https://Good.example", "null", "http://other.example:80"})
    assert allowed_origin(from_origin("https://good.example"), listed)
    assert allowed_origin(from_origin("https://good.example:443"), listed)
    assert allowed_origin(from_origin("http://other.example"), listed)
    assert allowed_origin(from_origin("null"), listed)
    assert not allowed_origin(from_origin("https://good.example:444"), listed)
    assert not allowed_origin(from_origin("https://sub.good.example"), listed)


def test_a_bad_entry_in_the_list_lets_nobody_in() -> None:
    assert normal_origin("nonsense") is None
    assert not allowed_origin(from_origin("other nonsense"), frozenset({"nonsense"}))


# What the library sees


@pytest.mark.parametrize("offered", [(), ("other",), ("bearer.T", "chatroom.v1", "other")])
def test_the_library_accepts_the_handshake_that_it_is_given(offered: tuple[str, ...]) -> None:
    head = canonical(Upgrade(KEY, offered))
    library = WSConnection(ConnectionType.SERVER)
    library.receive_data(head)
    event = next(library.events())
    assert isinstance(event, HandshakeRequest)
    spoken = ["chatroom.v1"] if "chatroom.v1" in offered else []
    assert (event.host, event.target, event.subprotocols, event.extensions) == ("localhost", "/", spoken, [])
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in library.send(AcceptConnection())


NAMES = st.sampled_from(
    [*HANDSHAKE, "origin", "authorization", "sec-websocket-protocol", "content-length", "expect"]
)
VALUES = st.one_of(
    st.sampled_from([*HANDSHAKE.values(), "", "0", "chatroom.v1", "bearer.T", "null", "close"]),
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20),
)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=6),
    st.sets(NAMES, max_size=3),
    st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "X"]),
    st.sampled_from(["/", "/handshake", "/nowhere"]),
    st.sampled_from(["1.0", "1.1"]),
    st.booleans(),
)
def test_any_head_is_routed_or_refused(
    more: list[tuple[str, str]], without: set[str], method: str, path: str, version: str, draining: bool
) -> None:
    headers = [pair for pair in HANDSHAKE.items() if pair[0] not in without] + more
    asked = request(headers, method=method, path=path, version=version)
    try:
        upgrade = route(asked, draining=draining)
    except Refusal as refused:
        assert refused.status in {400, 404, 405, 426, 503, 505}  # noqa: PT017 - it may as well be let through
        return
    assert allowed_origin(asked, None)
    assert allowed_origin(asked, frozenset()) in {True, False}
    if upgrade is not None:
        assert canonical(upgrade).isascii()
        library = WSConnection(ConnectionType.SERVER)
        library.receive_data(canonical(upgrade))
        assert isinstance(next(library.events()), HandshakeRequest)
