"""The functions in the store, on a real one."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from chatroom.core.messages import Act, Delete, Draft, Edit, Moderate
from chatroom.core.sanctions import Action
from chatroom.engines.redis import library
from chatroom.engines.redis.library import RoomKeys, context_of
from tests.support.stores import Kind, Store, Stores

ROOM = RoomKeys.of("chat", "r")


@pytest.fixture(scope="module", params=Kind)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with closing(Stores(tmp_path_factory.mktemp("stores"), request.param)) as stores:
        yield stores.start()


@pytest.fixture
def store(server: Store) -> Any:
    client: Any = server.client(decode_responses=False)
    client.flushall()
    client.function_flush()
    client.function_load(library.SOURCE)
    return client


def call(store: Any, command: library.Command) -> Any:
    return json.loads(store.execute_command(*command))


def context(node: str = "n1", *, keep: int | None = None, seconds: float | None = None) -> str:
    return context_of(ROOM, node, sharded=False, keep=keep, keep_seconds=seconds)


def opened(store: Any, epoch: str = "e1") -> Any:
    return call(store, library.open_room(ROOM, epoch))


def draft(text: str, cid: str | None = None, username: str = "ann") -> Draft:
    return Draft("r", username, text, cid, 0)


def act(what: Act, text: str = "", username: str = "ann") -> Draft:
    return Draft("r", username, text, None, 0, isinstance(what, Moderate), what)


def append(
    store: Any, *drafts: Draft, epoch: str = "e1", known: int = 0, ts: int = 0, keep: int | None = None
) -> Any:
    return call(store, library.append(ROOM, context(keep=keep), epoch, drafts, known=known, ts=ts))


def texts(messages: Any) -> list[str]:
    return [message[2] for message in messages or []]


class Listener:
    """What is published in the room."""

    def __init__(self, store: Any) -> None:
        self.pubsub = store.pubsub()
        self.pubsub.subscribe(ROOM.channel)
        assert self.pubsub.get_message(timeout=2)["type"] == "subscribe"

    def read(self) -> list[tuple[list[str], Any]]:
        found = []
        while (message := self.pubsub.get_message(timeout=0.05)) is not None:
            head, _, body = message["data"].decode().partition("\n")
            found.append((head.split(" "), json.loads(body)))
        return found


@pytest.fixture
def listener(store: Any) -> Iterator[Listener]:
    listener = Listener(store)
    yield listener
    listener.pubsub.close()


# Appending


def test_a_room_begins_at_zero_in_the_epoch_of_who_opens_it_first(store: Any) -> None:
    assert opened(store, "e1") == ["ok", "e1", 0, 1, 0, {}, 0, {}]
    assert opened(store, "e2") == ["ok", "e1", 0, 1, 0, {}, 0, {}]


def test_ids_go_up_one_by_one_and_what_is_stored_is_told(store: Any, listener: Listener) -> None:
    opened(store)
    status, first, outcomes, ts, between, refused = append(store, draft("a"), draft("é\0\u2028😀", "c1"))
    assert (status, first, outcomes, between, refused) == ("ok", 1, [1, 2], {}, False)
    assert listener.read() == [
        (["m", "n1", "e1", "1", "2"], [[ts, "ann", "a"], [ts, "ann", "é\0\u2028😀", "c1"]])
    ]
    assert append(store, draft("b"), known=2)[2] == [3]
    assert call(store, library.read(ROOM, "e1", 0, 9, limit=9, most=9999))[2][:2] == [
        [ts, "ann", "a"],
        [ts, "ann", "é\0\u2028😀", "c1"],
    ]


def test_a_cid_is_known_within_a_batch_and_later(store: Any, listener: Listener) -> None:
    opened(store)
    batch = [draft("a", "c"), draft("a", "c"), draft("b", "c"), draft("a", "c", "bob"), draft("z")]
    assert append(store, *batch)[2] == [1, -1, 0, 2, 3]
    assert append(store, *batch, known=3)[2] == [-1, -1, 0, -2, 4]
    assert [head for head, _ in listener.read()] == [["m", "n1", "e1", "1", "3"], ["m", "n1", "e1", "4", "4"]]


def test_nothing_new_is_nothing_told(store: Any, listener: Listener) -> None:
    opened(store)
    append(store, draft("a", "c"))
    listener.read()
    assert append(store, draft("a", "c"), draft("b", "c"), known=1)[2] == [-1, 0]
    assert listener.read() == []


def test_what_a_node_has_not_shown_comes_with_the_outcomes(store: Any) -> None:
    opened(store)
    append(store, *map(draft, "abc"))
    status, _, outcomes, _, between, _ = append(store, draft("d"), known=1)
    assert (status, outcomes, texts(between)) == ("ok", [4], ["b", "c"])
    append(store, *[draft("x")] * 201, known=4)
    assert append(store, draft("y"), known=4)[4] == {}  # too many: they are read


def test_an_append_in_another_epoch_or_behind_what_was_shown_stores_nothing(store: Any) -> None:
    assert append(store, draft("a")) == ["missing"]
    opened(store)
    append(store, draft("a"))
    assert append(store, draft("b"), epoch="e0") == ["replaced", "e1", 1]
    assert append(store, draft("b"), known=2) == ["behind", "e1", 1]
    assert opened(store)[2] == 1


def test_an_append_behind_other_messages_than_were_shown_stores_nothing(store: Any) -> None:
    opened(store)
    ts = append(store, draft("a"))[3]
    assert append(store, draft("b"), known=1, ts=ts - 1) == ["behind", "e1", 1]
    assert append(store, draft("b"), known=1, ts=ts)[2] == [2]
    assert append(store, draft("c"), known=1, ts=ts - 1) == ["behind", "e1", 2]
    assert append(store, draft("c"), known=1, ts=ts)[2] == [3]
    assert call(store, library.verify(ROOM, 1, ts)) == ["ok", "e1", 3, 0, True]
    assert call(store, library.verify(ROOM, 1, ts + 1)) == ["ok", "e1", 3, 0, False]
    assert call(store, library.verify(ROOM, 4, 0)) == ["ok", "e1", 3, 0, False]


def test_hundreds_of_drafts_with_cids_are_one_batch(store: Any) -> None:
    opened(store)
    batch = [draft(str(number), str(number)) for number in range(250)]
    assert append(store, *batch)[2] == list(range(1, 251))
    assert append(store, *batch, known=250)[2] == [-number for number in range(1, 251)]


def test_a_foreign_entry_ahead_of_the_log_refuses_what_is_new(store: Any) -> None:
    opened(store)
    append(store, draft("a", "c"))
    store.xadd(ROOM.stream, {"who": "knows"}, id="100-0")
    status, _, outcomes, _, _, refused = append(
        store, draft("a", "c"), draft("b", "d"), draft("b", "d"), known=1
    )
    assert (status, outcomes) == ("ok", [-1, False, False])
    assert "equal or smaller" in refused
    assert opened(store)[2] == 1
    store.delete(ROOM.stream)
    assert append(store, draft("b", "d"), known=1)[2] == [2]


def test_a_publish_that_is_not_allowed_leaves_what_is_stored(store: Any) -> None:
    opened(store)
    store.execute_command("ACL", "SETUSER", "default", "resetchannels")
    try:
        assert append(store, draft("a"))[2] == [1]
    finally:
        store.execute_command("ACL", "SETUSER", "default", "allchannels")


# Changes


def test_what_is_no_message_and_what_is_changed_is_kept_beside_the_stream(
    store: Any, listener: Listener
) -> None:
    opened(store)
    ts = append(store, draft("a", "c"), draft("b"))[3]
    mute = act(Moderate(Action.MUTE, "bob\n", 60), "why")
    status, _, outcomes, now, _, _ = append(store, act(Edit(1, 60_000), "é"), mute, draft("d"), known=2)
    rests = [
        '{"event":"edited","about":1,"replaces":1}',
        f'{{"event":"moderated","action":"mute","target":"bob\\n","until":{now + 60_000}}}',
    ]
    assert (status, outcomes) == ("ok", [[3, rests[0]], [4, rests[1]], 5])
    assert listener.read()[1] == (
        ["m", "n1", "e1", "3", "5"],
        [[now, "ann", "é", False, rests[0]], [now, "ann", "why", False, rests[1]], [now, "ann", "d"]],
    )
    assert [entry for entry, _ in store.xrange(ROOM.stream)] == []  # all went with the one that was changed
    assert call(store, library.read(ROOM, "e1", 0, 9, limit=9, most=9999))[2] == [
        [ts, "ann", "é", "c", '{"edited":3}'],
        [ts, "ann", "b"],
        [now, "ann", "é", False, rests[0]],
        [now, "ann", "why", False, rests[1]],
        [now, "ann", "d"],
    ]
    assert store.hmget(ROOM.meta, "o", "z", "l") == [b"2", b"1", b"5"]
    assert json.loads(store.hget(ROOM.meta, b"mute:bob\n")) == ["ann", str(now + 60_000), "why"]
    assert append(store, draft("e"), known=5)[2] == [6]
    assert [entry for entry, _ in store.xrange(ROOM.stream)] == [b"6-0"]


def test_a_room_that_begins_with_a_sanction_has_all_its_keys(store: Any) -> None:
    opened(store)
    call(store, library.attend(ROOM, context(), 1, ["ann"], []))
    append(store, act(Moderate(Action.BAN, "bob", None)))
    assert {*store.keys("*")} == {key.encode() for key in ROOM[:4]}
    assert opened(store)[6:] == [1, [["ban", "bob", "ann", False, ""]]]
    assert call(store, library.head(ROOM)) == ["ok", "e1", 1, 1, [["ban", "bob", "ann", False, ""]]]


@pytest.mark.parametrize("sizes", [(0,), (30,), (0, 5, 40, 300, 3000)])
def test_a_text_that_is_gone_is_nowhere_in_the_store(store: Any, sizes: tuple[int, ...]) -> None:
    """Where a text has gone from the stream as a neighbour's, too, its node has to go with it."""
    store.config_set("rdbcompression", "no")
    opened(store)
    count = 600
    texts = [f"<{number}>" + "x" * sizes[number % len(sizes)] for number in range(1, count + 1)]
    for start in range(0, count, 50):
        append(store, *map(draft, texts[start : start + 50]), known=start)
    last = count
    for number in [1, 300, 310, 250, 600, *range(7, 600, 41)]:
        change = act(Delete(number, 60_000)) if number % 2 else act(Edit(number, 60_000), "new")
        assert append(store, change, known=last)[2][0][0] == (last := last + 1)
        content = store.dump(ROOM.stream) + store.dump(ROOM.cids)
        assert f"<{number}>".encode() not in content
    assert f"<{2}>".encode() in content


