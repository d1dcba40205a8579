"""The commands `export` and `import` of the built file: beside a server, through pipes, interrupted."""

import json
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.database import open_store
from tests.support.engine_contract import draft
from tests.support.process import ServerProcess, clean_environment, heeding, python_command
from tests.support.scene import await_true

MANY = 15_000


def run(*arguments: str, folder: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*python_command(), *arguments], cwd=folder, env=clean_environment(), input=given,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def many(pyz: Path, tmp_path: Path) -> Path:
    """A folder with a database of a large room."""
    with closing(open_store(tmp_path / "chat.db")) as store:
        store.append([draft("x" * 4000) for _ in range(MANY)])
    return tmp_path


def test_a_room_is_exported_while_it_is_talked_in_and_imported_elsewhere(pyz: Path, tmp_path: Path) -> None:
    with ServerProcess(cwd=tmp_path) as server, closing(Chat(server.ws_url + target("r", "alice"))) as alice:
        alice.say("hello\x9b")
        alice.messages(1)
        done = run("export", "r", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        refused = run("import", "--room", "new", folder=tmp_path, given=done.stdout)
        assert (refused.returncode, refused.stdout) == (2, b"")
        assert refused.stderr.startswith(b"chatroom: another server uses ")
        assert refused.stderr.count(b"\n") == 1
        imported = run("import", "--db", "new.db", folder=tmp_path, given=done.stdout)
        assert (imported.returncode, imported.stdout) == (0, b"")
        assert imported.stderr == b"chatroom: imported 1 message into room r of new.db\n"
    head, message, end = map(json.loads, done.stdout.splitlines())
    assert (head["data"]["room"], head["data"]["last"]) == ("r", 1)
    assert message["data"] == {"username": "alice", "text": "hello\x9b"}
    assert end["event"] == "sanctions"
    with ServerProcess("--db", "new.db", cwd=tmp_path) as server:
        bob = Chat(server.ws_url + target("r", "bob"))
        assert bob.texts(1) == ["hello\x9b"]
        bob.close()


def test_a_reader_that_goes_ends_an_export_quietly(many: Path) -> None:
    python, file = python_command()
    done = subprocess.run(
        ["sh", "-c", f'{{ "{python}" "{file}" export r; echo $? >&2; }} | head -n 1'], cwd=many,
        env=clean_environment(), capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == b"0\n"
    assert done.stdout.startswith(b'{"event":"room"')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_export_that_is_interrupted_leaves_nothing(number: int, many: Path) -> None:
    folder = many / "exports"
    folder.mkdir()
    command = [*python_command(), "export", "r", "--output", "exports/r.jsonl"]
    with heeding(signal.SIGINT):
        process = subprocess.Popen(
            command, cwd=many, env=clean_environment(), stderr=subprocess.PIPE, text=True
        )
    await_true(lambda: list(folder.iterdir()), "it has begun", pause=0.001)
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert (process.returncode, said) == (1, "")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_that_is_interrupted_leaves_nothing(number: int, many: Path) -> None:
    exported = run("export", "r", folder=many).stdout
    folder = many / "imports"
    folder.mkdir()
    command = [*python_command(), "import", "--db", "imports/new.db"]
    with heeding(signal.SIGINT), subprocess.Popen(
        command, cwd=many, env=clean_environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(exported[:-100])
        process.stdin.flush()
        await_true(lambda: list(folder.iterdir()), "it has begun", pause=0.001)
        process.send_signal(number)
        assert process.wait(20) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert list(folder.iterdir()) == []


def test_neither_holds_the_room_in_memory(many: Path) -> None:
    """The room has 60 MB of text."""

    def peak(*arguments: str) -> int:
        """KiB, beyond those of a command that does nothing."""
        code = (
            "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]).returncode; "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(done)"
        )
        python, file = python_command()
        with (many / "r.jsonl").open("rb") as given:
            done = subprocess.run(
                [python, "-c", code, python, file, *arguments], cwd=many, env=clean_environment(),
                stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, timeout=60,
            )  # fmt: skip
        return int(done.stderr.splitlines()[-1])

    assert run("export", "r", "--output", "r.jsonl", folder=many).returncode == 0
    nothing = peak("export", "--help")
    assert peak("export", "r") < nothing + 20_000
    assert peak("import", "--db", "new.db") < nothing + 50_000
