"""The built server against people who race and overdo it with edits, deletions, sanctions and follows."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatroom.core.sanctions import MAX_SANCTIONS
from tests.support.client import PATIENCE, Chat, Frame, target
from tests.support.process import ServerProcess
from tests.support.scene import Scene, Served, await_true, served

_numbers = count(1)
TOKENS = """
[[token]]
token = "token-alice"

[[token]]
token = "keeper"
username = "carol"
rooms = { "*" = "rwm" }
"""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(TOKENS)
    return file


@pytest.fixture(scope="module")
def server(pyz: Path, tokens: Path) -> Iterator[Served]:
    with served("--rate", "0", "--tokens", str(tokens)) as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def carol(scene: Scene, room: str | None = None) -> Chat:
    """The moderator."""
    return scene.join("carol", room=room, token="keeper")


def said(chat: Chat, text: str) -> int:
    """Say something, and return its id."""
    chat.say(text)
    while (frame := chat.receive())["event"] != "message" or frame["data"]["text"] != text:
        pass
    return int(frame["id"])


def at_once(*acts: Callable[[], object]) -> None:
    """Do these things in threads that begin together."""
    start = threading.Barrier(len(acts))
    faults: list[BaseException] = []

    def run(act: Callable[[], object]) -> None:
        start.wait()
        try:
            act()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not faults, faults


def ordered(chat: Chat, action: str, username: str = "bob", **more: object) -> Frame:
    """Take an action against a name; the answer."""
    cid = f"act-{next(_numbers)}"
    chat.send("moderate", cid, action=action, username=username, **more)
    return answer_to(chat, cid)


def answer_to(chat: Chat, cid: str) -> Frame:
    """The next frame with this cid."""
    while (frame := chat.receive()).get("cid") != cid:
        pass
    return frame


# Races


def test_changes_of_one_message_from_two_connections_have_one_order(scene: Scene) -> None:
    one, two = scene.join("alice"), scene.join("alice")
    reader = scene.join("bob")
    for number in range(20):
        about = said(one, f"text {number}")
        at_once(
            partial(one.send, "edit", f"e{number}", id=about, text="edited"),
            partial(two.send, "delete", f"d{number}", id=about),
        )
        edit, deletion = answer_to(one, f"e{number}"), answer_to(two, f"d{number}")
        told = [frame["event"] for frame in reader.settle() if frame["event"] in ("edited", "deleted")]
        assert told in (["edited", "deleted"], ["deleted"])
        assert deletion["event"] == "deleted"
        assert edit.get("code") == (None if len(told) > 1 else "not_found")
        (item,) = reader.ask("history", after=about - 1, limit=1)["data"]["messages"]
        assert (item["text"], item["deleted"], "edited" in item) == ("", deletion["id"], False)


def test_nobody_slips_in_while_a_ban_is_given(scene: Scene) -> None:
    keeper = carol(scene)

    def come() -> None:
        with suppress(InvalidStatus, ConnectionClosed):
            scene.join("bob").settle()

    for _ in range(5):
        at_once(*[come] * 6, lambda: ordered(keeper, "ban", reason="out"), *[come] * 6)
        await_true(lambda: "bob" not in keeper_members(keeper), "bob is out")
        with pytest.raises(InvalidStatus, match="403"):
            scene.join("bob")
        ordered(keeper, "unban")


def keeper_members(chat: Chat) -> list[str]:
    cid = f"who-{next(_numbers)}"
    chat.send("members", cid)  # others may come and go before the answer
    names: list[str] = answer_to(chat, cid)["data"]["members"]
    return names


def test_nobody_stays_who_was_switching_when_a_ban_was_given(scene: Scene) -> None:
    keeper = carol(scene)
    elsewhere = f"{scene.room}-elsewhere"
    for _ in range(8):
        bobs = [scene.join("bob", room=elsewhere) for _ in range(4)]

        def hurry(chat: Chat) -> None:
            with suppress(ConnectionClosed):
                for number in range(20):
                    chat.send("switch_room", room=(scene.room, elsewhere)[number % 2])
                chat.settle()

        at_once(*[lambda chat=chat: hurry(chat) for chat in bobs], lambda: ordered(keeper, "ban"))
        for chat in bobs:
            with suppress(ConnectionClosed):
                chat.settle()
                assert chat.ask("members")["room"] == elsewhere
                assert chat.ask("switch_room", room=scene.room)["code"] == "forbidden"
        assert "bob" not in keeper_members(keeper)
        ordered(keeper, "unban")
        for chat in bobs:
            chat.vanish()
        await_true(lambda: "bob" not in keeper_members(keeper), "all have left")


def test_all_connections_of_a_name_are_kicked_and_may_come_back(scene: Scene) -> None:
    keeper = carol(scene)
    bobs = [scene.join("bob") for _ in range(20)]
    with pytest.raises(InvalidStatus, match="429"):
        scene.join("bob")
    ordered(keeper, "kick", reason="all of you")
    assert {chat.closing() for chat in bobs} == {(4510, "all of you")}
    await_true(lambda: keeper_members(keeper) == ["carol"], "all have left")
    back = scene.join("bob")
    assert [frame["event"] for frame in back.settle()] == ["moderated"]


def test_a_mute_ends_by_the_clock_and_not_before(scene: Scene) -> None:
    keeper, bob = carol(scene), scene.join("bob")
    until = ordered(keeper, "mute", seconds=2)["data"]["until"]
    bob.settle()
    while True:
        frame = bob.ask("message", text="may I?")
        now = time.time() * 1000
        if frame["event"] == "message":
            assert frame["ts"] >= until
            break
        assert (frame["code"], frame["until"]) == ("forbidden", until)
        assert now < until + 1000
        time.sleep(0.05)
    assert said(keeper, "yes") > 0


# Excess


def test_edits_are_paced_as_messages_are(pyz: Path, tokens: Path) -> None:
    with served("--tokens", str(tokens), "--rate", "20", "--burst", "10") as server, Scene(server) as scene:
        alice = scene.join("alice")
        about = said(alice, "0")
        begin = time.monotonic()
        for number in range(1, 50):
            alice.send("edit", f"e{number}", id=about, text=str(number))
        texts = [alice.expect("edited")["data"]["text"] for _ in range(1, 50)]
        assert texts == [str(number) for number in range(1, 50)]
        assert time.monotonic() - begin > (49 - 10) / 20 - 0.2
        (item,) = alice.ask("history")["data"]["messages"]
        assert item["text"] == "49"


def test_so_many_sanctions_and_one_more(scene: Scene) -> None:
    keeper = carol(scene)
    for number in range(MAX_SANCTIONS):
        keeper.send("moderate", f"m{number}", action="mute", username=f"user{number}")
        if number % 20 == 19:
            assert {keeper.receive()["event"] for _ in range(20)} == {"moderated"}
    assert ordered(keeper, "mute", "one-more")["code"] == "forbidden"
    assert ordered(keeper, "ban", "user1")["code"] == "forbidden"
    assert ordered(keeper, "mute", "user1", seconds=1)["event"] == "moderated"  # in place of the other
    assert len(keeper.ask("sanctions")["data"]["sanctions"]) == MAX_SANCTIONS
    assert ordered(keeper, "kick", "user2")["event"] == "moderated"
    await_true(lambda: ordered(keeper, "mute", "one-more")["event"] == "moderated", "one has ended")
    assert ordered(keeper, "unmute", "user3")["event"] == "moderated"
    assert ordered(keeper, "ban", "user4")["event"] == "moderated"


def test_followers_of_many_busy_rooms_are_told_once_a_second_of_each(scene: Scene) -> None:
    rooms = [f"{scene.room}-{number}" for number in range(50)]
    followers = [scene.join(f"reader{number % 20}") for number in range(200)]
    for chat in followers:
        chat.send("follow", rooms=rooms)
    talkers = [scene.join(f"talker{number}", room=room) for number, room in enumerate(rooms[:20])]
    for chat in followers:
        chat.settle()
    seconds, begin = 3, time.monotonic()
    while time.monotonic() - begin < seconds:
        for talker in talkers:
            talker.say("hi")
        time.sleep(0.1)
    took = time.monotonic() - begin
    counts = dict.fromkeys(rooms, 0)
    for talker, room in zip(talkers, rooms, strict=False):
        counts[room] = said(talker, "the last")
    time.sleep(1.1)  # the last word of a second
    for chat in followers:
        told: dict[str, list[Any]] = defaultdict(list)
        for frame in chat.settle():
            if frame["event"] == "activity":
                told[frame["data"]["room"]].append(frame["data"]["messages"])
        assert set(told) == set(rooms[:20])
        for room, numbers in told.items():
            assert numbers == sorted(set(numbers))
            assert numbers[-1] == counts[room]
            assert len(numbers) <= took + 3


def test_reasons_reach_the_close_frame_whole(scene: Scene) -> None:
    keeper = carol(scene)
    for reason in ("x" * 100, "é" * 50, "😀" * 25, "\u202e\0" + "y" * 96):
        bob = scene.join("bob")
        assert ordered(keeper, "kick", reason=reason)["event"] == "moderated"
        assert bob.closing() == (4510, reason)
    for reason in ("x" * 101, "é" * 50 + "x", "😀" * 26):
        answer = ordered(keeper, "kick", reason=reason)
        assert (answer["code"], answer["limit"]) == ("too_long", 100)


@pytest.mark.parametrize("event", ["edit", "delete"])
def test_ids_that_are_no_message_here(scene: Scene, event: str) -> None:
    more = {"text": "x"} if event == "edit" else {}
    other = scene.join("alice", room=f"{scene.room}-other")
    for number in range(3):
        said(other, f"elsewhere {number}")
    alice = scene.join("alice")
    said(alice, "here")
    for number in (2, 3, 2**31, 2**53 + 1, 2**63 - 1):
        assert alice.ask(event, id=number, **more)["code"] == "not_found"
    for wrong in (0, -1, 1.0, "1", None, True, [1], 2**62 * 1.5):
        assert alice.ask(event, id=wrong, **more)["code"] == "bad_data"
        alice = scene.join("alice")  # wrong ones are counted
        alice.expect("message")
    alice.send_text(f'{{"event":"{event}","data":{{"id":9223372036854775808,"text":"x"}}}}')
    assert alice.receive()["code"] == "bad_json"


@pytest.mark.parametrize("db", ["chat.db", "none"])
def test_what_is_trimmed_is_changed_by_nobody(pyz: Path, tokens: Path, tmp_path: Path, db: str) -> None:
    options = ("--rate", "0", "--tokens", str(tokens), "--db", db)
    keep = ("--retain", "5") if db != "none" else ()
    with ServerProcess(*options, *keep, cwd=tmp_path) as server:
        alice = Chat(server.ws_url + target("r", "alice"))
        keeper = Chat(server.ws_url + target("r", "carol", "keeper"))
        said(alice, "first")
        for number in range(20 if keep else 600):
            said(alice, str(number))
        await_true(lambda: alice.ask("history", before=2)["data"]["messages"] == [], "it is trimmed")
        keeper.settle()
        assert alice.ask("edit", id=1, text="x")["code"] == "not_found"
        assert alice.ask("delete", id=1)["code"] == "not_found"
        assert keeper.ask("delete", id=1)["code"] == "not_found"
        alice.close()
        keeper.close()


def test_a_flood_of_sanctions_and_changes_is_all_there_after_a_restart(tokens: Path, tmp_path: Path) -> None:
    options = ("--rate", "0", "--tokens", str(tokens))
    with ServerProcess(*options, cwd=tmp_path) as server:
        keeper = Chat(server.ws_url + target("r", "carol", "keeper"))
        about = said(keeper, "0")
        for number in range(1, 200):
            keeper.send("edit", id=about, text=str(number))
            keeper.send("moderate", action="mute" if number % 2 else "unmute", username=f"u{number // 3}")
        said(keeper, "the last")
        keeper.settle()
        before = json.dumps(keeper.ask("sanctions", all=True)["data"])
        server.process.kill()
        server.process.wait()
        keeper.vanish()
    with ServerProcess(*options, cwd=tmp_path) as server:
        keeper = Chat(server.ws_url + target("r", "carol", "keeper"))
        keeper.settle()
        assert json.dumps(keeper.ask("sanctions", all=True)["data"]) == before
        item, _ = keeper.ask("history")["data"]["messages"]
        assert item["text"] == "199"
        keeper.close()