def test_edits_of_edits_leave_the_last_text_alone(store: Any) -> None:
    store.config_set("rdbcompression", "no")
    opened(store)
    append(store, draft("<1>"), draft("z"))
    append(store, act(Edit(1, 60_000), "<2>"), act(Edit(1, 60_000), "<3>"), known=2)
    append(store, act(Edit(1, 60_000), "<4>"), known=4)
    content = store.dump(ROOM.stream) + store.dump(ROOM.cids)
    assert [number for number in range(1, 5) if f"<{number}>".encode() in content] == [4]


def test_a_foreign_entry_ahead_of_the_log_refuses_changes_and_leaves_what_is_there(store: Any) -> None:
    opened(store)
    append(store, draft("a"), draft("b"))
    store.xadd(ROOM.stream, {"who": "knows"}, id="100-0")
    before = store.hgetall(ROOM.meta), store.hgetall(ROOM.cids), store.xrange(ROOM.stream)
    batch = [act(Moderate(Action.MUTE, "bob", None)), act(Delete(1, 60_000)), draft("c", username="bob")]
    _, _, outcomes, _, _, refused = append(store, *batch, known=2)
    assert outcomes == [False, False, False]  # the mute isn't stored either
    assert "equal or smaller" in refused
    assert (store.hgetall(ROOM.meta), store.hgetall(ROOM.cids), store.xrange(ROOM.stream)) == before


