"""systemd, without its library: the sockets that it passes, and the notifications that it gets.

Owns the environment variables of both protocols. Rules:

1. `LISTEN_FDS` descriptors from 3 on are listening sockets if `LISTEN_PID` is this process. Their names are
   in `LISTEN_FDNAMES` (sd_listen_fds(3)).
2. A notification is a datagram to `NOTIFY_SOCKET` (sd_notify(3)), sent without waiting. Nothing depends on
   its arrival. The first failure is logged.
3. Without these variables nothing happens. Other supervisors that set them work as well.

It doesn't know what a socket is for, nor what the server does.
"""

import logging
import os
import re
import socket
import time
from collections.abc import Mapping

import trio

from chatroom.core.errors import StartError
from chatroom.core.logevents import log_event

FIRST = 3
MOST = 64
"""More sockets than any unit passes."""


def given_sockets(environ: Mapping[str, str]) -> list[tuple[socket.socket, str]]:
    """The listening sockets that the process was started with, and their names. Raises StartError."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    number = environ.get("LISTEN_FDS", "")
    if not re.fullmatch(r"[0-9]{1,2}", number) or int(number) > MOST:
        raise StartError(f"LISTEN_FDS={number[:16]} is no number of sockets: it is for systemd to set")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (int(number) - len(names))
    return [(_listening(FIRST + index), names[index]) for index in range(int(number))]


def _listening(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(f"descriptor {descriptor} of LISTEN_FDS is no socket ({error.strerror})") from None
    stream = sock.type == socket.SOCK_STREAM and sock.family in {
        socket.AF_INET, socket.AF_INET6, socket.AF_UNIX,
    }  # fmt: skip
    if not stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise StartError(
            f"descriptor {descriptor} of LISTEN_FDS is no listening stream socket: "
            "the socket unit needs ListenStream= and Accept=no"
        )
    sock.set_inheritable(False)
    return sock


class Notifier:
    """Notifies the service manager, if there is one that wants notifications."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A name with @ in front is abstract. Other kinds than these two are for virtual machines.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._wanted = address.startswith(("/", "@"))
        self._failed = False
        self.watchdog_seconds = _watchdog(environ) if self._wanted else None

    def ready(self, status: str) -> None:
        """The server serves, or a reload is over. `status` says which, and how it went."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun. `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The stop has begun."""
        self._tell("STOPPING=1", "STATUS=Telling everyone to come back")

    async def watch(self) -> None:
        """Notify the watchdog, twice in each of its intervals, that tasks still run. Until cancelled."""
        if self.watchdog_seconds is None:
            return
        while True:
            self._tell("WATCHDOG=1")
            await trio.sleep(self.watchdog_seconds / 2)

    def _tell(self, *lines: str) -> None:
        if not self._wanted:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._failed:
                log_event(logging.WARNING, "notify_failed", reason=error.strerror or str(error))
            self._failed = True


NO_MANAGER = Notifier({})
"""A Notifier without a service manager."""


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """The seconds of the watchdog's interval. None if this process has no watchdog."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    number = environ.get("WATCHDOG_USEC", "")
    return int(number) / 1e6 if re.fullmatch(r"[0-9]{1,18}", number) and int(number) else None
