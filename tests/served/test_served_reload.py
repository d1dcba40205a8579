"""The built server and SIGHUP: tokens, rights and certificates that change while people are in."""

import json
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.client import Chat, target
from tests.support.process import ROOT
from tests.support.scene import Scene, Served, await_true, check_clean, check_stderr, gauges, served

PEM = ROOT / "tests" / "support" / "localhost.pem"
RENEWED = ROOT / "tests" / "support" / "renewed.pem"
CERTIFICATE = "-----BEGIN CERTIFICATE-----"
SECRETS = ("alice-secret", "guest-secret", "later-secret")
TOKENS = """
[[token]]
token = "alice-secret"
username = "alice"

[[token]]
token = "guest-secret"
rooms = { den = "rw", hall = "rw" }
"""


class Reloading:
    """A server with a token file that the test may change."""

    def __init__(self, server: Served, path: Path) -> None:
        self.server = server
        self.path = path

    def outcomes(self) -> list[dict[str, Any]]:
        """What reloads have said up to now."""
        lines = [json.loads(line) for line in self.server.stderr.splitlines()]
        return [line for line in lines if line["event"] in ("reloaded", "reload_failed")]

    def hang_up(self) -> dict[str, Any]:
        """Send the signal; what the reload said."""
        known = len(self.outcomes())
        self.server.signal(signal.SIGHUP)
        await_true(lambda: len(self.outcomes()) > known, "the reload says something")
        assert len(self.outcomes()) == known + 1
        return self.outcomes()[-1]

    def reload(self, text: str) -> dict[str, Any]:
        """Change the file and have it read."""
        self.path.write_text(text)
        return self.hang_up()


@pytest.fixture
def reloading(pyz: Path, tmp_path: Path) -> Iterator[Reloading]:
    path = tmp_path / "tokens.toml"
    path.write_text(TOKENS)
    options = ("--tokens", str(path), "--insecure-dev-tokens", "--rate", "0", "--log-format", "json")
    with served(*options, secrets=SECRETS) as server:
        yield Reloading(server, path)


@pytest.fixture
def scene(reloading: Reloading) -> Iterator[Scene]:
    with Scene(reloading.server) as scene:
        yield scene


def said(outcome: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in outcome.items() if key != "ts"}


@pytest.mark.usefixtures("measured")
def test_whose_token_is_gone_goes_and_the_others_stay(reloading: Reloading, scene: Scene) -> None:
    alice = scene.join("alice", "den", token="alice-secret")
    guest = scene.join("guest", "den", token="guest-secret")
    bob = scene.join("bob", "den")  # by a development token, which is in no file
    later = '[[token]]\ntoken = "later-secret"\n'
    assert said(reloading.reload(TOKENS.partition("[[token]]\ntoken = \"guest")[0] + later)) == {
        "level": "info", "event": "reloaded", "read": "--tokens", "closed": 1,
    }  # fmt: skip
    assert guest.closing() == (4503, "the token is no longer valid")
    for chat in (alice, bob):
        chat.settle()
        assert chat.ask("members")["data"]["members"] == ["alice", "bob"]
    with pytest.raises(InvalidStatus) as refused:
        scene.join("guest", "den", token="guest-secret")
    assert refused.value.response.status_code == 401
    assert alice.ask("auth", token="guest-secret")["code"] == "forbidden"
    assert scene.join("carol", "den", token="later-secret").welcome["username"] == "carol"
    assert gauges(scene.server)['chatroom_drops_total{reason="not_allowed"}'] == 1


def test_rights_that_change_count_at_once(reloading: Reloading, scene: Scene) -> None:
    there, here = (
        scene.join("there", "hall", token="guest-secret"),
        scene.join("g", "den", token="guest-secret"),
    )
    outcome = reloading.reload(TOKENS.replace('den = "rw", hall = "rw"', 'den = "r", "new-*" = "rw"'))
    assert outcome["closed"] == 1
    assert there.closing() == (4503, "no longer allowed in this room")
    for event, data in (
        ("message", {"text": "x"}),
        ("typing", {"active": True}),
        ("switch_room", {"room": "hall"}),
    ):
        assert here.ask(event, **data)["code"] == "forbidden"
    assert here.ask("history")["room"] == "den"
    assert here.ask("switch_room", room="new-1")["event"] == "switched"
    here.say("at last", "c")
    assert here.receive()["cid"] == "c"


def test_a_token_that_is_bound_anew_keeps_its_owner_only(reloading: Reloading, scene: Scene) -> None:
    bob = scene.join("bob", "den", token="guest-secret")
    carol = scene.join("carol", "den", token="guest-secret")
    bob.expect("joined", username="carol")
    bound = TOKENS.replace('"guest-secret"', '"guest-secret"\nusername = "carol"')
    assert reloading.reload(bound)["closed"] == 1
    assert bob.closing() == (4503, "the token is bound to another username now")
    carol.expect("left", username="bob")
    assert carol.settle() == []