def test_what_is_kept_beside_the_stream_is_trimmed_by_count_and_by_age(store: Any) -> None:
    opened(store)
    append(store, *[draft(str(n), f"c{n}") for n in range(1, 6)])
    append(store, act(Delete(4, 60_000)), draft("7", "c7"), known=5, keep=4)
    cids, beside = (f"ann\0c{n}".encode() for n in (4, 5, 7)), (f"\0{n}".encode() for n in (4, 5, 6, 7))
    assert {*store.hkeys(ROOM.cids)} == {b"", *cids, *beside}
    while call(store, library.prune(ROOM, context(seconds=0.001))) != ["ok", 8, False]:
        pass  # a millisecond has to pass
    assert (store.hkeys(ROOM.cids), store.xlen(ROOM.stream)) == ([b""], 0)
    assert call(store, library.summaries([ROOM])) == ["ok", [False]]


def test_a_meta_hash_that_is_gone_leaves_what_is_kept_beside_the_stream(store: Any) -> None:
    opened(store)
    append(store, *map(draft, "abc"))
    append(store, act(Delete(2, 60_000)), known=3)
    store.delete(ROOM.meta)
    assert call(store, library.renew(ROOM, "e1", "e2")) == ["ok", "e2", 4]


def test_what_is_far_from_what_is_asked_for_takes_several_calls(store: Any) -> None:
    opened(store)
    append(store, draft("a"))
    for start in range(1, 2251, 250):
        append(store, *[act(Moderate(Action.KICK, "bob", None))] * 250, known=start)
    append(store, draft("b"), known=2251)

    def page(before: int | None, after: int | None, upto: int = 2252) -> Any:
        return call(store, library.history(ROOM, "e1", before, after, upto, limit=9, most=9999))[2:]

    ids, found, more, go_on = page(None, None)
    assert (ids, texts(found), more) == ([2252], ["b"], False)
    assert 1 < go_on < 300
    assert page(go_on, None)[0] == [1]
    assert page(go_on, None)[2:] == [False, False]
    ids, found, more, go_on = page(None, 0)
    assert (ids, texts(found), more) == ([1], ["a"], False)
    assert 1900 < go_on < 2251
    assert page(None, go_on)[0] == [2252]
    _, ids, _, go_on = call(store, library.moderations(ROOM, "e1", 2252, limit=9999))
    assert ids == list(range(2251, 252, -1))
    assert go_on == 253
    assert call(store, library.moderations(ROOM, "e1", go_on - 1, limit=9999))[3] is False


