"""Requests and streams at several built servers on one store: a retry may go to another node."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.served.test_served_api import ask, post, request
from tests.support.eventsource import EventSource
from tests.support.raw import Raw
from tests.support.scene import await_true, check_clean
from tests.support.several import PROMISED, come, several
from tests.support.stores import Stores

pytestmark = pytest.mark.usefixtures("pyz")

AUTH = ("Authorization", "Bearer token-alice")
TOKENS = """
[[token]]
token = "token-alice"

[[token]]
token = "keeper"
username = "carol"
rooms = { "*" = "rwm" }
"""


def test_any_node_takes_a_post_and_tells_of_it(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url, options=("--rate", "0")) as (one, two):
        reader = EventSource(two.port, "/rooms/ops/events", AUTH)
        reader.connect()
        for number in range(10):
            said = post((one, two)[number % 2].port, "ops", f"m{number}", key=f"k{number}")
            assert said["id"] == number + 1
        reader.read_until(lambda: len(reader.texts) == 10)
        assert reader.ids == list(range(1, 11))
        for number in range(10):
            again = post((two, one)[number % 2].port, "ops", f"m{number}", key=f"k{number}")
            assert (again["id"], again["duplicate"]) == (number + 1, True)
        conflict = ask(one.port, "POST", "/rooms/ops/messages", b"other", ("Idempotency-Key", "k3"))
        assert conflict.status == 409
        page = json.loads(ask(one.port, "GET", "/rooms/ops/messages?limit=3").body)
        assert [each["text"] for each in page["messages"]] == ["m7", "m8", "m9"]
        edited = ask(one.port, "PATCH", "/rooms/ops/messages/1", b"new", ("Idempotency-Key", "e1"))
        assert edited.status == 200
        again_edited = ask(two.port, "PATCH", "/rooms/ops/messages/1", b"new", ("Idempotency-Key", "e1"))
        assert json.loads(again_edited.body) == json.loads(edited.body) | {"duplicate": True}
        deleted = ask(two.port, "DELETE", "/rooms/ops/messages/1")
        assert json.loads(ask(one.port, "DELETE", "/rooms/ops/messages/1").body)["duplicate"] is True
        reader.read_until(lambda: len(reader.ids) == 12)
        assert reader.frames[-1] == json.loads(deleted.body)
        reader.close()
        for node in (one, two):
            check_clean(node)
            assert node.stop() == 0


def test_a_node_without_members_knows_those_of_others(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url) as (one, two):
        ann, ben = come(one, "den", "ann"), come(one, "den", "ben")
        for _ in range(3):
            answer = ask(two.port, "GET", "/rooms/den/members")
            assert json.loads(answer.body) == {"members": ["ann", "ben"]}
        reader = EventSource(two.port, "/rooms/den/events?username=dora", AUTH)
        reader.connect()
        assert json.loads(ask(one.port, "GET", "/rooms/den/members").body) == {"members": ["ann", "ben"]}
        reader.close()
        ann.close()
        await_true(
            lambda: json.loads(ask(two.port, "GET", "/rooms/den/members").body) == {"members": ["ben"]},
            "ann is gone",
        )
        ben.close()


def test_a_ban_on_one_node_holds_on_all(stores: Stores, tmp_path: Path) -> None:
    store = stores.start()
    file = tmp_path / "tokens.toml"
    file.write_text(TOKENS)
    with several(store.url, store.url, options=("--tokens", str(file))) as (one, two):
        reader = EventSource(two.port, "/rooms/den/events?username=bob", AUTH)
        reader.connect()
        ban = json.dumps({"action": "ban", "username": "bob", "seconds": 600}).encode()
        media = ("Content-Type", "application/json")
        assert ask(one.port, "POST", "/rooms/den/moderation", ban, media, token="keeper").status == 200
        assert reader.read_end() == b""
        assert reader.comments[-1] == "banned"
        for node in (one, two):
            answer = ask(node.port, "POST", "/rooms/den/messages?username=bob", b"x")
            assert (answer.status, answer.text) == (403, "Banned from this room")


def test_a_reader_goes_on_at_another_node(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, store.url, options=("--rate", "0")) as (one, two):
        reader = EventSource(one.port, "/rooms/ops/events", AUTH)
        for number in range(5):
            post(one.port, "ops", f"m{number}")
        reader.read_until(lambda: len(reader.texts) == 5)
        one.signal(signal.SIGKILL)
        one.wait()
        reader.port = two.port
        post(two.port, "ops", "m5")
        reader.read_until(lambda: len(reader.texts) == 6)
        assert reader.ids == list(range(1, 7))
        assert reader.frames[-2]["recovered"] is True
        reader.close()


def test_a_dead_store_is_told_in_time_and_a_retry_finds_out(stores: Stores) -> None:
    store = stores.start()
    with several(store.url, options=("--rate", "0")) as (node,):
        raw = Raw(node.port)
        raw.send(request("POST", "/rooms/ops/messages", b"before"))
        assert raw.read_answer().status == 201
        store.freeze()
        began = time.monotonic()
        raw.send(request("POST", "/rooms/ops/messages", b"late", ("Idempotency-Key", "k1")))
        answer = raw.read_answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert time.monotonic() - began < PROMISED + 1
        assert ask(node.port, "GET", "/rooms/other/members").status == 503
        store.thaw()

        def stored() -> bool:
            raw.send(request("POST", "/rooms/ops/messages", b"late", ("Idempotency-Key", "k1")))
            return raw.read_answer().status in (200, 201)

        await_true(stored, "the store is back")
        page = json.loads(ask(node.port, "GET", "/rooms/ops/messages").body)
        assert [each["text"] for each in page["messages"]] == ["before", "late"]
        raw.close()
