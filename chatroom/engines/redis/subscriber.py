"""The thread that reads what is published in the channels of one server of the store.

Owns: the connection for subscriptions, and the channels that it is to be subscribed to.

1. It subscribes and unsubscribes as it is told. The server's confirmation of each subscription goes to the
   Trio run, in its order among the pushes.
2. The thread pings the server on this connection. On any doubt it drops the connection, and a new one
   subscribes to all channels again. The pushes in between are lost, and the listener is told so.
3. Many pushes go to the Trio run by one call. When the Trio run doesn't keep up, the thread stops reading:
   then the store's own limit decides, and rule 2 follows.
4. The thread is a daemon.

Doesn't know: rooms, and which pushes are of use.
"""

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import trio
from redis.connection import AbstractConnection
from redis.exceptions import MovedError, RedisError, ResponseError

from chatroom.engines.redis.commander import Timing
from chatroom.engines.redis.connecting import Connector, problem_of
from chatroom.engines.redis.library import PING, packed
from chatroom.engines.redis.pushes import Push, read_push

AT_ONCE = 500
"""So many pushes go to the Trio run by one call at most."""
UNREAD = 2
"""So many calls may wait there."""
CHUNK = 500
"""So many channels are subscribed to by one command."""


class PushListener(Protocol):
    """The object that hears what comes; all its methods are called in the Trio run."""

    def subscribed(self, channels: list[bytes]) -> None:
        """The server has confirmed these subscriptions. Pushes before it may have been lost."""
        ...

    def ended_by_server(self, channels: list[bytes]) -> None:
        """The server has ended these subscriptions without a request."""
        ...

    def refused(self, error: Exception) -> None:
        """The server has refused a command."""
        ...

    def pushed(self, pushes: list[tuple[bytes, Push]], run_id: str) -> None:
        """These pushes have come, by channel, from the server's process of this id."""
        ...

    def subscriber_connected(self, run_id: str) -> None:
        """There is a connection, to the process of this id. All subscriptions are confirmed again."""
        ...

    def subscriber_lost(self) -> None:
        """The connection is lost; the thread connects again at once."""
        ...

    def subscriber_down(self, problem: str) -> None:
        """No connection can be made; the thread keeps trying."""
        ...

    def ended(self) -> None:
        """The thread has ended."""
        ...

    def broken(self, error: BaseException) -> None:
        """The thread has ended by a fault of ours."""
        ...