# Reading


def test_foreign_entries_are_skipped_and_a_hole_ends_what_is_read(store: Any) -> None:
    opened(store)
    append(store, draft("a"))
    store.xadd(ROOM.stream, {"who": "knows"}, id="1-5")
    append(store, *map(draft, "bcd"), known=1)
    assert texts(call(store, library.read(ROOM, "e1", 0, 9, limit=9, most=9999))[2]) == ["a", "b", "c", "d"]
    store.xdel(ROOM.stream, "3-0")
    assert texts(call(store, library.read(ROOM, "e1", 0, 9, limit=9, most=9999))[2]) == ["a", "b"]
    assert call(store, library.read(ROOM, "e1", 2, 9, limit=9, most=9999)) == ["trimmed", 4]
    page = call(store, library.history(ROOM, "e1", None, None, 4, limit=9, most=9999))
    assert page == ["ok", 1, [4], [[*_last(store)]], False, False]


def _last(store: Any) -> tuple[int, str, str]:
    return tuple(call(store, library.read(ROOM, "e1", 3, 4, limit=9, most=9999))[2][0])


def test_a_stream_that_is_gone_is_a_log_that_was_trimmed_whole(store: Any) -> None:
    opened(store)
    append(store, *map(draft, "abc"))
    store.delete(ROOM.stream)
    assert call(store, library.read(ROOM, "e1", 0, 3, limit=9, most=9999)) == ["trimmed", 4]
    assert append(store, draft("d"), known=3)[2] == [4]
    assert call(store, library.read(ROOM, "e1", 0, 4, limit=9, most=9999)) == ["trimmed", 4]


