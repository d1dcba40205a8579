"""Several built servers on one store: at one port, one after the other, behind nginx."""

from __future__ import annotations

import subprocess
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from chatroom.config.parsers import read_store_url
from chatroom.core.messages import Message, RoomLog
from chatroom.engines.redis import library
from chatroom.engines.redis.copying import StoreRooms
from chatroom.engines.redis.library import RoomKeys
from tests.support.client import Chat, target
from tests.support.process import clean_environment, python_command
from tests.support.raw import Raw, get, handshake
from tests.support.scene import Served, await_true, check_clean, refused_start
from tests.support.stores import Store, Stores

PASSWORD = "s3cret-pa55word"
MANY = ("--max-per-user", "10000", "--rate", "0")


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.start(password=PASSWORD)


def await_more(statuses: list[int | str], count: int = 20) -> None:
    seen = len(statuses)
    await_true(lambda: len(statuses) > seen + count, "people come")


def connections(server: Served) -> int:
    (line,) = [
        line
        for line in get(server.port, "/metrics").body.decode().splitlines()
        if line.startswith("chatroom_connections ")
    ]
    return int(float(line.split()[1]))


@pytest.mark.usefixtures("measured")
def test_nodes_at_one_port_take_turns_and_nobody_is_reset(pyz: Path, store: Store) -> None:
    """People come all the time while one node after the other stops, and others take their places."""
    over = threading.Event()
    statuses: list[int | str] = []

    def come_and_come(port: int) -> None:
        while not over.is_set():
            try:
                crowd = [Raw(port) for _ in range(25)]
                for raw in crowd:
                    raw.send(handshake("/?token=dev-token"))
                statuses.extend(raw.read_answer(bodiless=True).status for raw in crowd)
                for raw in crowd:
                    raw.close()
            except OSError as error:
                statuses.append(str(error))

    with ExitStack() as stack:
        stack.callback(over.set)
        first = stack.enter_context(Served("--redis", store.url, "--reuse-port", *MANY))
        shared = ("--redis", store.url, "--reuse-port", "--port", str(first.port), *MANY)
        nodes = [first, stack.enter_context(Served(*shared))]
        crowd = [threading.Thread(target=come_and_come, args=(first.port,)) for _ in range(4)]
        for thread in crowd:
            thread.start()
        for _ in range(4):
            await_more(statuses)
            nodes.append(stack.enter_context(Served(*shared)))
            await_more(statuses)
            assert nodes.pop(0).stop() == 0
        await_more(statuses)
        over.set()
        for thread in crowd:
            thread.join(20)
        assert set(statuses) == {101}
        for node in nodes:
            check_clean(node)
            assert node.stop() == 0


@pytest.mark.usefixtures("measured")
def test_nodes_share_rooms_and_no_password_is_told(pyz: Path, store: Store, tmp_path: Path) -> None:
    """Its file, its name and its place in the log; what clients see of it is in other files."""
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    url = store.url.replace(f":{PASSWORD}@", "")
    by_file = ("--redis", url, "--redis-password-file", str(password), "--node", "one")
    variables = clean_environment({"CHATROOM_REDIS": store.url, "CHATROOM_NODE": "two"})
    with Served(*by_file) as one, Served(env=variables) as two:
        alice, bob = Chat(one.ws_url + target("den", "alice")), Chat(two.ws_url + target("den", "bob"))
        alice.expect("joined", username="bob")
        bob.say("hello")
        assert alice.texts(1) == bob.texts(1) == ["hello"]
        names = store.ask("ZRANGE", "chatroom:nodes", 0, -1)
        assert {name.partition("#")[0] for name in names} == {"one", "two"}
        for node in (one, two):
            assert not list(Path(str(node.cwd)).glob("chat.db*"))
            check_clean(node, PASSWORD)
            metrics = get(node.port, "/metrics").body.decode()
            assert PASSWORD not in metrics
        alice.close()
        bob.close()
        assert one.stop() == two.stop() == 0
        for node in (one, two):
            assert f'"store": "{url}"' in node.stderr
        assert PASSWORD not in one.stderr + two.stderr + str(one.lines + two.lines)


