"""HTTP/1 on the wire: finds the head of a request, parses it with h11, and writes the answer.

Owns which heads are valid, and the headers of every answer. h11 is tolerant in cases that servers and proxies
read differently, so each line of a head is checked before h11 gets it. Rules:

1. Lines end in CRLF. A bare LF, a bare CR, any other control character but the tab, a folded header and an
   empty line before the request line are refused, at the first byte that shows it.
2. A request line that doesn't end within the limit is refused by 414. A head that doesn't, or that has too
   many headers, is refused by 431.
3. The result doesn't depend on how the bytes of a head were cut.
4. The target is a path, or an absolute http address. The host of such an address replaces that of the Host
   header (RFC 9112, section 3.2.2). Authority and asterisk forms are refused. Versions 1.0 and 1.1 are
   served, others are refused by 505.
5. No body is ever parsed, so that none can be mistaken for a request. A request that announces a body is
   answered, and its connection ends.

It doesn't know what paths, methods or headers mean, beyond what frames a message.
"""

import re
from http import HTTPStatus

import h11

from chatroom.core.errors import Refusal
from chatroom.core.http import HOST, Peer, Request, Response

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?=[^\n])")
"""Bytes that no head may hold. A carriage return at the very end may be half of a line's end."""

_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+ HTTP/[0-9]\.[0-9]\r\n")

