"""The command line as a process: its log is there, or isn't read, and it serves and stops all the same."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.process import full_pipe

SECRET = "s3" + "cret"


class Process:
    """A server that runs as a process, its log going into `log`."""

    def __init__(self, log: int, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chatroom", "--port", "0", "--db", "none", *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("Listening on ").strip()

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.address + path, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode


def test_a_server_whose_log_is_not_read_serves_and_stops() -> None:
    with full_pipe() as log:
        server = Process(log, "--log-level", "debug")
        assert [server.get("/nowhere") for _ in range(3)] == [404] * 3
        assert server.get("/healthz") == 200
        assert server.stop() == 0


def test_a_log_of_the_real_server(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as file:
        server = Process(file.fileno(), "--log-format", "json", "--host", "127.0.0.1")
        assert server.get("/?token=" + SECRET) == 200
        assert server.get("/handshake?token=" + SECRET) == 401
        assert server.stop() == 0
        file.seek(0)
        entries = [json.loads(line) for line in file]
    assert [entry["event"] for entry in entries] == [
        "start",
        "development_tokens",
        "refused",
        "draining",
        "stop",
    ]
    assert entries[2]["path"] == "/handshake"
    assert SECRET not in str(entries)
