"""Heads on the wire: what is refused, when, and that it doesn't depend on how the bytes were cut."""

import tracemalloc

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.http.exchange import Exchange, HeadScanner, has_body
from chatroom.http.frontdoor import READ_BYTES

PEER = Peer("192.0.2.1")
LIMITS = Limits()
HEAD = b"GET /path?a=b HTTP/1.1\r\nHost: here\r\nX-Empty:\r\nX-Text:  a\tb \r\n\r\n"


def scan(
    data: bytes, size: int | None, *, max_bytes: int = 8192, max_line: int = 4096, max_headers: int = 64
) -> HeadScanner:
    """A scanner that was fed `data` in pieces of `size`, but nothing after the head was complete."""
    scanner = HeadScanner(max_bytes, max_line, max_headers)
    size = size or max(len(data), 1)
    for start in range(0, len(data), size):
        scanner.feed(data[start : start + size])
    return scanner


def status_of(data: bytes, size: int | None = None, **limits: int) -> int | None:
    """The status of the refusal, 200 for a complete head, None for one that isn't."""
    try:
        return 200 if scan(data, size, **limits).complete else None
    except Refusal as refusal:
        return refusal.status


def read(head: bytes) -> Request:
    return Exchange().read(head, PEER, secure=False)


def refused(head: bytes) -> int:
    with pytest.raises(Refusal) as caught:
        read(head)
    return caught.value.status


@pytest.mark.parametrize("size", [1, 2, 3, 7, None])
def test_a_head_is_found_however_it_is_cut(size: int | None) -> None:
    scanner = scan(HEAD, size)
    assert scanner.complete
    assert scanner.head == HEAD
    assert scanner.trailing == b""


def test_what_comes_behind_the_head_is_kept_and_not_looked_at() -> None:
    trailing = b"\x81\x85\x00\n" * 5000
    scanner = scan(HEAD + trailing, None)
    assert scanner.head == HEAD
    assert scanner.trailing == trailing
    scanner.feed(b"\x00")
    assert scanner.trailing == trailing + b"\x00"


def test_a_scanner_has_started_with_the_first_byte() -> None:
    scanner = HeadScanner(100, 100, 10)
    scanner.feed(b"")
    assert not scanner.started
    scanner.feed(b"G")
    assert scanner.started
    assert not scanner.complete


REFUSED_LINES = {
    "bare line feed": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare line feed in the headers": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare line feed at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    "two carriage returns": b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "control character in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    "vertical tab": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0b\r\n\r\n",
    "escape": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n",
    "delete": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "header folded with a tab": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
    "white space before the first header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "empty line first": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "space first": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "space last": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "tab for a space": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "target that isn't ASCII": "GET /é HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "HTTP/0.9": b"GET /\r\n",
    "no method": b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower-case protocol": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "long version": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "another protocol": b"BLAH\r\n\r\n",
    "TLS ClientHello": bytes.fromhex("16030100c8010000c40303") + b"\x55" * 32,
}


@pytest.mark.parametrize("head", REFUSED_LINES.values(), ids=REFUSED_LINES)
def test_a_head_that_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    assert status_of(head) == 400
    assert status_of(head, 1) == 400


def test_a_control_character_is_refused_before_its_line_ends() -> None:
    assert status_of(b"\x16") == 400
    assert status_of(b"GET / HTTP/1.1\r\nX: \x00") == 400


@pytest.mark.parametrize("size", [1, 100, None])
def test_a_request_line_may_be_as_long_as_the_limit_says(size: int | None) -> None:
    line = b"GET /" + b"a" * 200
    assert status_of(line[:200], size, max_line=200) is None
    assert status_of(line[:201], size, max_line=200) == 414
    whole = b"GET /" + b"a" * 184 + b" HTTP/1.1\r\n"
    assert len(whole) == 200
    assert status_of(whole + b"Host: a\r\nX: " + b"b" * 300 + b"\r\n\r\n", size, max_line=200) == 200
    assert status_of(whole + b"Host: a\r\n\r\n", size, max_line=199) == 414


def test_what_is_too_large_is_told_with_what_to_do() -> None:
    for head, words in (
        (b"GET /" + b"a" * 16384, "over 16384 bytes: send the token in a header"),
        (b"GET / HTTP/1.1\r\nCookie: " + b"a" * 32768, "at most 32768 bytes in all. Cookies count"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101, "send at most 100"),
    ):
        with pytest.raises(Refusal, match=words):
            HeadScanner(LIMITS.head_bytes, LIMITS.head_line, LIMITS.head_headers).feed(head)


