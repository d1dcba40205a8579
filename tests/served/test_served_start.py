"""What the built server says where it can't start as asked: exit code 2, one line, nothing left behind."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.raw import knock
from tests.support.scene import Scene, Served, await_true, check_clean, refused_start, served


def tokens(text: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "tokens.toml").write_text(text)
        return ["--tokens", str(folder / "tokens.toml")]

    return make


def just(*arguments: str) -> Callable[[Path], list[str]]:
    return lambda folder: [argument.format(folder=folder) for argument in arguments]


def garbage(folder: Path) -> list[str]:
    (folder / "chat.db").write_text("no database " * 100)
    return ["--port", "0"]


WRONG: list[tuple[Callable[[Path], list[str]], str]] = [
    (just("--port", "70000"), "--port"),
    (just("--port"), "--port"),
    (just("--nonsense"), "--nonsense"),
    (just("--prot", "3000"), "did you mean --port"),
    (just("backwards"), "backwards"),
    (just("--host", "no.such.host.invalid"), "no.such.host.invalid"),
    (just("--host", "192.0.2.1"), "192.0.2.1"),
    (just("--host", "0.0.0.0", "--port", "0"), "--insecure-dev-tokens"),
    (just("--rate", "-1"), "--rate"),
    (just("--max-frame", "0"), "--max-frame"),
    (just("--ping-interval", "soon"), "--ping-interval"),
    (just("--log-level", "loud"), "--log-level"),
    (just("--history", "501"), "--history"),
    (just("--origin", "chat.example"), "--origin"),
    (just("--tls-cert", "{folder}/absent.pem"), "--tls-key"),
    (just("--tls-cert", "{folder}/absent.pem", "--tls-key", "{folder}/absent.pem"), "absent.pem"),
    (just("--unix", "{folder}/absent/sock", "--port", "0"), "absent/sock"),
    (just("--unix", "{folder}/" + "x" * 200, "--port", "0"), "--unix"),
    (just("--unix", "{folder}", "--port", "0"), "--unix"),
    (just("--tokens", "{folder}/absent.toml"), "absent.toml"),
    (just("--db", "{folder}/absent/chat.db", "--port", "0"), "absent/chat.db"),
    (just("--db", "{folder}", "--port", "0"), "--db"),
    (garbage, "is no database"),
    (tokens("[[token]\n"), "tokens.toml"),
    (tokens(""), "tokens.toml"),
    (tokens("[[token]]\nusername = 'alice'\n"), "tokens.toml"),
    (tokens("[[token]]\ntoken = 's3cret value'\n"), "tokens.toml"),
    (tokens("[[token]]\nsha256 = 's3cret'\n"), "tokens.toml"),
    (tokens("[[token]]\ntoken = 's3cret'\nusername = 'a b'\n"), "tokens.toml"),
    (tokens("[[token]]\ntoken = 's3cret'\nrooms = 's3cret'\n"), "tokens.toml"),
    (tokens("[[token]]\ntoken = 's3cret'\nroms = { general = 'r' }\n"), "tokens.toml"),
    (tokens("[[token]]\ntoken = 's3cret'\n[[token]]\ntoken = 's3cret'\n"), "tokens.toml"),
]


def test_wrong_starts(pyz: Path, tmp_path: Path) -> None:
    def check(number: int) -> None:
        make, word = WRONG[number]
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = make(folder)
        before = sorted(folder.iterdir())
        line = refused_start(*arguments, cwd=folder)
        assert word in line, (arguments, line)
        assert "s3cret" not in line
        assert sorted(folder.iterdir()) == before, "something was left behind"

    with ThreadPoolExecutor(4) as together:
        list(together.map(check, range(len(WRONG))))


@pytest.mark.usefixtures("measured")
def test_a_port_in_use(pyz: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "in use" in refused_start("--host", "127.0.0.1", "--port", port)


def test_wrong_environment(pyz: Path) -> None:
    assert "CHATROOM_PORT" in refused_start(env={"CHATROOM_PORT": "x"})
    assert "CHATROOM_INSECURE_DEV_TOKENS" in refused_start(env={"CHATROOM_INSECURE_DEV_TOKENS": "maybe"})


def test_a_port_of_another_server(pyz: Path) -> None:
    with served() as server:
        assert str(server.port) in refused_start("--port", str(server.port))
        with Scene(server):
            pass


def test_development_tokens_where_they_are_meant(pyz: Path, tmp_path: Path) -> None:
    with Served("--host", "0.0.0.0", "--insecure-dev-tokens") as server:
        assert knock(server.port, "/?token=dev-token").status == 101
        await_true(lambda: "development_tokens" in server.stderr, "a warning is logged")
    (tmp_path / "tokens.toml").write_text("[[token]]\ntoken = 's3cret'\n")
    with Served("--host", "0.0.0.0", "--tokens", str(tmp_path / "tokens.toml")) as server:
        assert knock(server.port, "/?token=dev-token").status == 401
        assert knock(server.port, "/?token=s3cret").status == 101
        await_true(lambda: "JOIN" in server.stderr, "it is logged")
        assert "development_tokens" not in server.stderr
        check_clean(server, "s3cret")


def test_the_database_of_another_server(pyz: Path, tmp_path: Path) -> None:
    with served("--db", str(tmp_path / "log.db")) as server, Scene(server):
        line = refused_start("--db", str(tmp_path / "log.db"), "--port", "0")
        assert "another server uses" in line
        assert "--db" in line