_SHARED_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The headers of every answer, unless the answer has its own header of that name."""

_ABSOLUTE = re.compile(rf"(?i:https?)://(?P<host>{HOST.pattern})(?P<path>(?:[/?].*)?)")
"""A target in absolute form. It may name only the server itself, and no user."""

_WITHOUT_BODY = frozenset({204, 304})


class HeadScanner:
    """Finds the end of a head in pieces of any size, and refuses invalid heads."""

    def __init__(self, max_bytes: int, max_line: int, max_headers: int) -> None:
        """`max_line` limits the request line, `max_bytes` the whole head."""
        self._max_bytes = max_bytes
        self._max_line = max_line
        self._max_headers = max_headers
        self._buffer = bytearray()
        self._lines = 0
        self._line_start = 0
        self._scanned = 0
        self._end: int | None = None

    @property
    def started(self) -> bool:
        """At least one byte of the head has come."""
        return bool(self._buffer)

    @property
    def complete(self) -> bool:
        """The head has ended, and `head` and `trailing` are valid."""
        return self._end is not None

    @property
    def head(self) -> bytes:
        """The whole head, with the empty line at its end."""
        return bytes(self._buffer[: self._end])

    @property
    def trailing(self) -> bytes:
        """The bytes behind the head."""
        return bytes(self._buffer[self._end :])

    def feed(self, data: bytes) -> None:
        """Check `data`, the next piece. Bytes behind the head are only kept. Raises Refusal."""
        self._buffer += data
        while self._end is None:
            newline = self._buffer.find(b"\n", self._scanned, self._room)
            if newline < 0:
                self._check_unfinished()
                return
            self._check_line(bytes(self._buffer[self._line_start : newline + 1]))
            self._line_start = self._scanned = newline + 1

    @property
    def _room(self) -> int:
        """The offset at which the current line has to end."""
        return self._max_bytes if self._lines else self._max_line

    def _check_unfinished(self) -> None:
        room = self._room
        if _CONTROL.search(self._buffer, self._scanned, room):
            raise Refusal(400, "Control character in the head")
        if len(self._buffer) > room:
            if not self._lines:
                raise Refusal(414, f"Request line over {room} bytes: send the token in a header")
            raise Refusal(
                431,
                f"The headers are too large: at most {room} bytes in all. Cookies count, those of other "
                "programs on this host too: delete them, or use another host name",
            )
        # The last byte is checked again: it may be half of a line's end.
        self._scanned = max(self._line_start, len(self._buffer) - 1)

    def _check_line(self, line: bytes) -> None:
        if _CONTROL.search(line):
            raise Refusal(400, "Control character in the head")
        if not line.endswith(b"\r\n"):
            raise Refusal(400, "Line without a carriage return")
        if not self._lines:
            if not _REQUEST_LINE.fullmatch(line):
                raise Refusal(400, "Malformed request line")
        elif line == b"\r\n":
            self._end = self._line_start + 2
        elif line.startswith((b" ", b"\t")):
            raise Refusal(400, "Folded header")
        elif self._lines > self._max_headers:
            raise Refusal(431, f"Too many headers: send at most {self._max_headers}")
        self._lines += 1


class Exchange:
    """One request and its answer. Each request of a connection gets an exchange of its own."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER)
        self._wants_body = True

    @property
    def reusable(self) -> bool:
        """Request and answer are complete, and another request may follow on the connection."""
        return self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE

    def read(self, head: bytes, peer: Peer, *, secure: bool) -> Request:
        """The request in a complete head of a HeadScanner. Raises Refusal."""
        self._connection.receive_data(head)
        try:
            event = self._connection.next_event()
        except h11.RemoteProtocolError:
            # The message of h11 would quote the head, which may hold a token.
            raise Refusal(400, "Malformed head") from None
        assert isinstance(event, h11.Request)  # the head is complete, so the event is nothing else
        self._wants_body = event.method != b"HEAD"
        target, host = _split(event.target.decode("ascii"))
        version = event.http_version.decode("ascii")
        if version not in {"1.0", "1.1"}:
            raise Refusal(505, "HTTP version not supported")
        path, _, query = target.partition("?")
        headers = _headers(head) if host is None else _with_host(host, _headers(head))
        request = Request(event.method.decode("ascii"), path, query, headers, version, peer, secure)
        if not has_body(request):
            self._connection.next_event()  # the end of the message
        return request

    def write(self, response: Response, *, date: str, close: bool) -> bytes:
        """The whole answer, head and body in one piece. `close` announces that it is the last one."""
        bodiless = response.status in _WITHOUT_BODY
        headers = [("Date", date)]
        if not bodiless:
            headers += [("Content-Type", response.content_type), ("Content-Length", str(len(response.body)))]
        own = {name.lower() for name, _ in response.headers}
        headers += [(name, value) for name, value in _SHARED_HEADERS.items() if name.lower() not in own]
        headers += response.headers
        if close:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        data = self._send(h11.Response(status_code=response.status, headers=headers, reason=reason))
        if self._wants_body and not bodiless:
            data += self._send(h11.Data(data=response.body))
        return data + self._send(h11.EndOfMessage())

    def _send(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> bytes:
        return self._connection.send(event)


def has_body(request: Request) -> bool:
    """The request announces a body, rightly or wrongly."""
    lengths = request.values("content-length")
    return bool(request.values("transfer-encoding")) or any(length.strip("0") for length in lengths)


def _split(target: str) -> tuple[str, str | None]:
    """The path and query of a target, and the host of an absolute one. Raises Refusal."""
    absolute = _ABSOLUTE.fullmatch(target)
    path = target if absolute is None else absolute["path"]
    if "#" in target or (absolute is None and not path.startswith("/")):
        raise Refusal(400, "The target must be a path or an http address")
    if absolute is None:
        return path, None
    return path if path.startswith("/") else f"/{path}", absolute["host"]


def _with_host(host: str, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The headers with this host instead of theirs. An invalid Host header stays, and is refused later."""
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) > 1 or not all(map(HOST.fullmatch, hosts)):
        return headers
    return (*(each for each in headers if each[0] != "host"), ("host", host))


def _headers(head: bytes) -> tuple[tuple[str, str], ...]:
    """The headers of each line. h11 would join some that come twice."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    pairs = (line.partition(":") for line in lines)
    return tuple((name.lower(), value.strip(" \t")) for name, _, value in pairs)