def test_other_prefixes_are_other_servers(pyz: Path, store: Store) -> None:
    with Served("--redis", store.url) as one, Served("--redis", store.url, "--redis-prefix", "others") as two:
        alice, bob = Chat(one.ws_url + target("den", "alice")), Chat(two.ws_url + target("den", "bob"))
        for chat in (alice, bob):
            chat.say("hello")
            assert chat.texts(1) == ["hello"]
        assert store.ask("EXISTS", "chatroom:{den}:s", "others:{den}:s") == 2


def test_a_new_epoch_is_for_all_rooms_also_those_that_nobody_is_in(pyz: Path, store: Store) -> None:
    def epochs() -> list[str]:
        return [store.ask("HGET", f"chatroom:{{{room}}}:m", "e") for room in ("den", "hall")]

    with Served("--redis", store.url) as server:
        for room in ("den", "hall"):
            chat = Chat(server.ws_url + target(room, "alice"))
            chat.say("hello")
            chat.texts(1)
            chat.close()
        before = epochs()
        assert server.stop() == 0
    with Served("--redis", store.url) as server:
        assert server.stop() == 0
    assert epochs() == before
    with Served("--redis", store.url, "--new-epoch") as server:
        after = epochs()
        assert not set(after) & set(before)
        chat = Chat(server.ws_url + target("den", "bob", since=0, epoch=before[0]))
        assert chat.welcome["recovered"] is False
        assert chat.welcome["epoch"] == after[0]
        chat.close()
        assert server.stop() == 0


def test_a_room_that_is_being_copied_is_unavailable_until_it_is_whole(pyz: Path, store: Store) -> None:
    keys = RoomKeys.of("chatroom", "den")
    messages = [Message(1, 1_764_000_000_000, "ann", "from the database", "c1")]
    with (
        Served("--redis", store.url) as server,
        closing(StoreRooms(read_store_url(store.url), "chatroom")) as rooms,
    ):
        assert rooms.exchange([library.copy_begin(keys, RoomLog("den", "theepoch", 1, 1))]) == [["ok", 0]]
        chat = Chat(server.ws_url + target("hall", "alice"))
        chat.send("switch_room", "s1", room="den")
        assert chat.expect("error")["code"] == "unavailable"
        end = library.copy_end(keys, "theepoch", 1)
        assert rooms.exchange([library.copy_add(keys, "theepoch", 0, messages), end]) == [["ok", 1]] * 2
        chat.send("switch_room", "s2", room="den")
        assert chat.expect("switched")["epoch"] == "theepoch"
        assert chat.texts(1) == ["from the database"]
        chat.say("said later")
        assert chat.expect("message", text="said later")["id"] == 2
        chat.close()
        check_clean(server, PASSWORD)
        assert server.stop() == 0


