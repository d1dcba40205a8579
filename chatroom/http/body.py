"""The body of a request: found behind its head in pieces of any size, by its length or in chunks.

Owns which bodies are valid, and their bounds. Rules:

1. A body is what the head announces: so many bytes, or chunks (RFC 9112, section 7.1). The bytes behind it
   are only kept.
2. Lines between chunks end in CRLF, and have nothing but a size and, perhaps, an extension. Whatever servers
   and proxies might read differently is refused.
3. Everything is bounded: the body, the number of chunks, the bytes of extensions, and those of the trailers.
   Extensions and trailers are dropped.
4. The result doesn't depend on how the bytes were cut.

It doesn't know what a body means, nor how long it may take.
"""

import re

from chatroom.core.errors import Refusal

MAX_CHUNKS = 4096
MAX_LINE = 512
"""Bytes of the line before a chunk, and of a line of trailers."""
MAX_BESIDE = 16 * 1024
"""Bytes of extensions and trailers, in all."""

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})([ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class BodyReader:
    """Takes the bytes behind a head until the body has ended: then it is `complete`, and `body` is whole."""

    def __init__(self, length: int | None, max_bytes: int) -> None:
        """`length` is None for a body in chunks. Raises Refusal 413 for a length over `max_bytes`."""
        self._max_bytes = max_bytes
        self._chunks = None if length is not None else _Chunks(max_bytes)
        self._length = length or 0
        self._check_size(self._length)
        self._buffer = bytearray()
        self.complete = length == 0
        self.body = b""
        self.trailing = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises Refusal 413 for a body that is too large, and 400 for bad chunks."""
        if self.complete:
            self.trailing += data
            return
        self._buffer += data
        if self._chunks is None:
            if len(self._buffer) >= self._length:
                self._end(bytes(self._buffer[: self._length]), self._length)
        elif (end := self._chunks.scan(self._buffer)) is not None:
            self._end(bytes(self._chunks.body), end)

    def _end(self, body: bytes, end: int) -> None:
        self.complete = True
        self.body = body
        self.trailing = bytes(self._buffer[end:])

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise too_large(self._max_bytes)


def too_large(max_bytes: int) -> Refusal:
    """The refusal of a body over the limit."""
    return Refusal(413, f"The body is too large: at most {max_bytes} bytes")


class _Chunks:
    """Finds the data of chunks at the front of a buffer, and takes it out of there."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left: int | None = None  # bytes of the chunk under way, with the line's end behind it
        self._count = 0
        self._beside = 0
        self._trailers = False
        self.body = bytearray()

    def scan(self, buffer: bytearray) -> int | None:
        """Go on as far as the buffer goes. Returns where the body ends in it; None if it doesn't end yet."""
        at = 0
        while True:
            if self._left is not None:
                at = self._take_data(buffer, at)
                if self._left is not None:
                    break
            end = buffer.find(b"\n", at, at + MAX_LINE)
            if end < 0:
                self._check_unfinished(buffer, at)
                break
            line = bytes(buffer[at : end + 1])
            at = end + 1
            if self._trailers:
                if line == b"\r\n":
                    return at
                self._read_trailer(line)
            else:
                self._read_size(line)
        del buffer[:at]
        return None

    def _take_data(self, buffer: bytearray, at: int) -> int:
        """Take data of the chunk under way, and the end of its line. Returns where the rest begins."""
        assert self._left is not None
        piece = buffer[at : at + max(0, self._left - 2)]
        self.body += piece
        self._left -= len(piece)
        at += len(piece)
        if self._left > 2:
            return at
        end = bytes(buffer[at : at + self._left])
        if not b"\r\n"[2 - self._left :].startswith(end):
            raise Refusal(400, "A chunk is longer than its size")
        self._left = self._left - len(end) or None
        return at + len(end)

    def _check_unfinished(self, buffer: bytearray, at: int) -> None:
        if len(buffer) - at >= MAX_LINE:
            raise Refusal(400, "A line between the chunks is too long")

    def _read_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise Refusal(400, "Malformed chunk")
        self._count_beside(len(match[2] or b""))
        size = int(match[1], 16)
        self._count += 1
        if len(self.body) + size > self._max_bytes:
            raise too_large(self._max_bytes)
        if self._count > MAX_CHUNKS:
            raise Refusal(400, f"Too many chunks: send at most {MAX_CHUNKS}")
        if size:
            self._left = size + 2
        else:
            self._trailers = True

    def _read_trailer(self, line: bytes) -> None:
        if not _TRAILER.fullmatch(line):
            raise Refusal(400, "Malformed trailer")
        self._count_beside(len(line))

    def _count_beside(self, size: int) -> None:
        self._beside += size
        if self._beside > MAX_BESIDE:
            raise Refusal(400, f"Too much beside the chunks: send at most {MAX_BESIDE} bytes")