def test_a_meta_hash_that_is_gone_is_a_new_epoch_and_ids_go_on(store: Any) -> None:
    opened(store)
    append(store, *map(draft, "abc"), keep=2)
    store.delete(ROOM.meta)
    assert append(store, draft("d"), known=3) == ["missing"]
    assert call(store, library.renew(ROOM, "e1", "e2")) == ["ok", "e2", 3]
    assert call(store, library.renew(ROOM, "e1", "e3")) == ["ok", "e2", 3]
    assert opened(store)[1:4] == ["e2", 3, 2]
    assert append(store, draft("d"), epoch="e2", known=3)[2] == [4]


def test_reading_in_another_epoch_is_refused(store: Any) -> None:
    opened(store)
    assert call(store, library.read(ROOM, "e0", 0, 1, limit=9, most=9999)) == ["replaced", "e1", 0]
    assert call(store, library.history(ROOM, "e0", None, None, 1, limit=9, most=9999)) == [
        "replaced",
        "e1",
        0,
    ]
    store.delete(ROOM.meta)
    assert call(store, library.read(ROOM, "e1", 0, 1, limit=9, most=9999)) == ["missing"]


def test_more_than_a_step_is_read_in_both_directions(store: Any) -> None:
    opened(store)
    append(store, *[draft(str(number)) for number in range(1, 171)])
    everything = [str(number) for number in range(1, 171)]
    assert texts(call(store, library.read(ROOM, "e1", 0, 999, limit=999, most=9999))[2]) == everything
    status, first, ids, found, more, go_on = call(
        store, library.history(ROOM, "e1", None, None, 170, limit=120, most=9999)
    )
    assert (status, first, more, go_on) == ("ok", 1, True, False)
    assert (ids, texts(found)) == ([*range(170, 50, -1)], everything[:49:-1])


# Giving up what is old


def test_the_newest_are_kept_with_their_cids(store: Any) -> None:
    opened(store)
    assert append(store, *[draft(str(n), str(n)) for n in range(1, 6)], keep=2)[:3] == [
        "ok",
        4,
        [1, 2, 3, 4, 5],
    ]
    assert store.hgetall(ROOM.cids) == {b"": b"", b"ann\x004": b"4", b"ann\x005": b"5"}
    assert store.xlen(ROOM.stream) == 2
    assert call(store, library.read(ROOM, "e1", 2, 5, limit=9, most=9999)) == ["trimmed", 4]
    assert append(store, draft("1", "1"), known=5, keep=2)[2] == [6]


def test_the_old_go_a_bounded_number_at_a_time(store: Any) -> None:
    opened(store)
    for start in range(0, 500, 250):
        append(store, *[draft("x", str(start + n)) for n in range(250)], known=start)
    old = context(seconds=0.001)
    assert call(store, library.prune(ROOM, old)) == ["ok", 201, True]
    assert call(store, library.prune(ROOM, old)) == ["ok", 401, True]
    assert call(store, library.prune(ROOM, old)) == ["ok", 501, False]
    assert call(store, library.prune(ROOM, context(seconds=60))) == ["ok", 501, False]
    assert (store.hkeys(ROOM.cids), store.xlen(ROOM.stream)) == ([b""], 0)
    assert append(store, draft("x"), known=500)[2] == [501]


def lives(store: Any) -> tuple[int, int]:
    """For how many seconds a room's place and presence are kept; -1 is without limit, -2 not at all."""
    return store.ttl(ROOM.meta), store.ttl(ROOM.presence)


