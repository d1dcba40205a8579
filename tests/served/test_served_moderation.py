"""The built server: edits, deletions, moderators and rooms, as clients see them and the disk keeps them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.client import Chat, target
from tests.support.process import ServerProcess
from tests.support.scene import Scene, Served, await_true, served

TOKENS = """
[[token]]
token = "token-alice"

[[token]]
token = "keeper"
username = "carol"
rooms = { "*" = "rwm" }

[[token]]
token = "few"
rooms = { "room-*" = "rw", "open" = "r" }
"""


@pytest.fixture(scope="module")
def server(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(TOKENS)
    with served("--rate", "0", "--tokens", str(file)) as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def carol(scene: Scene) -> Chat:
    """The moderator."""
    return scene.join("carol", token="keeper")


def said(chat: Chat, text: str, cid: str | None = None) -> int:
    """Say something, and return its id."""
    chat.say(text, cid)
    return int(chat.expect("message", text=text)["id"])


def test_edits_and_deletions_byte_by_byte(scene: Scene) -> None:
    alice, bob = scene.pair()
    first = said(alice, "helo", "c1")
    bob.expect("message", text="helo")
    alice.send("edit", "e1", id=first, text=" hello! ")
    text = bob.receive_text()
    ts = json.loads(text)["ts"]
    assert text == (
        f'{{"event":"edited","data":{{"id":{first},"username":"alice","text":"hello!","by":"alice"}},'
        f'"room":"{scene.room}","id":{first + 1},"ts":{ts},"cid":"e1"}}'
    )
    alice.send("delete", "d1", id=first)
    text = bob.receive_text()
    ts = json.loads(text)["ts"]
    assert text == (
        f'{{"event":"deleted","data":{{"id":{first},"username":"alice","by":"alice"}},'
        f'"room":"{scene.room}","id":{first + 2},"ts":{ts},"cid":"d1"}}'
    )
    assert [frame["event"] for frame in alice.settle()] == ["edited", "deleted"]


def test_who_was_away_learns_of_changes_in_order_and_sees_messages_as_they_are(scene: Scene) -> None:
    alice, bob = scene.pair()
    first, second = said(alice, "one"), said(alice, "two")
    epoch = bob.welcome["epoch"]
    bob.close()
    alice.expect("left")
    alice.send("edit", id=first, text="uno")
    alice.send("delete", id=second)
    alice.settle()
    back = scene.join("bob", since=second, epoch=epoch)
    assert (back.welcome["recovered"], back.welcome["replay"]) == (True, 2)
    back.expect("edited", id=first, text="uno")
    back.expect("deleted", id=second)
    late = scene.join("dave")
    assert [late.receive()["data"].get("text") for _ in range(4)] == ["uno", "", "uno", None]
    page = late.ask("history")["data"]["messages"]
    assert [(each["text"], each.get("edited"), each.get("deleted")) for each in page] == [
        ("uno", second + 1, None),
        ("", None, second + 2),
    ]


def test_a_retry_after_a_change_is_a_duplicate_whatever_its_text(scene: Scene) -> None:
    alice = scene.join("alice")
    first = said(alice, "one", "c1")
    alice.send("edit", "e1", id=first, text="uno")
    alice.expect("edited")
    for event, cid, data in (
        ("message", "c1", {"text": "anything"}),
        ("edit", "e1", {"id": first, "text": "uno"}),
    ):
        alice.send(event, cid, **data)
        frame = alice.receive()
        assert (frame["event"], frame["data"]["duplicate"], frame["cid"]) == ("ack", True, cid)
    alice.send("message", "e1", text="uno")
    assert alice.receive()["code"] == "cid_conflict"


@pytest.mark.parametrize(("event", "more"), [("edit", {"text": "x"}), ("delete", {})])
def test_what_is_not_ones_own_or_not_there(scene: Scene, event: str, more: dict[str, str]) -> None:
    alice, bob = scene.pair()
    first = said(alice, "mine")
    bob.expect("message")
    assert bob.ask(event, id=first, **more)["code"] == "forbidden"
    for number in (first + 1, 2**63 - 1):
        assert alice.ask(event, id=number, **more)["code"] == "not_found"
    assert alice.ask(event, id=0, **more)["field"] == "id"
    assert bob.settle() == []


def test_a_moderator_deletes_but_puts_no_words_into_anybodys_mouth(scene: Scene) -> None:
    alice = scene.join("alice")
    first = said(alice, "rude")
    keeper = carol(scene)
    keeper.expect("message")
    alice.expect("joined")
    assert keeper.ask("edit", id=first, text="nice")["code"] == "forbidden"
    keeper.send("delete", id=first)
    assert alice.receive()["data"] == {"id": first, "username": "alice", "by": "carol"}
    assert alice.ask("moderate", action="mute", username="bob")["code"] == "forbidden"
    assert alice.ask("sanctions")["code"] == "forbidden"


def test_mute_kick_and_ban(scene: Scene) -> None:
    keeper = carol(scene)
    bob = scene.join("bob")
    keeper.settle()
    keeper.send("moderate", "m1", action="mute", username="bob", seconds=600, reason="flooding")
    frame = bob.expect("moderated", action="mute", username="bob", by="carol", reason="flooding")
    assert frame["data"]["until"] == frame["ts"] + 600_000
    answer = bob.ask("message", text="hi")
    assert (answer["code"], answer["until"]) == ("forbidden", frame["data"]["until"])
    assert bob.ask("typing", active=True)["code"] == "forbidden"
    keeper.settle()
    (one,) = keeper.ask("sanctions")["data"]["sanctions"]
    assert one == {
        "action": "mute",
        "username": "bob",
        "by": "carol",
        "until": frame["data"]["until"],
        "reason": "flooding",
    }
    keeper.send("moderate", action="kick", username="bob")
    assert bob.closing() == (4510, "kicked")
    bob = scene.join("bob")
    keeper.send("moderate", action="ban", username="bob", seconds=3600, reason="spam")
    assert bob.closing() == (4510, "spam")
    with pytest.raises(InvalidStatus) as refused:
        scene.join("bob")
    response = refused.value.response
    assert (response.status_code, response.body) == (403, b"Banned from this room")
    assert 3590 <= int(response.headers["Retry-After"]) <= 3600
    elsewhere = scene.join("bob", room=f"{scene.room}-other")
    assert elsewhere.ask("switch_room", room=scene.room)["code"] == "forbidden"
    assert elsewhere.ask("follow", rooms=[scene.room])["code"] == "forbidden"
    keeper.settle()
    keeper.send("moderate", "u", action="unban", username="bob")
    keeper.expect("moderated", action="unban")
    scene.join("bob").close()
    keeper.expect("joined", username="bob")
    keeper.expect("left", username="bob")
    assert keeper.ask("moderate", action="ban", username="carol")["code"] == "forbidden"


def test_sanctions_and_changes_outlast_kill_9_and_their_texts_do_not(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text(TOKENS)
    options = ("--rate", "0", "--tokens", str(tmp_path / "tokens.toml"), "--db", str(tmp_path / "chat.db"))
    with ServerProcess(*options, cwd=tmp_path) as server:
        keeper = Chat(server.ws_url + target("r", "carol", "keeper"))
        alice = Chat(server.ws_url + target("r", "alice"))
        first = said(alice, "a-secret-that-was-deleted")
        second = said(alice, "a-secret-that-was-edited")
        alice.send("delete", id=first)
        alice.send("edit", id=second, text="harmless")
        alice.settle()
        keeper.send("moderate", action="ban", username="bob")
        keeper.settle()
        files = list(tmp_path.glob("chat.db*"))
        await_true(lambda: not any(b"a-secret" in file.read_bytes() for file in files), "it is overwritten")
        server.process.kill()
        server.process.wait()
        keeper.vanish()
        alice.vanish()
    with ServerProcess(*options, cwd=tmp_path) as again:
        with pytest.raises(InvalidStatus):
            Chat(again.ws_url + target("r", "bob"))
        late = Chat(again.ws_url + target("r", "dave"))
        events = [late.receive()["event"] for _ in range(5)]
        assert events == ["message", "message", "deleted", "edited", "moderated"]
        late.close()


def test_rooms_are_listed_and_followed(scene: Scene) -> None:
    alice = scene.join("alice")
    ops = f"{scene.room}-ops"
    bob = scene.join("bob", room=ops)
    said(bob, "first")
    listed = alice.ask("rooms", limit=1)["data"]
    assert [(each["room"], each["members"], each["last_id"]) for each in listed["rooms"]] == [(ops, 1, 1)]
    assert listed["more"]
    behind = alice.ask("rooms", after=ops)["data"]["rooms"]
    assert ops not in [each["room"] for each in behind]
    assert alice.ask("rooms", after="nowhere")["code"] == "not_found"
    answer = alice.ask("follow", rooms=[ops])
    (head,) = answer["data"]["rooms"]
    assert (head["room"], head["last_id"], head["messages"]) == (ops, 1, 1)
    bob.say("@bob is me")
    alice.expect("activity", room=ops, last_id=2, messages=2, username="bob", mentions=["bob"])
    assert alice.settle() == []
    few = scene.join("dave", token="few")
    assert few.ask("follow", rooms=["bystanders"])["code"] == "forbidden"
    assert "bystanders" not in [each["room"] for each in few.ask("rooms")["data"]["rooms"]]


def test_rooms_can_be_hidden(pyz: Path, tmp_path: Path) -> None:
    with served("--hide-rooms", "--db", "none", cwd=tmp_path) as server, Scene(server) as scene:
        alice = scene.join("alice")
        assert alice.ask("rooms")["code"] == "forbidden"
        assert alice.ask("follow", rooms=["ops"])["event"] == "ack"


def test_the_window_may_be_closed(pyz: Path, tmp_path: Path) -> None:
    with served("--edit-window", "0", "--db", "none", cwd=tmp_path) as server, Scene(server) as scene:
        alice = scene.join("alice")
        first = said(alice, "hi")
        assert alice.ask("edit", id=first, text="ho")["code"] == "forbidden"
        assert alice.ask("delete", id=first)["code"] == "forbidden"
