"""One stream of events: a connection that only reads a room, by Server-Sent Events.

Owns the bytes of one stream: its first event, its comments, its farewell, and how it notices that its reader
has gone. Rules:

1. For the rooms a stream is a silent member: it has a cursor and lags like any other, nobody is told of it,
   and it is told of nobody. It gets the frames that all get, turned into text once for all streams.
2. A stream ends with `retry:`, so that a browser comes back later, and with a comment that says why.
3. What a reader sends is ignored. When it closes its half, it has gone.
4. An answer has no length and no chunks: it goes on until the connection ends. So its pieces can be shared.

It doesn't know commands, nor how a room is changed.
"""

import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from chatroom.auth.tokens import Identity
from chatroom.connections.authorization import Authorization
from chatroom.connections.connection import AcceptedHandshake, ServedConnection
from chatroom.connections.ending import BROKEN, Ending
from chatroom.connections.services import ClientInfo, Services
from chatroom.core.errors import Disconnect
from chatroom.core.logevents import log_event
from chatroom.net.transport import Stalled, Transport
from chatroom.protocol.eventtext import COMMENT, EventTexts, farewell_text, opening_text, payload_of
from chatroom.protocol.session import Session
from chatroom.rooms.entries import Enter
from chatroom.websocket.framing import Pieces
from chatroom.websocket.outbound import Outbound

COMMENT_SECONDS = 15.0
LINGER_SECONDS = 1.5
READ_BYTES = 4096
MAX_IGNORED = 64 * 1024
"""Bytes of a reader that are read and ignored. From then on nothing is read, so TCP slows it."""
RETRY_MS = (3000, 8000)
"""When browsers come back, at random between these: a server that restarts is up again by then."""
NOT_BACK_MS = 24 * 3600 * 1000
"""When they come back to where somebody has sent their readers away: a stream can't tell them not to."""
READER_LEFT = Ending(hard=True)


class EventOutbound(Outbound):
    """The queue of a stream. It takes frames, and sends their text."""

    __slots__ = ("_epoch", "_texts")

    def __init__(self, transport: Transport, on_pending: Callable[[], None], texts: EventTexts) -> None:
        super().__init__(transport, on_pending)
        self._texts = texts
        self._epoch = b""

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        """See Outbound."""
        if not self._clear:
            return 0
        texts = self._texts
        text, text_ends = texts.last if data is texts.last_data else texts.of(data, ends, self._epoch)
        return self._offer(text, text_ends) if text else len(ends)

    def feed(self, data: bytes, ends: Sequence[int]) -> int:
        """See Outbound."""
        return super().feed(*self._texts.of(data, ends, self._epoch))

    def put(self, data: bytes, ends: Sequence[int] | None = None) -> None:
        """Leave out a frame that isn't stored."""

    def put_pieces(self, frame: Pieces) -> None:
        """Send the first event, from the frame that tells where the stream begins."""
        data = b"".join(frame)
        payload = payload_of(data, 0, len(data))
        opened = json.loads(payload)
        self._epoch = opened["epoch"].encode()
        self.put_text(opening_text(payload, opened["epoch"], opened["last_id"] - opened["replay"]))

    def put_text(self, text: bytes) -> None:
        """Send text as it is."""
        super().put(text)


class EventStream(ServedConnection):
    """One stream. `run` returns when it is over and its socket is closed."""

    __slots__ = ("_handshake", "_ignored", "_services", "_text", "_ticking", "_transport")

    def __init__(
        self,
        transport: Transport,
        client: ClientInfo,
        identity: Identity,
        handshake: AcceptedHandshake,
        services: Services,
    ) -> None:
        self._text = EventOutbound(transport, self._on_pending, services.event_texts)
        super().__init__(client, self._text, services, silent=True)
        self._transport = transport
        self._services = services
        self._handshake: AcceptedHandshake | None = handshake
        self._ignored = 0
        self._ticking = False
        session = Session(client.username, handshake.room, identity.rights, services.limits)
        self.member.rights = identity.rights
        self.authorization = Authorization(identity, session, self._outgoing, self.end, services.expiry)

    def log_end(self, ending: Ending) -> None:
        """See ServedConnection."""
        room = self.authorization.room
        log_event(logging.INFO, "stream_end", **self.client.fields(), room=room, drop=ending.drop)

    def stop_reading(self) -> None:
        """See ServedConnection: a reader sends no command."""

    def _begin(self, nursery: trio.Nursery) -> None:
        handshake, self._handshake = self._handshake, None
        assert handshake is not None, "a stream is run once"
        self._text.put_text(handshake.answer)
        self._services.keepalive.add(self)
        self._transport.watch(self._on_readable)
        nursery.start_soon(self._enter, handshake, name="enter")

    async def _enter(self, handshake: AcceptedHandshake) -> None:
        replied = self._outgoing.expect_reply()
        await self._broker.submit(Enter(self.member, handshake.room, handshake.since, handshake.epoch))
        await replied.wait()
        label = self.authorization.identity.label
        log_event(logging.INFO, "stream", **self.client.fields(), room=handshake.room, label=label)

    def on_timer(self, _now: float) -> float:
        """Send a comment. Returns the seconds until the next one."""
        if self._text.broken or self._text.shut:
            return math.inf
        if self._text.pending:  # flush has a timeout of its own
            self._text.remind()
        elif self._ticking:
            self._text.put_text(COMMENT)
        self._ticking = True
        return COMMENT_SECONDS

    def _on_readable(self) -> None:
        """Read and ignore. Called in the task of the ReadPoller; never raises."""
        try:
            self._read()
        except OSError:
            self._text.hang_up()
            self.end.ask(BROKEN)
        except Exception as fault:
            self.end.fail(fault)

    def _read(self) -> None:
        while (data := self._transport.receive_nowait(READ_BYTES)) is not None:
            self._ignored += len(data)
            if not data:
                self.end.ask(READER_LEFT)
            if not data or self._ignored > MAX_IGNORED:
                self._transport.unwatch()
                return
            if not self._transport.buffered:
                return

    def _say_farewell(self, why: Disconnect) -> None:
        sent_away = 4500 <= why.code < 4600  # see CloseCode
        retry = NOT_BACK_MS if sent_away else random.randint(*RETRY_MS)  # noqa: S311
        self._text.close_with(farewell_text(why.reason, retry))

    def _forget(self) -> None:
        self._services.keepalive.remove(self)

    async def _close_socket(self, *, soft: bool) -> None:
        self._transport.unwatch()
        try:
            if soft:
                with trio.move_on_after(LINGER_SECONDS, shield=True), suppress(Stalled, OSError):
                    await self._text.flush()
                    await self._transport.send_eof()
                    while await self._transport.receive_some(READ_BYTES):
                        pass
        finally:
            with trio.CancelScope(shield=True):
                if not soft or self._text.broken or self._text.pending or self._transport.unsent():
                    self._transport.abort()
                    await trio.lowlevel.checkpoint()
                else:
                    await self._transport.aclose()
            self._text.forget()