def test_a_room_in_which_nothing_was_said_goes_when_nobody_is_there(store: Any) -> None:
    opened(store)
    call(store, library.attend(ROOM, context(), 1, ["ann"], []))
    call(store, library.forget(ROOM))
    assert all(3000 < seconds <= 3600 for seconds in lives(store))
    call(store, library.attend(ROOM, context(), 2, [], ["ann"]))
    call(store, library.forget(ROOM))
    assert all(0 < seconds <= 60 for seconds in lives(store))
    opened(store)
    assert all(3000 < seconds <= 3600 for seconds in lives(store))
    append(store, draft("a"))
    assert lives(store) == (-1, -1)
    call(store, library.forget(ROOM))
    assert lives(store) == (-1, -1)


def test_a_room_in_which_nothing_was_said_outlives_its_nodes_by_an_hour(store: Any) -> None:
    """The nodes may have died, and then none of them says that the room isn't used any more."""
    assert call(store, library.keep(ROOM)) == ["ok"]
    assert lives(store) == (-2, -2)
    opened(store)
    for holds in (
        library.attend(ROOM, context(), 1, ["ann"], []),
        library.state(ROOM, context(), 2, ["ann", "bob"]),
        library.open_room(ROOM, "e2"),
        library.keep(ROOM),
    ):
        for key in (ROOM.meta, ROOM.presence):
            store.expire(key, 5)
        call(store, holds)
        assert all(3000 < seconds <= 3600 for seconds in lives(store))
    append(store, draft("a"))
    for number, told in ((3, library.keep(ROOM)), (4, library.open_room(ROOM, "e2"))):
        call(store, told)
        call(store, library.attend(ROOM, context(), number, [f"cy{number}"], []))
        assert lives(store) == (-1, -1)


# Who is there


def test_presence_is_the_union_of_nodes_and_each_change_has_a_version(store: Any, listener: Listener) -> None:
    opened(store)
    n1, n2 = context("n1"), context("n2")
    status, epoch, last, version, told = call(store, library.attend(ROOM, n1, 1, ["ann", "bob"], []))
    assert (status, epoch, last, version) == ("ok", "e1", 0, 1)
    assert told == ['p n1 e1 1 0\n[[["ann",1],["bob",1]],{}]']
    call(store, library.attend(ROOM, n2, 1, ["ann"], []))
    call(store, library.attend(ROOM, n1, 2, ["bob"], ["ann", "zoe"]))
    call(store, library.attend(ROOM, n2, 2, [], ["ann"]))
    assert listener.read() == [
        (["p", "n1", "e1", "1", "0"], [[["ann", 1], ["bob", 1]], {}]),
        (["p", "n2", "e1", "2", "0"], [[["ann", 2]], {}]),
        (["p", "n1", "e1", "3", "0"], [{}, [["ann", 1]]]),
        (["p", "n2", "e1", "4", "0"], [{}, [["ann", 0]]]),
    ]
    assert opened(store) == ["ok", "e1", 0, 1, 4, {"n1": ["bob"], "n2": {}}, 0, {}]


def test_what_comes_late_is_ignored(store: Any) -> None:
    opened(store)
    assert call(store, library.attend(ROOM, context(), 2, ["ann"], []))[0] == "ok"
    assert call(store, library.attend(ROOM, context(), 2, ["bob"], [])) == ["late"]
    assert call(store, library.state(ROOM, context(), 1, [])) == ["late"]
    assert call(store, library.who(ROOM)) == ["ok", "e1", 0, 1, {"n1": ["ann"]}]


def test_a_node_states_all_its_names_and_the_difference_is_told(store: Any) -> None:
    opened(store)
    call(store, library.attend(ROOM, context(), 1, ["ann", "bob"], []))
    reply = call(store, library.state(ROOM, context(), 2, ["bob", "cy"]))
    assert reply == ["ok", "e1", 0, 2, ['p n1 e1 2 0\n[[["cy",1]],[["ann",0]]]']]
    assert call(store, library.state(ROOM, context(), 3, ["bob", "cy"])) == ["ok", "e1", 0, 2, {}]