class Subscriber:
    """The thread. `heard`: when the server was last heard, by the monotonic clock."""

    def __init__(
        self,
        name: str,
        connector: Connector,
        listener: PushListener,
        timing: Timing,
        *,
        node: str,
        ping: float,
        sharded: bool = False,
    ) -> None:
        """`ping`: after so many seconds of silence the thread sends a ping."""
        self._connector = connector
        self._listener = listener
        self._timing = timing
        self._node = node
        self._ping = ping
        letter = "S" if sharded else ""
        self._subscribe, self._unsubscribe = letter + "SUBSCRIBE", letter + "UNSUBSCRIBE"
        self._chunk = 1 if sharded else CHUNK  # channels of one command lie in one slot
        self._kinds = _Kinds(
            *(f"{letter}{kind}".lower().encode() for kind in ("message", "subscribe", "unsubscribe"))
        )
        self._reconnecting = False
        self._requests: deque[tuple[bool, str]] = deque()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._free_calls = threading.Semaphore(UNREAD)
        self._stopping = False
        self._token = trio.lowlevel.current_trio_token()
        self.heard = time.monotonic()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def subscribe(self, channel: str) -> None:
        """Listen to this channel; see `PushListener.subscribed`."""
        self._request(True, channel)

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to this channel."""
        self._request(False, channel)

    def reconnect(self) -> None:
        """Drop the connection, and connect again."""
        self._reconnecting = True
        self._wake()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake()

    def _request(self, wanted: bool, channel: str) -> None:
        self._requests.append((wanted, channel))
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError, OSError):
            self._wake_out.send(b"!")

    # In the thread

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)

    def _run(self) -> None:
        try:
            self._keep_listening()
        except BaseException as error:
            self._post(self._listener.broken, error)
        self._wake_in.close()
        self._wake_out.close()
        self._post(self._listener.ended)

    def _keep_listening(self) -> None:
        wanted: dict[str, None] = {}
        pause = 0.0
        while not self._stopping:
            began = time.monotonic()
            try:
                connection, run_id = self._connect()
            except Exception as error:
                self._post(self._listener.subscriber_down, problem_of(error))
            else:
                self._post(self._listener.subscriber_connected, run_id)
                self._use(connection, run_id, wanted)
                connection.disconnect()
                self._post(self._listener.subscriber_lost)
                if time.monotonic() > began + self._timing.longest_pause:
                    pause = 0.0
                    continue
            pause = self._timing.longer(pause)
            self._rest(self._timing.spread(pause), wanted)

    def _connect(self) -> tuple[AbstractConnection, str]:
        connection = self._connector.connect()
        try:
            run_id = self._connector.identify(connection)
        except BaseException:
            connection.disconnect()
            raise
        self.heard = time.monotonic()
        return connection, run_id

    def _rest(self, seconds: float, wanted: dict[str, None]) -> None:
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._wake_in, select.POLLIN)
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                self._apply_requests(wanted)

    def _apply_requests(self, wanted: dict[str, None]) -> tuple[list[str], list[str]]:
        """The channels that are new, and the channels that are no longer wanted."""
        with suppress(BlockingIOError):
            self._wake_in.recv(4096)
        new: dict[str, None] = {}
        old: dict[str, None] = {}
        while self._requests:
            wants, channel = self._requests.popleft()
            if wants:
                wanted[channel] = new[channel] = None
                old.pop(channel, None)
            else:
                wanted.pop(channel, None)
                new.pop(channel, None)
                old[channel] = None
        return list(new), list(old)

    def _use(self, connection: AbstractConnection, run_id: str, wanted: dict[str, None]) -> None:
        """Listen until there is a doubt, or the thread is to end."""
        poll = select.poll()
        listened: Any = connection
        poll.register(listened._sock, select.POLLIN)  # there is no other way to wait for two things
        poll.register(self._wake_in, select.POLLIN)
        reader = _Reader(connection, self._kinds, self._node, wanted)
        asked: float | None = None  # when a ping was sent
        with suppress(RedisError, OSError):
            self._apply_requests(wanted)
            self._send(connection, self._subscribe, wanted)
            self._reconnecting = False
            while not (self._stopping or self._reconnecting):
                due = self.heard + self._ping if asked is None else asked + self._timing.answer
                ready = poll.poll(max(0.0, due - time.monotonic()) * 1000)
                if any(number == self._wake_in.fileno() for number, _ in ready):
                    new, old = self._apply_requests(wanted)
                    self._send(connection, self._unsubscribe, old)
                    self._send(connection, self._subscribe, new)
                if any(number != self._wake_in.fileno() for number, _ in ready):
                    self.heard = time.monotonic()
                    asked = None
                    self._read(reader, run_id)
                elif (now := time.monotonic()) >= due:
                    if asked is not None:
                        return
                    connection.send_packed_command([packed(PING)], check_health=False)
                    asked = now

    def _send(self, connection: AbstractConnection, command: str, channels: Iterable[str]) -> None:
        names = list(channels)
        for start in range(0, len(names), self._chunk):
            some = packed((command, *names[start : start + self._chunk]))
            connection.send_packed_command([some], check_health=False)

    def _read(self, reader: "_Reader", run_id: str) -> None:
        """Read what has come, and hand it to the listener."""
        more = True
        while more and not self._stopping:
            confirmed, ended, pushes, more = reader.read(AT_ONCE)
            if confirmed:
                self._post(self._listener.subscribed, confirmed)
            if ended:
                self._post(self._listener.ended_by_server, ended)
            if (refusal := reader.refusal) is not None:
                reader.refusal = None
                self._post(self._listener.refused, refusal)
                if not isinstance(refusal, MovedError):
                    raise refusal  # it doesn't tell of which channels: rule 2
            if pushes:
                while not self._free_calls.acquire(timeout=0.2):
                    if self._stopping:
                        return
                self._post(self._hand_on, pushes, run_id)

    def _hand_on(self, pushes: list[tuple[bytes, Push]], run_id: str) -> None:
        """In the Trio run."""
        self._free_calls.release()
        self._listener.pushed(pushes, run_id)


class _Kinds(NamedTuple):
    """The words for a message, a subscription and its end."""

    message: bytes
    subscribed: bytes
    unsubscribed: bytes


class _Reader:
    """Parses what the connection has received. `refusal`: the last error that the server sent."""

    def __init__(
        self, connection: AbstractConnection, kinds: _Kinds, node: str, wanted: Container[str]
    ) -> None:
        self._connection = connection
        self._kinds = kinds
        self._node = node
        self._wanted = wanted
        self.refusal: Exception | None = None

    def read(self, most: int) -> tuple[list[bytes], list[bytes], list[tuple[bytes, Push]], bool]:
        """The channels that the server has confirmed, those that it has ended, the pushes, and whether there
        is more to read."""
        confirmed: list[bytes] = []
        ended: list[bytes] = []
        pushes: list[tuple[bytes, Push]] = []
        message, subscribed, unsubscribed = self._kinds
        for _ in range(most):
            try:
                kind, *rest = self._connection.read_response(disable_decoding=True)
            except ResponseError as error:
                kind, rest = b"", []
                self.refusal = error
            if kind == message:
                if (push := read_push(rest[1], self._node)) is not None:
                    pushes.append((rest[0], push))
            elif kind == subscribed:
                confirmed.append(rest[0])
            elif kind == unsubscribed and rest[0] is not None and rest[0].decode() in self._wanted:
                ended.append(rest[0])
            if not self._connection.can_read(0):
                return confirmed, ended, pushes, False
        return confirmed, ended, pushes, True
