"""The built server and web tokens whose time is nearly over: the leeway makes seconds of minutes."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from chatroom.auth.keys import sign
from tests.support.process import clean_environment, python_command
from tests.support.scene import Scene, Served, await_true, gauges, served

SECRET, OTHER = b"first-secret-of-the-tests" * 2, b"second-secret-of-the-tests" * 2
LEEWAY = 30


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def server(pyz: Path, secret: Path) -> Iterator[Served]:
    options = ("--jwt-secret-file", str(secret), "--insecure-dev-tokens", "--rate", "0")
    with served(*options, secrets=(SECRET.decode(), OTHER.decode(), "eyJ")) as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def token(left: float, username: str = "alice", secret: bytes = SECRET, **claims: object) -> str:
    """A token whose right ends in so many seconds."""
    return sign(secret, {"sub": username, "exp": int(time.time() + left - LEEWAY)} | claims)


def test_a_right_ends_on_time_unless_it_is_renewed(scene: Scene) -> None:
    start = time.time()
    bob = scene.join("bob", token=token(4, "bob"))
    alice = scene.join("alice", token=token(4))
    for chat in (alice, bob):
        left = chat.receive()
        while left["event"] != "expiring":
            left = chat.receive()
        assert 2 <= left["data"]["in"] <= 4
    fresh = token(3600)
    answer = alice.ask("auth", token=fresh)
    assert answer["event"] == "ack"
    assert answer["data"] == {"exp": int(answer["data"]["exp"])}
    assert abs(answer["data"]["exp"] - start - 3600 + LEEWAY) < 5
    assert bob.closing() == (4001, "the token has expired")
    assert 2 <= time.time() - start <= 6
    alice.expect("left", username="bob")
    assert alice.settle() == []
    assert gauges(scene.server)['chatroom_drops_total{reason="token_expired"}'] == 1


def test_only_a_good_token_of_the_same_name_renews(scene: Scene) -> None:
    alice = scene.join("alice", token=token(3600))
    for wrong in (token(-1), token(3600, "bob"), token(3600, secret=OTHER), token(3600)[:-2], "x", ""):
        assert alice.ask("auth", token=wrong)["code"] == "forbidden"
    narrow = token(3600, rooms={scene.room: "r", "other": "rw"})
    assert alice.ask("auth", token=narrow)["event"] == "ack"
    alice.say("x", "c")
    assert alice.receive()["code"] == "forbidden"
    assert alice.ask("switch_room", room="third")["code"] == "forbidden"
    assert alice.ask("switch_room", room="other")["event"] == "switched"


def test_a_token_that_does_not_let_its_user_stay_ends_the_connection(scene: Scene) -> None:
    alice = scene.join("alice", token=token(3600))
    alice.send("auth", token=token(3600, rooms={"elsewhere": "rw"}))
    assert alice.closing() == (4503, "no longer allowed in this room")


def test_a_new_secret_counts_from_the_hangup_on(scene: Scene, secret: Path) -> None:
    carol = scene.join("carol", token=token(3600, "carol"))
    alice = scene.join("alice")  # by a development token, which doesn't hang on the secret
    carol.expect("joined", username="alice")
    for outcome, content in (("reloaded", OTHER), ("reload_failed", b"short"), ("reload_failed", b"")):
        secret.write_bytes(content)
        hang_up(scene.server, outcome)
        if outcome == "reloaded":
            assert carol.closing() == (4503, "the token is no longer valid")
            alice.expect("left", username="carol")
        assert alice.ask("auth", token=token(3600))["code"] == "forbidden"
        with pytest.raises(InvalidStatus):
            scene.join("bob", token=token(3600, "bob"))
        bob = scene.join("bob", token=token(3600, "bob", OTHER))
        alice.expect("joined", username="bob")
        bob.close()
        alice.expect("left", username="bob")
    assert alice.ask("auth", token=token(3600, secret=OTHER))["event"] == "ack"


def hang_up(server: Served, outcome: str) -> None:
    """Have the files read anew, which goes as told."""
    known = server.stderr.count(outcome)
    server.signal(signal.SIGHUP)
    await_true(lambda: server.stderr.count(outcome) > known, f"the log says {outcome}")


def test_a_minted_token_comes_in_and_goes(scene: Scene, secret: Path) -> None:
    minted = subprocess.run(
        [*python_command(), "token", "--sub", "alice", "--ttl", "1h", "--jwt-secret-file", str(secret)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        env=clean_environment(),
    ).stdout.strip()
    alice = scene.join("alice", token=token(3))
    alice.expect("expiring")
    assert alice.ask("auth", token=minted)["event"] == "ack"
