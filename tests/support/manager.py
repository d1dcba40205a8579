"""A stand-in for systemd: it hands over listening sockets, and hears what it is told.

with Manager(tmp_path) as manager, Activated([(sock, "chat")], env=manager.environment()) as server:
    assert "READY=1" in manager.hear("READY")
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.process import clean_environment, python_command
from tests.support.scene import Served

PATIENCE = 20.0
_HAND_OVER = """
import fcntl, os, sys
numbers, names, command = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in numbers]
for index, number in enumerate(high):
    os.dup2(number, 3 + index)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""


class Manager:
    """Where the server's notes arrive."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        path = str(folder / "notify")
        self.address = "@" + path if abstract else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + path if abstract else path)
        self._socket.settimeout(PATIENCE)
        self.heard: list[str] = []

    def environment(self, **more: str) -> dict[str, str]:
        """What a service is started with."""
        return clean_environment({"NOTIFY_SOCKET": self.address, **more})

    def hear(self, word: str) -> list[str]:
        """The lines of the next note that has this word; what came before is passed over."""
        while True:
            note = self._socket.recv(4096).decode()
            self.heard.append(note)
            if word in note:
                return note.splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()


class Activated(Served):
    """A server that was started with these sockets, by their names."""

    def __init__(
        self, given: Sequence[tuple[socket.socket, str]], *arguments: str, env: dict[str, str] | None = None
    ) -> None:
        numbers = [sock.fileno() for sock, _ in given]
        names = ":".join(name for _, name in given)
        hand_over = [sys.executable, "-c", _HAND_OVER, ",".join(map(str, numbers)), names]
        super().__init__(*arguments, command=[*hand_over, *python_command()], env=env, pass_fds=numbers)