def test_names_that_the_file_binds_are_reserved_from_the_reload_on(
    reloading: Reloading, scene: Scene
) -> None:
    """Neither an unbound token nor a development token takes one, or goes on bearing it."""

    def refused(username: str, token: str) -> int:
        with pytest.raises(InvalidStatus) as caught:
            scene.join(username, "den", token=token)
        assert caught.value.response.body == b"This username is reserved for other tokens"
        return caught.value.response.status_code

    assert [refused("alice", token) for token in ("guest-secret", "dev-token")] == [403, 403]
    alice = scene.join("alice", "den", token="alice-secret")
    guest, dev = scene.join("bob", "den", token="guest-secret"), scene.join("bob", "den")
    carol = scene.join("carol", "den", token="guest-secret")
    alice.settle()
    assert alice.ask("auth", token="guest-secret")["code"] == "forbidden"
    bound = TOKENS + '\n[[token]]\ntoken = "later-secret"\nusername = "bob"\n'
    assert reloading.reload(bound)["closed"] == 2
    for chat in (guest, dev):
        assert chat.closing() == (4503, "the username is reserved for other tokens now")
    assert [refused("bob", token) for token in ("guest-secret", "dev-token")] == [403, 403]
    assert scene.join("bob", "den", token="later-secret").welcome["username"] == "bob"
    carol.settle()
    assert carol.ask("members")["data"]["members"] == ["alice", "bob", "carol"]
    assert reloading.reload(TOKENS)["closed"] == 1
    assert scene.join("bob", "den", token="guest-secret").welcome["username"] == "bob"


def test_a_token_is_replaced_without_a_cut(reloading: Reloading, scene: Scene) -> None:
    """Both are good for a while; whoever has taken the new one by then stays when the old one goes."""
    old = '[[token]]\ntoken = "alice-secret"\nusername = "alice"\nlabel = "old"\n'
    reloading.reload(old)
    renewed = scene.join("alice", "den", token="alice-secret")
    late = scene.join("alice", "den", token="alice-secret")
    new = '[[token]]\ntoken = "later-secret"\nusername = "alice"\nlabel = "new"\n'
    assert reloading.reload(old + new)["closed"] == 0
    assert renewed.ask("auth", token="later-secret")["event"] == "ack"
    again = scene.join("alice", "den", token="later-secret")

    def shown() -> list[dict[str, Any]]:
        lines = map(json.loads, reloading.server.stderr.splitlines())
        return [line for line in lines if line.get("label")]

    await_true(lambda: len(shown()) == 4, "all of it is logged")
    told = [(line["event"], line["label"]) for line in shown()]
    assert told == [("JOIN", "old"), ("JOIN", "old"), ("auth", "new"), ("JOIN", "new")]
    assert shown()[2]["conn"] == shown()[0]["conn"], "it says whose token is another now"
    assert reloading.reload(new)["closed"] == 1
    assert late.closing() == (4503, "the token is no longer valid")
    for chat in (renewed, again):
        chat.settle()
        assert chat.ask("members")["data"]["members"] == ["alice"]


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("text", ["[[token]]\n", TOKENS + "[[token", "token = 1", None])
def test_a_broken_file_changes_nothing_and_is_told_once(
    reloading: Reloading, scene: Scene, text: str | None
) -> None:
    alice = scene.join("alice", "den", token="alice-secret")
    if text is None:
        reloading.path.unlink()
        outcome = reloading.hang_up()
    else:
        outcome = reloading.reload(text)
    assert (outcome["level"], outcome["event"]) == ("error", "reload_failed")
    assert str(reloading.path) in outcome["reason"]
    assert gauges(scene.server)["chatroom_last_reload_successful"] == 0
    assert alice.ask("auth", token="alice-secret")["event"] == "ack"
    assert alice.settle() == []
    assert scene.join("guest", "den", token="guest-secret").welcome["username"] == "guest"
    assert reloading.reload(TOKENS)["event"] == "reloaded"
    told = gauges(scene.server)
    assert [told[f'chatroom_reloads_total{{result="{each}"}}'] for each in ("done", "failed")] == [1, 1]
    assert told["chatroom_last_reload_successful"] == 1


