"""Several nodes on a store that others write to, on machines whose clocks differ, and of two versions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bundle.archive import read_archive, write_archive
from chatroom.engines.redis import library
from tests.support.client import Chat, target
from tests.support.clock import Clock
from tests.support.process import clean_environment, python_command
from tests.support.raw import get
from tests.support.scene import Served, await_true, check_clean, snapshot
from tests.support.several import (
    PRESENCE,
    Arrival,
    Question,
    await_ready,
    come,
    logged,
    reasons,
    say_until_stored,
    several,
    until_listed,
)
from tests.support.stores import Store, Stores

PASSWORD = "s3cret-pa55word"
TOKEN = "a-t0ken-of-anns"


def finish(*nodes: Served) -> None:
    for node in nodes:
        check_clean(node, PASSWORD, TOKEN)
        assert node.stop() == 0


def talk(speaker: Chat, *listeners: Chat, text: str) -> int:
    """Say something that all see; its id."""
    speaker.say(text)
    (number,) = {chat.messages(1)[0]["id"] for chat in (speaker, *listeners)}
    return int(number)


# What others put into the store, or take away


def test_a_room_whose_stream_a_stranger_writes_to_takes_nothing_and_others_go_on(
    pyz: Path, stores: Stores
) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        ann, ben = come(one, "den", "ann"), come(two, "den", "ben")
        cy, di = come(one, "hall", "cy"), come(two, "hall", "di")
        assert talk(ann, ben, text="before") == 1
        store.ask("XADD", "chatroom:{den}:s", "1-7", "what", "ever")
        assert talk(ben, ann, text="skipped") == 2
        store.ask("XADD", "chatroom:{den}:s", "*", "what", "ever")
        for number in range(5):
            for chat in (ann, ben):
                assert Question(chat, "message", f"m{number}", text="x").code() == "internal"
            assert talk(cy, di, text="meanwhile") == number + 1
        for chat in (ann, ben, come(one, "den", "eve")):
            page = Question(chat, "history", "h").answer()["data"]
            assert [each["text"] for each in page["messages"]] == ["before", "skipped"]
        for node in (one, two):
            assert reasons(node) == (200, [])
        finish(one, two)
        for node in (one, two):
            assert [line["room"] for line in logged(node, "append_refused", "store_refused")] == ["den"]


@pytest.mark.parametrize("key", ["m", "s", "c", "p"])
def test_a_room_with_a_key_of_another_type_is_unavailable_and_others_go_on(
    key: str, pyz: Path, stores: Stores
) -> None:
    store = stores.start()
    store.ask("SET", f"chatroom:{{den}}:{key}", "mine")
    with several(store.url) as (node,):
        ann = come(node, "hall", "ann")
        for number in range(3):
            if key == "c":  # it is looked at where a message has a cid
                ben = come(node, "den", "ben")
                assert Question(ben, "message", "m", text="x").code() == "unavailable"
                ben.close()
            else:
                assert Arrival(node, "den", "ben").end() == 1011
                assert Question(ann, "switch_room", f"s{number}", room="den").code() == "unavailable"
            assert talk(ann, text="meanwhile") == number + 1
        assert reasons(node) == (200, [])
        assert store.ask("GET", f"chatroom:{{den}}:{key}") == "mine"
        finish(node)
        (line,) = logged(node, "store_refused", "append_refused")
        assert "WRONGTYPE" in line["error"]


def test_a_room_whose_stream_is_taken_away_goes_on_behind_what_was_shown(pyz: Path, stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        ann, ben = come(one, "den", "ann"), come(two, "den", "ben")
        epoch = ann.welcome["epoch"]
        for number in range(1, 4):
            assert talk(ann, ben, text=f"said {number}") == number
        store.ask("RENAME", "chatroom:{den}:s", "chatroom:{den}:elsewhere")
        assert talk(ben, ann, text="said 4") == 4
        for node in (one, two):
            assert Question(ann, "history", "h").answer()["event"] == "history"
            arrivals = [Arrival(node, "den", "cy", since=0, epoch=epoch).end() for _ in range(3)]
            assert arrivals[-1] == "welcome", arrivals
            come(node, "den", "di").close()
        assert talk(ann, ben, text="said 5") == 5
        finish(one, two)


def test_a_room_whose_first_key_is_taken_away_begins_a_new_epoch_behind_its_messages(
    pyz: Path, stores: Stores
) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        ann, ben = come(one, "den", "ann"), come(two, "den", "ben")
        epoch = ann.welcome["epoch"]
        assert talk(ann, ben, text="before") == 1
        store.ask("DEL", "chatroom:{den}:m")
        assert Question(ann, "message", "m", text="meanwhile").code() == "unavailable"
        for chat in (ann, ben):
            assert chat.closing()[0] == 1012
        ann = come(two, "den", "ann", since=1, epoch=epoch)
        assert ann.welcome["recovered"] is False
        assert ann.welcome["epoch"] != epoch
        ben = come(one, "den", "ben")
        assert ann.texts(1) == ben.texts(1) == ["before"]
        assert talk(ann, ben, text="after") == 2
        finish(one, two)


@pytest.mark.parametrize("how", ["flushed", "restarted"])
def test_an_empty_store_is_a_new_epoch_for_everybody(how: str, pyz: Path, stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        rooms = ("den", "hall")
        chats = {
            (room, name): come(node, room, name)
            for room in rooms
            for node, name in ((one, "ann"), (two, "ben"))
        }
        epochs = {room: chats[room, "ann"].welcome["epoch"] for room in rooms}
        for room in rooms:
            assert talk(chats[room, "ann"], chats[room, "ben"], text="before") == 1
        if how == "flushed":
            store.ask("FLUSHALL")
        else:
            store.restart(empty=True)
        for chat in chats.values():
            assert chat.closing()[0] == 1012
        await_ready(one, two)
        for room in rooms:
            ann = come(two, room, "ann", since=1, epoch=epochs[room])
            ben = come(one, room, "ben", since=0, epoch=epochs[room])
            for chat in (ann, ben):
                assert chat.welcome["recovered"] is False
                assert chat.welcome["last_id"] == 0
                assert chat.welcome["epoch"] != epochs[room]
            assert ann.welcome["epoch"] == ben.welcome["epoch"]
            assert talk(ann, ben, text="after") == 1
            until_listed(ben, "ann", "ben")
        finish(one, two)


def test_neither_functions_nor_connections_that_are_gone_are_missed(pyz: Path, stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        ann, ben = come(one, "den", "ann"), come(two, "den", "ben")
        faults = (
            ("FUNCTION FLUSH",),
            ("CLIENT", "KILL", "TYPE", "PUBSUB"),
            ("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes"),
        )
        number = 0
        for fault in faults * 3:
            store.ask(*fault)
            for speaker, listener in ((ann, ben), (ben, ann)):
                number += 1
                assert say_until_stored(speaker, f"said {number}", f"c{number}") == number
                (frame,) = listener.messages(1)
                assert (frame["id"], frame["data"]["text"]) == (number, f"said {number}")
        for chat in (ann, ben):
            assert [frame for frame in chat.settle() if frame["event"] in PRESENCE] == []
            until_listed(chat, "ann", "ben")
        finish(one, two)
        assert logged(one, "store_refused") == logged(two, "store_refused") == []


# Nodes that differ


def test_clocks_that_differ_by_minutes_change_nothing(pyz: Path, stores: Stores, tmp_path: Path) -> None:
    store = stores.start()

    def node(minutes: int) -> Served:
        folder = tmp_path / str(minutes)
        folder.mkdir()
        clock = Clock(folder)
        clock.set(minutes=minutes)
        return Served("--redis", store.url, env=clock.environment)

    with node(-10) as one, node(10) as two:
        ann, ben = come(one, "den", "ann"), come(two, "den", "ben")
        ann.expect("joined", username="ben")
        times = []
        for speaker in (ann, ben, ann, ben):
            began = time.time() * 1000
            speaker.say("now")
            (stamped,) = {chat.messages(1)[0]["ts"] for chat in (ann, ben)}
            assert began - 1000 <= stamped <= time.time() * 1000 + 1000
            times.append(stamped)
        assert times == sorted(times)
        await_true(lambda: {snapshot(node)["chatroom_nodes"] for node in (one, two)} == {2}, "they meet")
        leases = dict(store.ask("ZRANGE", "chatroom:nodes", 0, -1, "WITHSCORES"))
        assert all(0 < float(end) / 1000 - time.time() <= 21 for end in leases.values())
        for chat in (ann, ben):
            assert [frame for frame in chat.settle() if frame["event"] in PRESENCE] == []
            until_listed(chat, "ann", "ben")
        finish(one, two)


def other_version(pyz: Path, to: Path) -> Path:
    """The built file with another text of the functions, which does the same."""
    first_code, distributions = read_archive(pyz)
    (own,) = (files for name, files in distributions.items() if name.startswith("chatroom-"))
    own["chatroom/engines/redis/library.lua"] += b"-- as it was before\n"
    write_archive(to, first_code, distributions)
    return to


def test_two_versions_side_by_side_are_one_server(pyz: Path, stores: Stores, tmp_path: Path) -> None:
    store = stores.start()
    older = [python_command()[0], str(other_version(pyz, tmp_path / "older.pyz"))]
    environment = clean_environment({"SHIV_ROOT": str(tmp_path / "shiv")})
    with (
        Served("--redis", store.url, command=older, env=environment) as one,
        Served("--redis", store.url) as two,
    ):
        names = {found[1] for found in store.ask("FUNCTION LIST")}
        assert len(names) == 2
        assert library.NAME in names
        ann, ben = come(one, "den", "ann"), come(two, "den", "ben")
        ann.expect("joined", username="ben")
        for number in range(1, 11):
            assert talk(*((ann, ben) if number % 2 else (ben, ann)), text=str(number)) == number
        first = Question(ann, "message", "c", text="once").answer()["id"]
        ben.messages(1)
        ben.close()
        ann.expect("left", username="ben")
        again = come(two, "den", "ann", since=3, epoch=ann.welcome["epoch"])
        assert again.welcome["recovered"] is True
        assert [frame["id"] for frame in again.messages(again.welcome["replay"])] == list(range(4, 12))
        found = Question(again, "message", "c", text="once").answer()["data"]
        assert found == {"id": first, "duplicate": True}
        finish(one, two)


# Secrets


def everything(store: Store) -> str:
    """All keys with their content, and all else that the store tells."""
    asked: list[Any] = []
    client = store.client()
    for key in client.scan_iter("*", count=1000):
        kind = client.type(key)
        commands: dict[str, tuple[str | int, ...]] = {
            "string": ("GET", key),
            "hash": ("HGETALL", key),
            "stream": ("XRANGE", key, "-", "+"),
            "zset": ("ZRANGE", key, 0, -1),
        }
        asked += [key, store.ask(*commands[kind])]
    asked += [store.ask(command) for command in ("CLIENT LIST", "FUNCTION LIST", "PUBSUB CHANNELS")]
    return repr(asked)


def test_no_secret_is_told_anywhere(pyz: Path, stores: Stores, tmp_path: Path) -> None:
    store = stores.start(password=PASSWORD)
    tokens, password = tmp_path / "tokens.toml", tmp_path / "password"
    tokens.write_text(f'[[token]]\ntoken = "{TOKEN}"\n')
    password.write_text(PASSWORD)
    url = store.url.replace(f":{PASSWORD}@", "")
    secret = ("--tokens", str(tokens), "--redis-password-file", str(password), "--log-level", "debug")
    with several(url, url, options=secret) as (one, two):
        ann = Chat(one.ws_url + target("den", "ann", TOKEN))
        ben = Chat(two.ws_url + target("den", "ben", TOKEN))
        ann.expect("joined", username="ben")
        talk(ann, ben, text="hello")
        Question(ann, "auth", "a", token=TOKEN).answer()
        Question(ann, "auth", "b", token=TOKEN + "-wrong").answer()
        with pytest.raises(Exception, match="401"):
            Chat(one.ws_url + target("den", "ann", TOKEN + "-wrong"))
        store.kill()
        await_true(lambda: reasons(one)[0] == reasons(two)[0] == 503, "they know")
        store.start()
        await_ready(one, two)
        say_until_stored(ann, "again", "c")
        told = [everything(store), store.said]
        for node in (one, two):
            told += [node.stderr, get(node.port, "/metrics").text, get(node.port, "/readyz").text]
            told.append(Path(f"/proc/{node.pid}/cmdline").read_text())
        for text in told:
            assert TOKEN not in text
            assert PASSWORD not in text
        finish(one, two)