def test_the_names_of_dead_nodes_go_once(store: Any) -> None:
    opened(store)
    call(store, library.attend(ROOM, context("n2"), 1, ["ann", "bob"], []))
    call(store, library.attend(ROOM, context("n1"), 1, ["bob"], []))
    status, _, _, version, told = call(store, library.reap(ROOM, context("n1"), ["n2", "n3"]))
    assert (status, version) == ("ok", 3)
    assert len(told) == 1
    assert told[0].startswith("p n2 e1 3 0\n")
    assert {tuple(each) for each in json.loads(told[0].partition("\n")[2])[1]} == {("ann", 0), ("bob", 1)}
    assert call(store, library.reap(ROOM, context("n1"), ["n2"]))[4] == {}
    assert call(store, library.who(ROOM))[4] == {"n1": ["bob"]}


def test_presence_in_a_room_that_is_gone_says_so(store: Any) -> None:
    assert call(store, library.attend(ROOM, context(), 1, ["ann"], [])) == ["missing"]
    assert call(store, library.state(ROOM, context(), 1, ["ann"])) == ["missing"]
    assert call(store, library.who(ROOM)) == ["missing"]
    assert call(store, library.reap(ROOM, context(), ["n2"])) == ["missing"]
    assert store.keys("*") == []


# Leases and heads


def test_a_lease_is_held_or_broken(store: Any) -> None:
    _, now, held, leases = call(store, library.lease("chat:nodes", "n1 a", 20))
    assert (held, leases) == (False, [["n1 a", now + 20_000]])
    _, now, held, leases = call(store, library.lease("chat:nodes", "n1 a", 0.001))
    assert (held, leases) == (True, [["n1 a", now + 1]])
    while not (ended := call(store, library.lease("chat:nodes", "n2 b", 20)))[1] > leases[0][1]:
        pass
    assert [line for line, _ in ended[3]] == ["n1 a", "n2 b"]
    assert call(store, library.lease("chat:nodes", "n1 a", 20))[2] is False


def test_summaries_of_many_rooms(store: Any) -> None:
    opened(store)
    ts = append(store, draft("a"), draft("b"))[3]
    call(store, library.attend(ROOM, context("n1"), 1, ["ann", "k:x"], []))
    call(store, library.attend(ROOM, context("n2"), 1, ["ann", "bob"], []))
    others = [RoomKeys.of("chat", name) for name in ("other", "empty")]
    call(store, library.open_room(others[1], "e"))
    assert call(store, library.summaries([*others, ROOM])) == ["ok", [False, False, [2, ts, 3]]]
    store.hdel(ROOM.meta, "t")  # as in a store that an older version has copied to
    assert call(store, library.summaries([ROOM])) == ["ok", [[2, ts, 3]]]


def test_heads_of_many_rooms(store: Any) -> None:
    opened(store)
    append(store, draft("a"))
    call(store, library.attend(ROOM, context(), 1, ["ann"], []))
    other = RoomKeys.of("chat", "other")
    assert call(store, library.heads([ROOM.meta, other.meta])) == ["ok", [["e1", 1, 1], False]]


def test_over_its_memory_only_appends_and_the_probe_are_refused(store: Any) -> None:
    opened(store)
    append(store, draft("a"))
    store.config_set("maxmemory", 1)
    try:
        for command in (
            library.append(ROOM, context(), "e1", [draft("b")], known=1, ts=0),
            library.PROBE,
        ):
            with pytest.raises(Exception, match=r"(?i)maxmemory"):
                store.execute_command(*command)
        opened(store)
        call(store, library.read(ROOM, "e1", 0, 1, limit=9, most=9999))
        call(store, library.attend(ROOM, context(), 1, ["ann"], []))
        call(store, library.lease("chat:nodes", "n1", 20))
    finally:
        store.config_set("maxmemory", 0)
    assert call(store, library.PROBE) == ["ok"]


@pytest.mark.parametrize(
    ("room", "escaped"),
    [("a", "chat:{a}"), ("a{b}%", "chat:{a%7Bb%7D%25}"), ("}", "chat:{%7D}"), ("é😀", "chat:{é😀}")],
)
def test_keys_of_a_room_have_one_tag(room: str, escaped: str) -> None:
    keys = RoomKeys.of("chat", room)
    assert keys.channel == escaped
    assert keys.stream == escaped + ":s"
