"""How a client gets a stream to its server.

    Unreachable    there is no way to the server now; later there may be
    Untrusted      what answers there isn't the server: no certificate, or none that is trusted

Owns how a connection is opened, and what is read while a handshake is under way. Rules:

1. Certificates are checked. Nothing is sent to a server that isn't trusted.
2. A handshake that can't be answered any more, or is answered by more than HEAD_BYTES, is over at once. The
   library would wait for it without end.

It doesn't know what is said on a stream.
"""

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from chatroom.client.address import Place
from chatroom.core.errors import ChatroomError

HEAD_BYTES = 64 * 1024
_HEAD_SEEN = 16
"""How many of the first bytes of an answer are looked at here."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([2-5][0-9][0-9])")
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)
"""Those of OpenSSL's reasons (X509_V_ERR) against which other authorities help."""
_TLS_ALERT = b"\x15\x03"


class Unreachable(ChatroomError):
    """There is no way to the server now. The message says why."""


class Untrusted(ChatroomError):
    """What answers there isn't the server. The message says what to do."""


class Dialer:
    """Opens streams to one place."""

    def __init__(self, place: Place, context: ssl.SSLContext | None) -> None:
        """`context` checks certificates, where `place` wants TLS."""
        self._place = place
        self._context = context

    @property
    def host_header(self) -> str:
        """The `Host` of requests."""
        return self._place.authority

    @property
    def path(self) -> str:
        """What the paths of requests begin with."""
        return self._place.path

    async def open(self) -> trio.abc.Stream:
        """A stream to the server. Raises Unreachable, Untrusted."""
        try:
            stream = await trio.open_tcp_stream(*self._place.address)
            return stream if self._context is None else await self._secured(stream, self._context)
        except (OSError, trio.BrokenResourceError) as error:
            raise Unreachable(_reason(error)) from None

    async def _secured(self, stream: trio.SocketStream, context: ssl.SSLContext) -> trio.abc.Stream:
        """The stream with TLS. Raises Untrusted, BrokenResourceError."""
        secured = trio.SSLStream(stream, context, server_hostname=self._place.host, https_compatible=True)
        try:
            await secured.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(secured)
            cause = error.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                hint = ": --ca names other authorities" if cause.verify_code in _UNKNOWN_AUTHORITY else ""
                message = cause.verify_message.rstrip(".")
                raise Untrusted(f"its certificate isn't trusted ({message}){hint}") from None
            if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
                raise Untrusted(
                    "what answers there doesn't speak TLS: is it ws:// instead of wss://?"
                ) from None
            raise
        return secured


class HandshakeStream(trio.abc.Stream):
    """A stream on which a handshake is under way at first (rule 2)."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._received = 0
        self._head = b""
        self._handshake: trio.CancelScope | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status of an answer that is no handshake; None if there is no such answer."""
        found = _STATUS_LINE.match(self._head)
        return None if found is None else int(found[1])

    @property
    def speaks_tls(self) -> bool:
        """Whether the answer is one of TLS."""
        return self._head.startswith(_TLS_ALERT)

    @contextmanager
    def shaking_hands(self, seconds: float) -> Iterator[trio.CancelScope]:
        """A context that is left after `seconds`, or when no answer can come any more."""
        with trio.move_on_after(seconds) as self._handshake:
            yield self._handshake
        self._handshake = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except BaseException:
            self._end_handshake()
            raise
        self._received += len(data)
        self._head += data[: _HEAD_SEEN - len(self._head)]
        if not data or self._received > HEAD_BYTES:
            self._end_handshake()
        return data

    def _end_handshake(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except BaseException:
            self._end_handshake()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _reason(error: BaseException) -> str:
    """Why there is no connection, in words."""
    while isinstance(error.__cause__, OSError | BaseExceptionGroup):
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[-1]
    if isinstance(error, ssl.SSLError):  # its errno is none of the system's
        return f"TLS fails ({error.reason or 'it has closed'})"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