@pytest.mark.parametrize("size", [1, READ_BYTES])
def test_memory_of_the_most_pending_slow_heads_is_bounded(size: int) -> None:
    """Each holds what it has sent and not much more, however it was cut: five MiB in all at most."""
    head = (b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + b"c" * LIMITS.head_bytes)[: LIMITS.head_bytes]
    many = LIMITS.unauthenticated if size > 1 else 2  # by bytes it takes its time
    tracemalloc.start()
    try:
        scanners = [
            HeadScanner(LIMITS.head_bytes, LIMITS.head_line, LIMITS.head_headers) for _ in range(many)
        ]
        for scanner in scanners:
            for start in range(0, len(head), size):
                scanner.feed(head[start : start + size])
            assert not scanner.complete
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    most = 5 * 1024 * 1024 // LIMITS.unauthenticated
    assert held / many < most
    assert peak / many < most * (1 if size > 1 else 2)


@pytest.mark.parametrize("size", [1, 100, None])
def test_a_head_may_be_as_large_as_the_limit_says(size: int | None) -> None:
    assert status_of(HEAD, size, max_bytes=len(HEAD)) == 200
    assert status_of(HEAD, size, max_bytes=len(HEAD) - 1) == 431


@pytest.mark.parametrize("size", [1, 100, None])
def test_there_may_be_as_many_headers_as_the_limit_says(size: int | None) -> None:
    three = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n"
    assert status_of(three, size, max_headers=3) == 200
    assert status_of(three, size, max_headers=2) == 431


FRAGMENTS = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"\r", b"\n", b"A: b", b" ", b"\x00", b"x" * 50, b"\xff"]
)
HEADS = st.one_of(st.binary(max_size=300), st.lists(FRAGMENTS, max_size=12).map(b"".join))


@given(HEADS, st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_what_a_head_is_taken_for_does_not_depend_on_the_cuts(data: bytes, sizes: list[int]) -> None:
    limits = {"max_bytes": 150, "max_line": 100, "max_headers": 3}
    expected = status_of(data, **limits)
    assert expected in {200, 400, 414, 431, None}
    assert {status_of(data, size, **limits) for size in (1, *sizes)} == {expected}


def test_a_request_is_read_with_all_its_parts() -> None:
    assert Exchange().read(HEAD, PEER, secure=True) == Request(
        "GET", "/path", "a=b", (("host", "here"), ("x-empty", ""), ("x-text", "a\tb")), "1.1", PEER, True
    )


def test_headers_that_come_twice_stay_apart() -> None:
    request = read(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n")
    assert request.values("content-length") == ["5", "5"]


def test_bytes_beyond_ascii_in_a_value_are_taken_as_latin_1() -> None:
    assert read(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n").values("host") == ["\xff"]


MALFORMED = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "name that isn't ASCII": b"GET / HTTP/1.1\r\nHost: a\r\n\xff: b\r\n\r\n",
    "contradictory lengths": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "negative length": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "signed length": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
    "length of no digits": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "unknown transfer coding": b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "two transfer codings": b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "absolute form of another protocol": b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form with a user": b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form without a host": b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form with a fragment": b"GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form with a strange port": b"GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "half an absolute form": b"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "authority form": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\n",
}


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_refused(head: bytes) -> None:
    assert status_of(head) == 200
    assert refused(head) == 400


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"http://a.example/x?y=z", "/x", "y=z", "a.example"),
        (b"HTTPS://A.example:8443/", "/", "", "A.example:8443"),
        (b"http://[::1]:3000", "/", "", "[::1]:3000"),
        (b"http://a?y=/z", "/", "y=/z", "a"),
        (b"http://a//x", "//x", "", "a"),
        (b"//a/x", "//a/x", "", "here"),
        (b"/http://a/", "/http://a/", "", "here"),
    ],
)
def test_an_absolute_target_names_the_host(target: bytes, path: str, query: str, host: str) -> None:
    found = read(b"GET " + target + b" HTTP/1.1\r\nHost: here\r\nX: y\r\n\r\n")
    assert (found.path, found.query, found.values("host"), found.values("x")) == (path, query, [host], ["y"])


@pytest.mark.parametrize("hosts", [b"Host: a b\r\n", b"Host: \xff\r\n"])
def test_an_absolute_target_hides_no_host_that_has_to_be_refused(hosts: bytes) -> None:
    found = read(b"GET http://a/ HTTP/1.1\r\n" + hosts + b"\r\n")
    assert found.values("host") == [hosts[6:-2].decode("latin-1")]


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "9.9"])
def test_other_versions_of_http_are_not_spoken(version: str) -> None:
    assert refused(f"GET / HTTP/{version}\r\nHost: a\r\n\r\n".encode()) == 505


