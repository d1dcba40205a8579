"""A client at work: it connects when its core wants to, and carries frames between the core and a WebSocket.

Owns the connection, and the time that the core is told. Rules:

1. Each wait on the network has a deadline: CONNECT_SECONDS until there is a stream, and as long again until
   the handshake is answered; SEND_SECONDS for a write, what the core says for silence, CLOSE_SECONDS for a
   polite end.
2. Events are handed over one at a time, and nothing is read meanwhile. So a program that takes its time slows
   its own connection and nothing else, and nothing piles up here. If the server has given it up meanwhile,
   the core goes on where it was.
3. A token is asked for at each connection, and when the right to be connected ends: it may have been renewed.
   It is in a header, never in an address.
4. Of an answer that is no handshake, one line of plain text is repeated.
5. Whatever a peer sends, what the library makes of it ends the connection and nothing else: no error of the
   library comes out of `run`, and none interrupts a program that is about to show an event.

It doesn't know what is done with the events.
"""

import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from chatroom.client.backoff import retry_after
from chatroom.client.core import ABNORMAL, Core, Dialling, State
from chatroom.client.cursor import Begin, Position
from chatroom.client.dialer import Dialer, HandshakeStream, Unreachable, Untrusted
from chatroom.client.events import Ended, Event, Expiring
from chatroom.client.frames import LONGEST_FRAME
from chatroom.core.errors import StartError

CONNECT_SECONDS = 10.0
SEND_SECONDS = 20.0
CLOSE_SECONDS = 1.0
RENEW_SECONDS = 5.0
"""How often a renewed token is looked for, once the server has said that the old one ends."""
_BUSY_SECONDS = 1.0
_READ_BYTES = 64 * 1024
_MAX_LINE = 500

Handle = Callable[[Event], Awaitable[None]]


