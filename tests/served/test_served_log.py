"""The built server's log: each refusal and each forbidden command can be counted, seen and told apart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Chat, target
from tests.support.process import ServerProcess
from tests.support.raw import ask, get, knock
from tests.support.scene import await_true

TOKENS = """
[[token]]
token = "alice-secret"
username = "alice"
label = "alice's laptop"
rooms = { hall = "r", den = "rw" }

[[token]]
token = "alice-second"
username = "alice"
label = "alice's phone"
"""
LONG = "0123456789abcdef" * 3
"""A path as long as a token."""


class Logged(ServerProcess):
    """A server whose log is read."""

    def events(self, event: str) -> list[dict[str, Any]]:
        found = map(json.loads, self.stderr.splitlines())
        return [line for line in found if line["event"] == event]

    def counted(self, event: str) -> int:
        return sum(line["count"] for line in self.events(event))

    def await_counted(self, event: str, number: int) -> list[dict[str, Any]]:
        await_true(lambda: self.counted(event) >= number, f"{number} are logged")
        assert self.counted(event) == number
        return self.events(event)


@pytest.fixture
def options(pyz: Path, tmp_path: Path) -> list[str]:
    path = tmp_path / "tokens.toml"
    path.write_text(TOKENS)
    return ["--tokens", str(path), "--log-format", "json", "--db", "none", "--rate", "0"]


@pytest.fixture
def server(options: list[str]) -> Iterator[Logged]:
    with Logged(*options) as server:
        yield server
        assert server.stop() == 0
        assert "alice-secret" not in server.stderr
        assert "alice-second" not in server.stderr


def enter(server: ServerProcess, room: str) -> Chat:
    return Chat(server.ws_url + target(room, "alice", "alice-secret"))


def test_five_refusals_in_one_moment_are_five_in_the_log(server: Logged) -> None:
    for act in (knock, ask, knock):
        assert act(server.port, "/?token=wrong").status == 401
    assert get(server.port, "/chat").status == 404
    assert get(server.port, "/chat?token=alice-secret").status == 404
    lines = server.await_counted("refused", 5)
    assert sorted((line["status"], line["path"]) for line in lines) == [
        (401, "/"),
        (401, "/"),
        (401, "/handshake"),
        (404, "/chat"),
        (404, "/chat"),
    ]
    assert {(line["peer"], line["count"]) for line in lines} == {("127.0.0.1", 1)}


def test_of_very_many_refusals_the_number_is_logged_though_no_other_follows(server: Logged) -> None:
    for _ in range(100):
        assert knock(server.port, "/?token=wrong").status == 401
    lines = server.await_counted("refused", 100)
    assert len(lines) < 100
    assert [set(line) for line in lines if line["count"] > 1] == [
        {"ts", "level", "event", "status", "count"} for line in lines if line["count"] > 1
    ]


def test_a_path_shows_a_mistaken_prefix_and_no_secret(server: Logged) -> None:
    paths = ["/chat/", f"/chat/{LONG}", "/alice-secret", "/a%20b", "/" + "x/" * 500]
    for path in paths:
        assert get(server.port, path).status == 404
    shown = [line["path"] for line in server.await_counted("refused", len(paths))]
    assert shown == ["/chat/", "/chat/*", "/*", "/*", "/x/x/x/x/x/*"]
    assert LONG not in server.stderr


def test_a_client_is_told_apart_and_where_it_was(server: Logged, options: list[str]) -> None:
    alice = enter(server, "hall")
    assert alice.ask("message", text="x")["code"] == "forbidden"
    assert alice.ask("switch_room", room="vault")["code"] == "forbidden"
    assert alice.ask("switch_room", room="den")["event"] == "switched"
    assert alice.ask("auth", token="wrong")["code"] == "forbidden"
    for token in ("alice-secret", "alice-second", "alice-second"):  # the same one again is no news
        assert alice.ask("auth", token=token)["event"] == "ack"
    alice.close()
    await_true(lambda: server.events("LEAVE"), "it is gone")
    (joined,), (left,), (renewed,) = (server.events(event) for event in ("JOIN", "LEAVE", "auth"))
    assert (joined["room"], left["room"]) == ("hall", "den")
    assert (joined["label"], renewed["label"], renewed["expires"]) == (
        "alice's laptop",
        "alice's phone",
        None,
    )
    forbidden = [(line["command"], line["room"], line["count"]) for line in server.events("forbidden")]
    assert forbidden == [("message", "hall", 1), ("switch_room", "vault", 1), ("auth", "den", 1)]
    conns = {line["conn"] for line in (joined, left, renewed, *server.events("forbidden"))}
    (start,) = server.events("start")
    assert conns == {f"{start['run']}-1"}

    with Logged(*options) as again:
        enter(again, "hall").close()
        await_true(lambda: again.events("LEAVE"), "it is gone")
        assert again.events("JOIN")[0]["conn"] not in conns
        assert again.stop() == 0


@pytest.mark.usefixtures("measured")
def test_what_is_not_told_yet_is_told_at_the_stop(server: Logged) -> None:
    alice = enter(server, "hall")
    for _ in range(30):
        alice.send("message", text="x")
    for _ in range(30):
        assert alice.receive()["code"] == "forbidden"
        assert get(server.port, "/chat").status == 404
    assert server.stop() == 0
    assert server.counted("forbidden") == server.counted("refused") == 30


def test_a_flood_of_forbidden_commands_is_few_lines_and_counts_each(server: Logged) -> None:
    alice = enter(server, "hall")
    for _ in range(300):
        alice.send("message", text="x")
    lines = server.await_counted("forbidden", 300)
    assert len(lines) <= 60
    alice.close()