def test_http_1_0_needs_no_host() -> None:
    assert read(b"GET / HTTP/1.0\r\n\r\n").http_version == "1.0"


def test_a_refusal_carries_nothing_of_the_head() -> None:
    with pytest.raises(Refusal) as caught:
        read(b"GET /?token=s3cret HTTP/1.1\r\nAuthorization s3cret\r\n\r\n")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (b"", False),
        (b"Content-Length: 0\r\n", False),
        (b"Content-Length: 000\r\n", False),
        (b"Content-Length: 10\r\n", True),
        (b"Content-Length: 0, 0\r\n", True),
        (b"Transfer-Encoding: chunked\r\n", True),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", True),
    ],
)
def test_a_body_is_seen_where_one_is_announced(headers: bytes, expected: bool) -> None:
    assert has_body(read(b"GET / HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")) is expected


def answer(
    head: bytes | None, response: Response, *, close: bool = False
) -> tuple[h11.Response, bytes, bool, bytes]:
    """What a client reads of the answer: head, body, whether the server goes on, and the raw bytes."""
    exchange = Exchange()
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    if head is not None:
        exchange.read(head, PEER, secure=False)
        if head.startswith(b"HEAD"):
            client = h11.Connection(h11.CLIENT)
            client.send(h11.Request(method="HEAD", target="/", headers=[("Host", "a")]))
    raw = exchange.write(response, date="today", close=close)
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    first = client.next_event()
    assert isinstance(first, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    return first, body, exchange.reusable, raw


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_an_answer_carries_what_all_share() -> None:
    first, body, reusable, _ = answer(GET, Response(200, b"hello", "text/html"))
    assert dict(first.headers) == {
        b"date": b"today",
        b"content-type": b"text/html",
        b"content-length": b"5",
        b"x-content-type-options": b"nosniff",
        b"x-frame-options": b"DENY",
        b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
        b"referrer-policy": b"no-referrer",
        b"cross-origin-resource-policy": b"same-origin",
        b"cache-control": b"no-store",
    }
    assert first.reason == b"OK"
    assert body == b"hello"
    assert reusable


def test_an_answer_may_bring_its_own_headers() -> None:
    own = (("content-security-policy", "default-src 'self'"), ("X-More", "1"))
    headers = answer(GET, Response(200, headers=own))[0].headers
    assert [value for name, value in headers if name == b"content-security-policy"] == [b"default-src 'self'"]
    assert (b"x-more", b"1") in list(headers)


def test_an_answer_to_head_has_the_headers_of_get_and_no_body() -> None:
    first, body, reusable, raw = answer(GET.replace(b"GET", b"HEAD"), Response(200, b"hello"))
    assert dict(first.headers)[b"content-length"] == b"5"
    assert body == b""
    assert raw.endswith(b"\r\n\r\n")
    assert reusable


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_has_no_length(status: int) -> None:
    first, body, reusable, _ = answer(GET, Response(status))
    assert not {b"content-length", b"content-type", b"transfer-encoding"} & set(dict(first.headers))
    assert body == b""
    assert reusable


@pytest.mark.parametrize(
    "head",
    [
        GET.replace(b"1.1", b"1.0"),
        GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"),
    ],
)
def test_nothing_follows_where_the_client_or_a_body_ends_it(head: bytes) -> None:
    first, body, reusable, _ = answer(head, Response(200, b"hello"), close=b"Length" in head)
    assert (b"connection", b"close") in list(first.headers)
    assert body == b"hello"
    assert not reusable


def test_a_body_that_was_not_read_ends_it_even_unannounced() -> None:
    assert not answer(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"), Response(200))[2]


def test_a_head_that_could_not_be_read_is_answered_all_the_same() -> None:
    first, body, reusable, _ = answer(None, Response(400, b"no"), close=True)
    assert first.status_code == 400
    assert (b"connection", b"close") in list(first.headers)
    assert body == b"no"
    assert not reusable


def test_an_offer_of_another_protocol_leaves_the_connection_usable() -> None:
    head = GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    assert answer(head, Response(200, b"hello"))[2]


# The short way for plain heads, and the answers that h11 would write

NAMES = ["Host", "host", "Content-Length", "Transfer-Encoding", "Connection", "X-A", "Expect", "X A", "", "é"]
VALUES = ["", "a", " b ", "0", "12", "1" * 19, "+1", "1, 1", "chunked", "close", "keep-alive, Close", "a:b"]
LINES = st.builds(
    "{}{}{}".format, st.sampled_from(NAMES), st.sampled_from([":", ": ", " :", ""]), st.sampled_from(VALUES)
)
REQUEST_LINES = st.sampled_from(
    [
        "GET / HTTP/1.1",
        "POST /a?b=c HTTP/1.1",
        "get / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET / HTTP/2.0",
        "M-X / HTTP/1.1",
        "GET http://h:1/p HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /#x HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /\x80 HTTP/1.1",
    ]
)


def reading(data: bytes, size: int | None, *, short: bool) -> object:
    """What becomes of a head: the request and whether the client goes on, or the refusal."""
    try:
        scanner = scan(data, size, max_bytes=200, max_line=60, max_headers=5)
        if not scanner.complete:
            return None
        exchange = Exchange()
        request = exchange.read(scanner.head, PEER, secure=False, plain=short and scanner.plain)
        exchange.write(Response(200), date="today", close=False)
    except Refusal as refusal:
        return refusal.status, refusal.text
    return request, exchange.reusable, scanner.trailing


@given(REQUEST_LINES, st.lists(LINES, max_size=6), st.sampled_from(["\r\n\r\n", "\r\n\r\nGET", "\n\n", ""]))
def test_a_plain_head_is_read_as_h11_would_read_it(line: str, headers: list[str], end: str) -> None:
    data = ("\r\n".join([line, *headers]) + end).encode("latin-1")
    assert reading(data, None, short=True) == reading(data, 1, short=False)
    assert reading(data, None, short=True) == reading(data, None, short=False)


def test_a_usual_head_is_plain() -> None:
    assert scan(HEAD, None).plain
    assert not scan(HEAD, 7).plain
    assert not scan(GET.replace(b"1.1", b"1.0"), None).plain


HEADS = st.sampled_from(
    [GET, GET.replace(b"GET", b"HEAD"), GET.replace(b"1.1", b"1.0")]
    + [GET.replace(b"\r\n\r\n", b"\r\nConnection: %b\r\n\r\n" % value) for value in (b"close", b"Keep-Alive")]
)
OWN = st.sampled_from([(), (("Retry-After", "5"),), (("cache-control", "no-cache"), ("ETag", '"x"'))])


@given(HEADS, st.sampled_from([200, 201, 204, 304, 404, 503]), st.binary(max_size=9), OWN, st.booleans())
def test_an_answer_is_written_as_h11_would_write_it(
    head: bytes, status: int, body: bytes, own: tuple[tuple[str, str], ...], close: bool
) -> None:
    exchange, reference = Exchange(), h11.Connection(h11.SERVER)
    exchange.read(head, PEER, secure=False)
    written = exchange.write(Response(status, body, "text/html", own), date="today", close=close)
    reference.receive_data(head)
    wants_body = isinstance(first := reference.next_event(), h11.Request) and first.method != b"HEAD"
    assert isinstance(reference.next_event(), h11.EndOfMessage)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET" if wants_body else "HEAD", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(written)
    said = client.next_event()
    assert isinstance(said, h11.Response)
    again = reference.send(h11.Response(status_code=status, headers=said.headers, reason=said.reason))
    if wants_body and status not in (204, 304):
        again += reference.send(h11.Data(data=body))
    again += reference.send(h11.EndOfMessage())
    assert written.lower() == again.lower()
    assert exchange.reusable == (reference.our_state is h11.DONE and reference.their_state is h11.DONE)


def test_a_stream_has_no_length_and_is_the_last_answer() -> None:
    exchange = Exchange()
    exchange.read(GET, PEER, secure=False)
    head = exchange.write_stream_head(Response(200, content_type="text/event-stream"), date="today")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: today\r\nContent-Type: text/event-stream\r\n")
    assert head.endswith(b"\r\nConnection: close\r\n\r\n")
    assert b"ength" not in head
    assert not exchange.reusable


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_another_request_may_follow_a_body_that_was_read(framing: bytes) -> None:
    exchange = Exchange()
    request = exchange.read(GET.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % framing), PEER, secure=False)
    reader = exchange.expect_body(request, 100)
    exchange.write(Response(200), date="today", close=False)
    assert not exchange.reusable
    reader.feed(b"5\r\nhello\r\n0\r\n\r\nGET" if b"chunked" in framing else b"helloGET")
    assert (reader.body, reader.trailing, exchange.reusable) == (b"hello", b"GET", True)


def test_a_body_over_the_limit_is_refused_at_once() -> None:
    exchange = Exchange()
    head = GET.replace(b"\r\n\r\n", b"\r\nContent-Length: %b\r\n\r\n" % (b"9" * 18))
    with pytest.raises(Refusal, match="The body is too large"):
        exchange.expect_body(exchange.read(head, PEER, secure=False), 100)