class Client:
    """A client of one server, from the first connection to its end."""

    def __init__(
        self,
        dialer: Dialer,
        token: Callable[[], str],
        *,
        room: str,
        username: str | None,
        begin: Begin,
        fill: bool = False,
        position: Position | None = None,
    ) -> None:
        """`token` gives the token of today. For `begin`, `fill` and `position` see Core.

        To be made within Trio.
        """
        self._core = Core(
            room,
            begin=begin,
            fill=fill,
            position=position,
            chance=random.random,
            prefix=uuid.uuid4().hex[:12],
            now=trio.current_time(),
        )
        self._dialer = dialer
        self._token = token
        self._shown_token = ""
        self._username = username
        self._ended: Ended | None = None
        self._sleep: trio.CancelScope | None = None
        self._dialing: trio.CancelScope | None = None
        self._outgoing: deque[str] = deque()
        self._work = trio.Event()
        self._expiring = trio.Event()

    async def run(self, handle: Handle) -> Ended:
        """Stay connected until the client ends, and hand over each event to `handle`. Returns the last one.

        Raises StartError if there is no token at first; what `handle` raises comes in a group.
        """
        self._shown_token = self._token()
        while self._ended is None:
            if await self._tell(handle):
                continue
            if trio.current_time() >= (self._core.wake_at() or 0.0):
                await self._connect(handle)
            else:
                await self._rest()
        return self._ended

    # What the program wants; each may be called from any task

    @property
    def core(self) -> Core:
        """The state, to be looked at."""
        return self._core

    def draft(self, event: str, data: Mapping[str, Any], cid: str | None = None) -> str:
        """Have something stored; see Core.draft. Returns its `cid`."""
        cid = str(uuid.uuid4()) if cid is None else cid
        self._core.draft(event, data, cid)
        self._wake()
        return cid

    def say(self, text: str, cid: str | None = None) -> str:
        """Say `text` in the room. Returns the `cid` of the Settled that will come."""
        return self.draft("message", {"text": text}, cid)

    def ask(self, event: str, data: Mapping[str, Any] | None = None) -> str:
        """Ask something. Returns the `cid` of the Answered that will come."""
        cid = self._core.ask(event, data)
        self._wake()
        return cid

    def switch(self, room: str) -> None:
        """Go to another room; Entered or SwitchRefused comes of it."""
        self._core.switch(room)
        self._wake()

    def typing(self, active: bool) -> None:
        """Tell the room that one is typing, or no longer."""
        self._core.typing(active)
        self._wake()

    def stop(self) -> None:
        """End the connection, and `run`."""
        self._core.stop()
        if self._dialing is not None:
            self._dialing.cancel()
        self._wake()

    # At work

    def _wake(self) -> None:
        if self._sleep is not None:
            self._sleep.cancel()

    async def _tell(self, handle: Handle) -> bool:
        """Hand over what has happened. Returns whether anything has."""
        events = self._core.take_events()
        began = trio.current_time()
        for event in events:
            if isinstance(event, Expiring):
                self._expiring.set()
            await handle(event)
            if isinstance(event, Ended):
                self._ended = event
        if trio.current_time() - began > _BUSY_SECONDS:
            self._core.listen(trio.current_time())
        return bool(events)

    async def _rest(self) -> None:
        """Wait for the time of the next connection, or until the program wants something."""
        with trio.CancelScope(deadline=self._core.wake_at() or 0.0) as self._sleep:
            await trio.sleep_forever()
        self._sleep = None

    async def _connect(self, handle: Handle) -> None:
        """One connection, from its dialling to its end."""
        dialling = self._core.dial()
        opened = None
        try:
            with trio.move_on_after(CONNECT_SECONDS) as self._dialing:
                opened = await self._dialer.open()
        except Untrusted as error:
            self._core.alien(str(error))
        except Unreachable as error:
            self._core.closed(ABNORMAL, str(error), trio.current_time())
        if opened is None:
            self._core.closed(ABNORMAL, "no answer in time", trio.current_time())
        else:
            await self._use(HandshakeStream(opened), dialling, handle)

    async def _use(self, stream: HandshakeStream, dialling: Dialling, handle: Handle) -> None:
        """Be connected by `stream`, and close it."""
        self._fresh_token()
        async with stream, trio.open_nursery() as nursery:
            websocket = await nursery.start(self._carry, stream, dialling)
            if websocket is not None:
                await self._talk(nursery, websocket, handle)
            nursery.cancel_scope.cancel()

    async def _carry(
        self,
        stream: HandshakeStream,
        dialling: Dialling,
        *,
        task_status: trio.TaskStatus[WebSocketConnection | None],
    ) -> None:
        """Shake hands, give the WebSocket or None, and keep the library at work on it.

        What goes wrong is told to the core.
        """
        websocket = None
        try:
            async with trio.open_nursery() as nursery:
                with stream.shaking_hands(CONNECT_SECONDS) as self._dialing:
                    if self._core.state is State.DIALING:  # nobody has stopped it meanwhile
                        websocket = await self._shake_hands(nursery, stream, dialling)
                self._dialing = None
                if websocket is None:
                    nursery.cancel_scope.cancel()
                else:
                    self._core.connected(trio.current_time())
                    self._outgoing.clear()
                    task_status.started(websocket)
                    nursery.start_soon(self._write, websocket)
        except* ConnectionRejected as group:
            self._rejected(group)
        except* Exception:  # rule 5: there are more kinds than the library says
            self._failed(stream, "it breaks the rules of WebSocket")
        self._failed(stream, "it doesn't answer the handshake")
        if websocket is None:
            task_status.started(None)

    def _failed(self, stream: HandshakeStream, reason: str) -> None:
        """The connection is of no use, if nobody has said so before."""
        status = stream.status
        if stream.speaks_tls:
            self._core.alien("what answers there speaks TLS: is it wss:// instead of ws://?")
        elif status is not None and self._core.state is State.DIALING:
            self._core.refused(status, _sentence(status, "", b""), 0.0, trio.current_time())
        self._core.closed(ABNORMAL, reason, trio.current_time())

    async def _shake_hands(
        self, nursery: trio.Nursery, stream: HandshakeStream, dialling: Dialling
    ) -> WebSocketConnection:
        """Raises what the library likes."""
        return await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # any stream does
            self._dialer.host_header,
            self._target(dialling),
            extra_headers=[(b"Authorization", f"Bearer {self._shown_token}".encode())],
            max_message_size=LONGEST_FRAME,
            receive_buffer_size=_READ_BYTES,
        )

    async def _talk(self, nursery: trio.Nursery, websocket: WebSocketConnection, handle: Handle) -> None:
        """Feed the core until the connection is over."""
        self._expiring = trio.Event()
        nursery.start_soon(self._renew, self._expiring)
        while self._core.state in (State.JOINING, State.OPEN):
            if frames := self._core.take_frames(trio.current_time()):
                self._outgoing.extend(frames)
                self._work.set()
            if not await self._tell(handle):
                await self._read(websocket)
        with trio.move_on_after(CLOSE_SECONDS):
            await websocket.aclose()

    async def _read(self, websocket: WebSocketConnection) -> None:
        """Give the core the next frame, the end of the connection, or the time if something is due."""
        message = None
        try:
            with trio.CancelScope(deadline=self._core.wake_at() or 0.0) as self._sleep:
                message = await websocket.get_message()
        except ConnectionClosed as closed:
            self._core.closed(*_close(closed), trio.current_time())
            return
        finally:
            self._sleep = None
        if isinstance(message, str):
            self._core.receive(message, trio.current_time())
        elif message is not None:
            self._core.alien()
        else:
            self._core.tick(trio.current_time())

    async def _write(self, websocket: WebSocketConnection) -> None:
        """Send what the core wants to be sent."""
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                while self._outgoing:
                    with trio.fail_after(SEND_SECONDS):
                        await websocket.send_message(self._outgoing.popleft())
        except ConnectionClosed:
            pass  # its reader learns it as well
        except trio.TooSlowError:
            self._core.closed(ABNORMAL, "the server takes nothing", trio.current_time())
            self._wake()

    async def _renew(self, expiring: trio.Event) -> None:
        """Once the server has said that the token ends, show a fresh one as soon as there is one."""
        while True:
            await expiring.wait()
            before = self._shown_token
            if self._fresh_token() != before:
                expiring = self._expiring = trio.Event()
                self.ask("auth", {"token": self._shown_token})
            else:
                await trio.sleep(RENEW_SECONDS)

    def _fresh_token(self) -> str:
        """The token of today; the last one if it can't be had."""
        with suppress(StartError):
            self._shown_token = self._token()
        return self._shown_token

    # HTTP

    def _target(self, dialling: Dialling) -> str:
        query: dict[str, str | int] = {"room": dialling.room}
        if self._username is not None:
            query["username"] = self._username
        if dialling.position is not None:
            query |= {"since": dialling.position.id, "epoch": dialling.position.epoch}
        return f"{self._dialer.path}/?{urlencode(query, quote_via=quote)}"

    def _rejected(self, group: BaseExceptionGroup[ConnectionRejected]) -> None:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, ConnectionRejected), "the group has nothing else"
        headers = {name.lower(): value.decode("latin-1") for name, value in error.headers or ()}
        self._core.refused(
            error.status_code,
            _sentence(error.status_code, headers.get(b"content-type", ""), error.body or b""),
            retry_after(headers.get(b"retry-after")) or 0.0,
            trio.current_time(),
        )


def _close(closed: ConnectionClosed) -> tuple[int, str]:
    """The code and the reason by which the server has closed; ABNORMAL if it hasn't."""
    if isinstance(closed.__context__, trio.ClosedResourceError):  # the library has, whatever was answered
        return ABNORMAL, "it sends a frame that is too large"
    if closed.reason is None:
        return ABNORMAL, ""
    return int(closed.reason.code), closed.reason.reason or ""


def _sentence(status: int, kind: str, body: bytes) -> str:
    """What the server says of a refusal, if it says it in one line; else the status."""
    if kind.partition(";")[0].strip().lower() == "text/plain" and len(body) <= _MAX_LINE:
        lines = body.decode("utf-8", "replace").split("\n")
        if lines[0].strip() and not any(lines[1:]):
            return f"{lines[0].strip()} ({status})"
    return f"the answer is HTTP {status}, and no chatroom's"
