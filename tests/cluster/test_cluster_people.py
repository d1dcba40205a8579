"""Clients on several nodes of one store: rosters, histories, and messages sent again on another node."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.client import Chat, Frame, target
from tests.support.raw import Raw, handshake
from tests.support.scene import Served, await_true, check_clean
from tests.support.several import PRESENCE, Question, come, listed, several, until_listed
from tests.support.stores import Stores

pytestmark = pytest.mark.usefixtures("pyz")

TOKENS = """
[[token]]
token = "token-alice"

[[token]]
token = "keeper"
username = "carol"
rooms = { "*" = "rwm" }
"""
CROWD = 200
RESUMES = 50


def told_of(frames: list[Frame]) -> list[tuple[str, str]]:
    """Who came and went, or that everybody was told anew."""
    return [(each["event"], each["data"].get("username", "")) for each in frames if each["event"] in PRESENCE]


def finish(*nodes: Served) -> None:
    for node in nodes:
        check_clean(node)
        assert node.stop() == 0


def test_a_name_on_two_nodes_comes_with_its_first_connection_and_goes_with_its_last(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        watchers = come(one, "den", "ann"), come(two, "den", "ben")
        watchers[0].expect("joined", username="ben")
        here = come(one, "den", "dora")
        for watcher in watchers:
            watcher.expect("joined", username="dora")
        there = come(two, "den", "dora")
        assert here.welcome["data"]["members"] == ["ann", "ben"]
        assert there.welcome["data"]["members"] == ["ann", "ben", "dora"]
        here.close()
        await_true(lambda: store.ask("HGET", "chatroom:{den}:p", "k:dora") == "1", "it is told")
        again = come(one, "den", "dora")
        there.close()
        await_true(lambda: store.ask("HGET", "chatroom:{den}:p", "k:dora") == "1", "it is told")
        for watcher in watchers:
            assert told_of(watcher.settle()) == []
            assert listed(watcher) == ["ann", "ben", "dora"]
        again.close()
        for watcher in watchers:
            watcher.expect("left", username="dora")
        finish(one, two)


def test_whoever_leaves_is_seen_to_leave_behind_the_last_words_on_every_node(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url, options=("--burst", "10000")) as (one, two):
        watchers = come(one, "den", "ann"), come(two, "den", "ben")
        watchers[0].expect("joined", username="ben")
        for number in range(20):
            leaver = come((one, two)[number % 2], "den", "dora")
            for word in range(20):
                leaver.say(f"{number}.{word}")
            leaver.close()
            for watcher in watchers:
                seen = [watcher.receive() for _ in range(22)]
                texts = [frame["data"]["text"] for frame in seen if frame["event"] == "message"]
                assert texts == [f"{number}.{word}" for word in range(20)]
                assert told_of(seen) == [("joined", "dora"), ("left", "dora")]
                assert seen[-1]["event"] == "left"
        finish(one, two)


def test_two_hundred_who_come_at_once_on_two_nodes_all_know_all(stores: Stores) -> None:
    store = stores.start()
    names = {f"user{number}" for number in range(CROWD)}
    with several(store.url, store.url) as (one, two), ExitStack() as stack:
        crowd: dict[str, Raw] = {}
        for number, name in enumerate(sorted(names)):
            raw = crowd[name] = Raw((one, two)[number % 2].port)
            stack.callback(raw.close)
        for name, raw in crowd.items():
            raw.send(handshake(target("den", name)))
        for name, raw in crowd.items():
            assert raw.read_answer(bodiless=True).status == 101
            known = {name, *raw.read_event("welcome")["data"]["members"]}
            while known != names:
                frame = raw.read_text()
                if frame["event"] == "joined":
                    assert frame["data"]["username"] not in known
                    known.add(frame["data"]["username"])
                else:
                    assert frame["event"] == "members"
                    known = set(frame["data"]["members"])
        for node in (one, two):
            asker = come(node, "den", "user0")
            until_listed(asker, *names)
        finish(one, two)


def test_typing_is_seen_on_other_nodes_but_not_by_oneself(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        dora, other, ben = come(one, "den", "dora"), come(two, "den", "dora"), come(two, "den", "ben")
        for chat in (dora, other, ben):
            until_listed(chat, "ben", "dora")
        for active in (True, False):
            dora.send("typing", active=active)
            assert ben.expect("typing", username="dora", active=active)["room"] == "den"
        assert other.settle() == dora.settle() == []
        finish(one, two)


def test_whoever_changes_node_in_mid_talk_misses_and_repeats_nothing(stores: Stores) -> None:
    """Fifty times in a row, while others talk on both: the next node is asked at once for what comes next."""
    store = stores.start()
    over = threading.Event()

    def talk(node: Served, username: str) -> None:
        chat = come(node, "den", username)
        numbers = count(1)
        with suppress(ConnectionClosed):
            while not over.wait(0.002):
                chat.say(f"{username} {next(numbers)}")
                chat.messages(1)

    with (
        several(store.url, store.url, options=("--burst", "10000")) as nodes,
        ThreadPoolExecutor(4) as pool,
        ExitStack() as stack,
    ):
        stack.callback(over.set)
        talkers = [pool.submit(talk, node, f"talker{number}") for number, node in enumerate(nodes * 2)]
        dora = come(nodes[0], "den", "dora")
        epoch, seen = dora.welcome["epoch"], dora.welcome["last_id"] - dora.welcome["replay"]
        for number in range(1, RESUMES + 1):
            cid = f"dora-{number}"
            dora.say(cid, cid)
            own = None
            while own is None:
                (frame,) = dora.messages(1)
                seen += 1
                assert frame["id"] == seen
                own = seen if frame.get("cid") == cid else None
            dora.vanish()
            dora = come(nodes[number % 2], "den", "dora", since=seen, epoch=epoch)
            welcome = dora.welcome
            assert (welcome["recovered"], welcome["epoch"]) == (True, epoch)
            assert welcome["last_id"] - welcome["replay"] == seen
            again = Question(dora, "message", cid, text=cid)
            while (frame := dora.receive()).get("cid") != cid:
                if frame["event"] == "message":
                    seen += 1
                    assert frame["id"] == seen
            assert (frame["event"], frame["data"]) == ("ack", {"id": own, "duplicate": True}), again
        over.set()
        for talker in talkers:
            talker.result()
        finish(*nodes)


def test_a_message_that_is_said_again_on_another_node_is_stored_once(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        here, there = come(one, "den", "dora"), come(two, "den", "dora")
        first = Question(here, "message", "c", text="hello").answer()["id"]
        there.expect("message", text="hello")
        assert Question(there, "message", "c", text="hello").answer()["data"] == {
            "id": first,
            "duplicate": True,
        }
        assert Question(there, "message", "c", text="other").code() == "cid_conflict"
        for number in range(50):
            asked = [Question(chat, "message", f"c{number}", text="both") for chat in (here, there)]
            ids = set()
            for question in asked:
                frame = question.answer()
                ids.add(frame.get("id", frame["data"].get("id")))
            assert ids == {number + 2}
        assert Question(here, "history", "h", after=0, limit=200).answer()["data"]["messages"][-1]["id"] == 51
        finish(one, two)


ROOMS = [
    "{a}",
    "a}",
    "{a",
    "{",
    "}",
    "{}",
    "%7Ba%7D",
    "%",
    "%25",
    "a:b",
    "a:m",
    "{a}:m",
    "nodes",
    "*",
    "[a-z]?",
    "\\",
    "'\"",
    "\U00020000" * 64,
    "x" * 64,
    "{" * 64,
]


def test_rooms_have_names_of_any_kind_and_are_as_many(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        speakers = {room: come(one, room, "ann") for room in ROOMS}
        listeners = {room: come(two, room, "ben") for room in ROOMS}
        for room, speaker in speakers.items():
            speaker.say(f"in {room}")
        for room in ROOMS:
            for chat in (speakers[room], listeners[room]):
                (frame,) = chat.messages(1)
                assert (frame["room"], frame["id"], frame["data"]["text"]) == (room, 1, f"in {room}")
                until_listed(chat, "ann", "ben")
                assert [each for each in chat.settle() if each["event"] == "message"] == []
        finish(one, two)


TEXTS = [
    "\x00",
    "a\x00b",
    "a\u2028\u2029\x85b",
    "\x01\x1b[31m\x7f",
    '"\\/\b\f\n\r\t'.strip() + "]",
    "\U0001f600" * 4000,
    "\ufeff\u202e\u200b",
    "\ud7ff\ue000\ufffd\uffff\U0010ffff",
    "%s%d{}[]'--",
    "null",
    "1e999",
]


def test_texts_and_cids_are_the_same_on_every_node_and_after_a_restart_of_all(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        ann, ben = come(one, "den", "ann"), come(two, "den", "ben")
        for number, text in enumerate(TEXTS, 1):
            ann.say(text, text[:64])
            for chat in (ann, ben):
                (frame,) = chat.messages(1)
                assert (frame["id"], frame["data"]["text"], frame["cid"]) == (number, text, text[:64])
        finish(one, two)
    store.restart()
    with several(store.url) as (one,):
        ben = come(one, "den", "ben")
        assert ben.texts(len(TEXTS)) == TEXTS
        found = Question(ben, "history", "h").answer()["data"]["messages"]
        assert [(each["text"], each["cid"]) for each in found] == [(text, text[:64]) for text in TEXTS]
        ann = come(one, "den", "ann")
        ann.messages(len(TEXTS))
        for number, text in enumerate(TEXTS, 1):
            answer = Question(ann, "message", text[:64], text=text).answer()
            assert answer["data"] == {"id": number, "duplicate": True}
        finish(one)


def next_stored(chat: Chat) -> dict[str, Any]:
    """The next frame but those that tell who has joined, which come when the other node has heard of it."""
    while (frame := chat.receive())["event"] == "joined":
        pass
    return frame


def test_changes_and_sanctions_of_one_node_are_seen_on_all(stores: Stores, tmp_path: Path) -> None:
    store = stores.start()
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(TOKENS)
    with several(store.url, store.url, options=("--tokens", str(tokens))) as (one, two):
        alice, bob = come(one, "den", "alice"), come(two, "den", "bob")
        carol = Chat(two.ws_url + target("den", "carol", "keeper"))
        bob.say("helo", "c1")
        for chat in (alice, bob, carol):
            message = next_stored(chat)
            assert message["data"]["text"] == "helo"
        first = message["id"]
        bob.send("edit", "e1", id=first, text="hello")
        for chat in (alice, bob, carol):
            edited = {"id": first, "username": "bob", "text": "hello", "by": "bob"}
            assert next_stored(chat)["data"] == edited
        alice.settle()
        (message,) = alice.ask("history")["data"]["messages"]
        assert (message["text"], message["edited"]) == ("hello", first + 1)
        carol.send("delete", "d1", id=first)
        for chat in (alice, bob, carol):
            assert next_stored(chat)["data"] == {"id": first, "username": "bob", "by": "carol"}
        carol.send("moderate", "m1", action="mute", username="alice", seconds=600)
        until = next_stored(alice)["data"]["until"]
        refusal = alice.ask("message", text="I can't")
        assert (refusal["code"], refusal["until"]) == ("forbidden", until)
        carol.send("moderate", "m2", action="ban", username="alice", reason="enough")
        assert alice.closing() == (4510, "enough")
        for node in (one, two):
            with pytest.raises(InvalidStatus) as caught:
                come(node, "den", "alice")
            assert caught.value.response.status_code == 403
        again = come(one, "den", "dora", since=0, epoch=bob.welcome["epoch"])
        found = [again.receive() for _ in range(again.welcome["replay"])]
        assert [each["event"] for each in found] == ["message", "edited", "deleted", "moderated", "moderated"]
        assert [each["data"].get("text", "") for each in found] == [""] * 5
        finish(one, two)
