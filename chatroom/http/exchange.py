"""HTTP/1 on the wire: finds the head of a request, reads it, and writes the answer.

Owns which heads are valid, and the headers of every answer. h11 judges what a head may say. It is tolerant in
cases that servers and proxies read differently, so each line of a head is checked before. Rules:

1. Lines end in CRLF. A bare LF, a bare CR, any other control character but the tab, a folded header and an
   empty line before the request line are refused, at the first byte that shows it.
2. A request line that doesn't end within the limit is refused by 414. A head that doesn't, or that has too
   many headers, is refused by 431.
3. The result doesn't depend on how the bytes of a head were cut.
4. The target is a path, or an absolute http address. The host of such an address replaces that of the Host
   header (RFC 9112, section 3.2.2). Authority and asterisk forms are refused. Versions 1.0 and 1.1 are
   served, others are refused by 505.
5. A body is read where it is asked for (`expect_body`), and then another request may follow. Any other
   request that announces a body is answered, and its connection ends: so no body is mistaken for a request.
6. A head in which every line is plain (`_PLAIN_HEAD`) is judged by one expression. h11 judges all others, and
   would give the same result for any head, at three times the cost.

It doesn't know what paths, methods or headers mean, beyond what frames a message.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

import h11

from chatroom.core.errors import Refusal
from chatroom.core.http import HOST, Peer, Request, Response
from chatroom.http.body import BodyReader

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?=[^\n])")
"""Bytes that no head may hold. A carriage return at the very end may be half of a line's end."""

_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+ HTTP/[0-9]\.[0-9]\r\n")

_PLAIN_HEAD = re.compile(
    rb"[A-Z]++ [!-~]++ HTTP/1\.1\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)*+\r\n"
)
"""A head in which every line is what it seems. No part of it is ever tried in a second way."""
_FRAMING = frozenset({"host", "content-length", "transfer-encoding"})
_LENGTH = re.compile(r"[0-9]{1,18}")

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
        self.plain = False
        """The head came whole, and is a _PLAIN_HEAD."""

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
        if len(self._buffer) == len(data):
            self._end = self._end_of_plain(data)
            self.plain = self._end is not None
        while self._end is None:
            newline = self._buffer.find(b"\n", self._scanned, self._room)
            if newline < 0:
                self._check_unfinished()
                return
            self._check_line(bytes(self._buffer[self._line_start : newline + 1]))
            self._line_start = self._scanned = newline + 1

    def _end_of_plain(self, data: bytes) -> int | None:
        """Where a plain head within all limits ends that has come whole; None if there is none."""
        last = data.find(b"\r\n\r\n")
        end = last + 4
        if last < 0 or end > self._max_bytes or data.find(b"\r\n") + 2 > self._max_line:
            return None
        if data.count(b"\r\n", 0, end) > self._max_headers + 2 or not _PLAIN_HEAD.fullmatch(data, 0, end):
            return None
        return end

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
        self._wants_body = True
        self._whole = False  # the request has been read to its end
        self._keeps = False  # the client takes further answers on the connection
        self._body: BodyReader | None = None

    @property
    def reusable(self) -> bool:
        """Another request may follow on the connection, once this one is answered."""
        return self._keeps and (self._whole or (self._body is not None and self._body.complete))

    def read(self, head: bytes, peer: Peer, *, secure: bool, plain: bool = False) -> Request:
        """The request in a complete head of a HeadScanner, which says if it is `plain`. Raises Refusal."""
        line, _, rest = head.decode("latin-1").partition("\r\n")
        method, whole_target, protocol = line.split(" ")
        headers = _headers(rest)
        if not (plain and _is_plain(headers)):
            _vet(head)
        self._wants_body = method != "HEAD"
        target, host = _split(whole_target)
        version = protocol.removeprefix("HTTP/")
        if version not in {"1.0", "1.1"}:
            raise Refusal(505, "HTTP version not supported")
        path, _, query = target.partition("?")
        if host is not None:
            headers = _with_host(host, headers)
        request = Request(method, path, query, headers, version, peer, secure)
        self._whole = not has_body(request)
        self._keeps = request.http_version == "1.1" and "close" not in members(request, "connection")
        return request

    def expect_body(self, request: Request, max_bytes: int) -> BodyReader:
        """What takes the body of the request, whose form is good. Raises Refusal 413 if it is too large."""
        lengths = request.values("content-length")
        chunked = request.values("transfer-encoding")
        length = None if chunked else read_length(lengths[0]) if lengths else 0
        self._body = BodyReader(length, max_bytes)
        return self._body

    def write(self, response: Response, *, date: str, close: bool) -> bytes:
        """The whole answer, head and body in one piece. `close` announces that it is the last one."""
        self._keeps = self._keeps and not close
        if response.status in _WITHOUT_BODY:
            return self._head(response, date, "")
        length = f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n"
        head = self._head(response, date, length)
        return head + response.body if self._wants_body else head

    def write_stream_head(self, response: Response, *, date: str) -> bytes:
        """The head of an answer whose body goes on until the connection ends."""
        self._keeps = False
        return self._head(response, date, f"Content-Type: {response.content_type}\r\n")

    def _head(self, response: Response, date: str, framing: str) -> bytes:
        shared = _SHARED_LINES
        if not _SHARED_NAMES.isdisjoint(name.lower() for name, _ in response.headers):
            own = {name.lower() for name, _ in response.headers}
            shared = _lines(
                (name, value) for name, value in _SHARED_HEADERS.items() if name.lower() not in own
            )
        end = "" if self._keeps else "Connection: close\r\n"
        return (
            f"HTTP/1.1 {_STATUS_LINES[response.status]}\r\nDate: {date}\r\n"
            f"{framing}{shared}{_lines(response.headers)}{end}\r\n"
        ).encode("ascii")


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


_SHARED_LINES = _lines(_SHARED_HEADERS.items())
_SHARED_NAMES = frozenset(map(str.lower, _SHARED_HEADERS))
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def _is_plain(headers: tuple[tuple[str, str], ...]) -> bool:
    """Whether h11 would have nothing to say against a _PLAIN_HEAD with these headers."""
    framing = [name for name, _ in headers if name in _FRAMING]
    if framing == ["host"]:
        return True
    lengths = [value for name, value in headers if name == "content-length"]
    return (
        len(framing) == 2 and "host" in framing and len(lengths) == 1 and bool(_LENGTH.fullmatch(lengths[0]))
    )


def _vet(head: bytes) -> None:
    """Raises Refusal if h11 refuses the head."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        connection.next_event()
    except h11.RemoteProtocolError:
        # The message of h11 would quote the head, which may hold a token.
        raise Refusal(400, "Malformed head") from None


def members(request: Request, name: str) -> set[str]:
    """The members of a header that is a list, in lower case."""
    values = request.values(name)
    return {part.strip(" \t").lower() for part in ",".join(values).split(",")} if values else set()


def read_length(text: str) -> int:
    """The number in a Content-Length of digits; a huge one is cut, and still huge."""
    return int(text.lstrip("0")[:18] or "0")


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


def _headers(lines: str) -> tuple[tuple[str, str], ...]:
    """The headers of each line, up to the empty one. h11 would join some that come twice."""
    pairs = [line.partition(":") for line in lines.split("\r\n")[:-2]]
    return tuple([(name.lower(), value.strip(" \t")) for name, _, value in pairs])
