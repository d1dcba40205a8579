"""What docs/protocol.md shows of requests and streams is what happens: curl plays its transcripts."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatroom.connections import stream
from chatroom.core.limits import Limits
from chatroom.http import api
from tests.support.pages import ROOT, blocks, rows, section, words
from tests.support.process import ServerProcess

PAGE = (ROOT / "docs" / "protocol.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
HERE = section(PAGE, "By HTTP")


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--db", "none") as running:
        yield running


def transcript() -> list[tuple[str, str]]:
    """The commands in their order, each with what it prints."""
    found = []
    for block in blocks(HERE, "console"):
        first, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not first
        found += [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]
    return found


def steady(text: str) -> str:
    """The text without what differs from run to run: times and epochs."""
    text = re.sub(r'"ts":\d+', '"ts":T', re.sub(r'"epoch":"[\w-]+"', '"epoch":"E"', text))
    return re.sub(r"^id: [\w-]+:", "id: E:", text, flags=re.MULTILINE)


def play(server: ServerProcess, command: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    arguments = shlex.split(command.replace("http://localhost:3000", server.url))
    patience = ["--max-time", "1"] if "-N" in arguments else []
    done = subprocess.run(
        [*arguments, "-sS", *patience], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 0 or "timed out" in done.stderr, done.stderr
    return done.stdout


def test_what_curl_shows(server: ServerProcess) -> None:
    played = transcript()
    assert len(played) == 9
    for command, shown in played:
        said = play(server, command)
        assert steady(said).rstrip("\n") == steady(shown).rstrip("\n"), command


def test_what_the_readme_posts(server: ServerProcess) -> None:
    (line,) = [
        line for block in blocks(README, "sh") for line in block.splitlines() if line.startswith("curl")
    ]
    assert '"username":"ci"' in play(server, line)


def test_every_request() -> None:
    shown = {}
    for request, event, _ in rows(PAGE, "By HTTP"):
        method, path = words(request)[0].split(" ")
        found = api._RESOURCE.fullmatch(path.partition("?")[0].replace("/ID", "/1"))
        assert found is not None, path
        name = found["name"] or ("rooms" if found["room"] is None else "message")
        command = words(event)[0] if words(event) else api.EVENT_STREAM
        shown[name, method] = command
        parameters = set(re.findall(r"(\w+)=", path))
        known = api.PARAMETERS.get(command, frozenset()) - {"token", "username"}
        assert parameters == known or command == api.EVENT_STREAM
    code = {
        (name, method): command
        for name, methods in api._METHODS.items()
        for method, command in methods.items()
    }
    assert shown == code


def test_numbers_in_the_text() -> None:
    text = " ".join(HERE.split())
    for sentence in (
        f"and {Limits().head_seconds:g} seconds to come (else 408)",
        f"comes every {stream.COMMENT_SECONDS:g} seconds",
        "1 to 64 printable ASCII characters",
    ):
        assert sentence in text, sentence
    allowed = dict(api.PREFLIGHT.headers)["Access-Control-Allow-Headers"]
    assert {"Content-Type", "Idempotency-Key", "Last-Event-ID", "Authorization"} == set(allowed.split(", "))


def test_the_refusals_behind_those_of_a_handshake() -> None:
    behind = "# Refusals\n" + HERE[HERE.index("**Refusals** are one line") :]
    assert [status for status, _ in rows(behind, "Refusals")] == [
        "429", "403", "404", "409", "500", "503",
    ]  # fmt: skip
