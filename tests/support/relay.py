"""A network between a client and the server that breaks when told to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Relay:
    """Forwards TCP connections to a port of this machine.

    1. It cuts all connections when `cut` is called. While `refusing`, new ones are cut at once, too.
    2. When the server first sends bytes that hold `fatal`, it loses them and cuts all connections.
    3. After `stall`, it forwards nothing more on the connections of before, without a word to either side.
    4. From `part` to `join` it forwards nothing on any connection, new ones among them, without a word to
       either side; at `join` it forwards all that piled up. With `deaf`, that holds only for bytes from the
       server.
    5. Each piece, of 64 KiB at most, waits `delay` seconds before it is forwarded, as on a slow network.
    6. If the server is away, it cuts the connection, and tries again for the next one. New connections go to
       the port `target`, which may change.
    """

    def __init__(self, port: int, fatal: bytes = b"nothing is fatal") -> None:
        self.target = port
        self._fatal: bytes | None = fatal
        self._stalled: set[socket.socket] = set()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._carries = threading.Condition()
        self._parted = self._deaf = False
        self.refusing = False
        self.delay = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def has_cut(self) -> bool:
        """Whether what was fatal has come."""
        return self._fatal is None

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Carry nothing more on the connections that are open now."""
        with self._lock:
            self._stalled |= self._open

    def part(self, *, deaf: bool = False) -> None:
        """Carry nothing, or nothing of what the server sends, until `join` (rule 4)."""
        with self._carries:
            self._parted, self._deaf = not deaf, deaf

    def join(self) -> None:
        """Carry on."""
        with self._carries:
            self._parted = self._deaf = False
            self._carries.notify_all()

    @property
    def url(self) -> str:
        """Where it listens, for clients by HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._over.set()
        self.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            if self.refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
        threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_server: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source in self._stalled:
                    self._over.wait()  # and what is sent to it piles up
                if self.delay:
                    self._over.wait(self.delay)
                self._await_carried(from_server)
                if from_server and self._fatal is not None and self._fatal in data:
                    self._fatal = None
                    self.cut()
                    break
                sink.sendall(data)
        self._await_carried(from_server)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _await_carried(self, from_server: bool) -> None:
        with self._carries:
            self._carries.wait_for(lambda: not (self._parted or (self._deaf and from_server)))