def test_a_file_that_does_not_answer_holds_up_nobody(reloading: Reloading, scene: Scene) -> None:
    """A pipe without a writer stands for a disk that hangs."""
    alice, bob = scene.join("alice", "den", token="alice-secret"), scene.join("bob", "den")
    alice.expect("joined", username="bob")
    reloading.path.unlink()
    os.mkfifo(reloading.path)
    for _ in range(3):
        scene.server.signal(signal.SIGHUP)
        alice.say("still here")
        assert bob.texts(1) == alice.texts(1) == ["still here"]
    known = len(reloading.outcomes())
    with reloading.path.open("w") as pipe:
        pipe.write(TOKENS.replace("guest-secret", "later-secret"))
    await_true(lambda: len(reloading.outcomes()) > known, "what came in the end is taken")
    assert said(reloading.outcomes()[known])["closed"] == 0
    assert scene.join("carol", "den", token="later-secret").welcome["username"] == "carol"
    # The hang-ups during that reload are one more, which waits for the pipe as well; the stop doesn't.


@pytest.mark.usefixtures("measured")
def test_a_certificate_is_renewed_for_who_comes_next(pyz: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    shutil.copy(PEM, path)
    options = ("--tls-cert", str(path), "--tls-key", str(path), "--rate", "0", "--log-format", "json")
    with Served(*options) as server:
        reloading = Reloading(server, path)
        alice = join_by_tls(server, "alice", PEM)
        shutil.copy(RENEWED, path)
        assert said(reloading.hang_up())["read"] == "--tls-cert --tls-key"
        assert shown_certificate(server) == der(RENEWED)
        bob = join_by_tls(server, "bob", RENEWED)
        alice.expect("joined", username="bob")
        bob.say("hi")
        assert alice.texts(1) == bob.texts(1) == ["hi"]
        path.write_text(CERTIFICATE + RENEWED.read_text().partition(CERTIFICATE)[2])
        assert reloading.hang_up()["event"] == "reload_failed"
        assert shown_certificate(server) == der(RENEWED)
        check_clean(server)
        assert server.stop() == 0


def join_by_tls(server: Served, username: str, certificate: Path) -> Chat:
    context = ssl.create_default_context(cafile=str(certificate))
    return Chat(f"wss://localhost:{server.port}" + target("den", username), ssl=context)


def shown_certificate(server: Served) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.getpeercert(binary_form=True)


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(CERTIFICATE + path.read_text().partition(CERTIFICATE)[2])


@pytest.mark.usefixtures("measured")
def test_a_hangup_that_has_nothing_to_read_is_harmless(pyz: Path) -> None:
    with served("--rate", "0", "--log-format", "json") as server, Scene(server) as scene:
        alice, bob = scene.pair()
        reloading = Reloading(server, Path())
        assert said(reloading.hang_up()) == {"level": "info", "event": "reloaded", "read": "", "closed": 0}
        alice.say("still here")
        assert bob.texts(1) == ["still here"]


def pipe_to(path: Path) -> list[int]:
    """The writing end of a named pipe, once somebody reads it."""
    try:
        return [os.open(path, os.O_WRONLY | os.O_NONBLOCK)]
    except OSError:
        return []


def test_a_hangup_during_the_start_ends_nothing_and_is_not_lost(pyz: Path, tmp_path: Path) -> None:
    """The first file is a pipe: who has opened it knows that the server reads it."""
    path, later = tmp_path / "tokens.toml", tmp_path / "later.toml"
    os.mkfifo(path)
    later.write_text(TOKENS.replace("guest-secret", "later-secret"))
    server = Served("--tokens", str(path))
    with ThreadPoolExecutor(1) as pool, closing(server):
        started = pool.submit(server.start)
        pipes: list[int] = []
        await_true(lambda: pipes.extend(pipe_to(path)) or pipes, "the server reads the file")
        later.rename(path)
        server.signal(signal.SIGHUP)
        os.write(pipes[0], TOKENS.encode())
        os.close(pipes[0])
        started.result()
        reloading = Reloading(server, path)
        await_true(reloading.outcomes, "the hangup is a reload")
        assert reloading.outcomes()[0]["event"] == "reloaded"
        Chat(server.ws_url + target("den", "guest", "later-secret")).close()
        assert server.stop() == 0
        check_stderr(server.stderr, *SECRETS)


def test_hangups_during_a_stop_do_not_disturb_it(pyz: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(TOKENS)
    with Served("--tokens", str(path)) as server:
        chats = [Chat(server.ws_url + target("den", "guest", "guest-secret")) for _ in range(5)]
        path.write_text("token = []")
        server.signal(signal.SIGTERM)
        for _ in range(20):
            server.signal(signal.SIGHUP)
        for chat in chats:
            assert chat.closing()[0] in (1012, 4503)
            chat.close()
        assert server.wait() == 0
        check_stderr(server.stderr, *SECRETS)