def test_clients_resume_on_nodes_what_they_had_from_a_database_and_back(
    pyz: Path, store: Store, tmp_path: Path
) -> None:
    """As if nothing had happened: nothing is lost, doubled or numbered anew, and a `cid` is known."""

    def come(server: Served, since: int, epoch: str) -> Chat:
        chat = Chat(server.ws_url + target("den", "alice", since=since, epoch=epoch))
        assert chat.welcome["recovered"] is True
        return chat

    def copy(*arguments: str) -> None:
        done = subprocess.run(
            [*python_command(), "copy", *arguments], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr

    first, second = str(tmp_path / "chat.db"), str(tmp_path / "new.db")
    with Served("--db", first) as server:
        chat = Chat(server.ws_url + target("den", "alice"))
        epoch = chat.welcome["epoch"]
        for number in (1, 2):
            chat.say(f"said {number}", f"c{number}")
            chat.expect("message")
        chat.close()
        assert server.stop() == 0
    copy("--db", first, "--redis", store.url)
    with Served("--redis", store.url) as server:
        chat = come(server, 1, epoch)
        assert chat.expect("message", text="said 2")["id"] == 2
        chat.say("said 2", "c2")
        chat.expect("ack", id=2, duplicate=True)
        chat.say("said 3")
        assert chat.expect("message", text="said 3")["id"] == 3
        chat.close()
        new = Chat(server.ws_url + target("made here", "alice"))
        other = new.welcome["epoch"]
        new.say("hello")
        new.texts(1)
        new.close()
        assert server.stop() == 0
    await_true(lambda: not nodes(store), "its lease is over", 30)
    copy("--redis", store.url, "--db", second)
    with Served("--db", second) as server:
        chat = come(server, 2, epoch)
        assert chat.expect("message", text="said 3")["id"] == 3
        chat.close()
        chat = Chat(server.ws_url + target("made here", "alice", since=1, epoch=other))
        assert chat.welcome["recovered"] is True
        chat.close()
        assert server.stop() == 0


def nodes(store: Store) -> list[str]:
    """Those that live."""
    with closing(StoreRooms(read_store_url(store.url), "chatroom")) as rooms:
        return rooms.nodes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((f":{PASSWORD}@", ":wrong-pa55word@"), "the store refuses the user or the password"),
        ((f":{PASSWORD}@", ""), "the store refuses the user or the password"),
        (("127.0.0.1:", "127.0.0.9:"), "the store can't be reached"),
        (("redis://", "rediss://"), "the store does not answer"),
        (("redis://", "redis://x"), "the store refuses the user or the password"),
    ],
)
def test_a_store_that_can_not_be_used_is_one_line_without_a_password(
    change: tuple[str, str], says: str, pyz: Path, store: Store
) -> None:
    url = store.url.replace(*change)
    line = refused_start("--port", "0", "--redis", url)
    assert says in line
    assert "pa55word" not in line


def test_two_processes_at_one_port_need_a_store(pyz: Path) -> None:
    line = refused_start("--reuse-port", "--port", "0")
    assert "--reuse-port needs --redis beside it" in line


def test_who_is_in_an_empty_room_that_is_copied_comes_back_into_the_whole_one(
    pyz: Path, store: Store
) -> None:
    keys = RoomKeys.of("chatroom", "den")
    messages = [Message(1, 1_764_000_000_000, "ann", "from the database", "c1")]
    with (
        Served("--redis", store.url) as server,
        closing(StoreRooms(read_store_url(store.url), "chatroom")) as rooms,
    ):
        chat = Chat(server.ws_url + target("den", "alice"))
        old = chat.welcome["epoch"]
        assert rooms.exchange([library.copy_begin(keys, RoomLog("den", "theepoch", 1, 1))]) == [["ok", 0]]
        chat.say("too early", "t1")
        assert chat.expect("error")["code"] == "unavailable"
        end = library.copy_end(keys, "theepoch", 1)
        assert rooms.exchange([library.copy_add(keys, "theepoch", 0, messages), end]) == [["ok", 1]] * 2
        assert chat.closing()[0] == 1012
        chat = Chat(server.ws_url + target("den", "alice", since=0, epoch=old))
        assert (chat.welcome["epoch"], chat.welcome["recovered"]) == ("theepoch", False)
        assert chat.texts(1) == ["from the database"]
        chat.say("too early", "t1")
        assert chat.expect("message", text="too early")["id"] == 2
        chat.close()
        check_clean(server, PASSWORD)
        assert server.stop() == 0


@pytest.mark.usefixtures("measured")
def test_the_metrics_say_how_it_stands_with_the_store(pyz: Path, store: Store) -> None:
    def metric(node: Served, name: str) -> float:
        lines = get(node.port, "/metrics").body.decode().splitlines()
        (value,) = [line.split()[1] for line in lines if line.startswith(f"chatroom_{name} ")]
        return float(value)

    with Served("--redis", store.url) as one, Served("--redis", store.url) as two:
        alice, bob = Chat(one.ws_url + target("den", "alice")), Chat(two.ws_url + target("den", "bob"))
        alice.expect("joined", username="bob")
        alice.say("hello")
        assert alice.texts(1) == bob.texts(1) == ["hello"]
        assert metric(two, "store_foreign_messages_total") == 1
        assert metric(one, "store_foreign_messages_total") == 0
        assert metric(one, "store_round_trip_seconds_count") > 0
        assert 0 < metric(one, "store_round_trip_seconds_sum") < 60
        assert metric(two, "nodes") == 2
        alice.close()
        bob.close()
        assert one.stop() == two.stop() == 0
