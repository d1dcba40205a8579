"""Drafts: their order, when each is sent and sent again, and what settles it."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.events import Settled
from chatroom.client.frames import RECORDS, Frame, command
from chatroom.client.outbox import REPLACED, RETRY_SECONDS, TOO_LARGE, Draft, Outbox


def outbox(*cids: str, room: str = "r") -> Outbox:
    found = Outbox()
    for cid in cids:
        add(found, cid, room)
    return found


def add(found: Outbox, cid: str, room: str = "r", text: str = "hi") -> None:
    found.add(Draft(cid, room, "message", {"text": text}))


def sent(found: Outbox, now: float = 0.0, room: str = "r", largest: int | None = None) -> list[Any]:
    """The `cid`s of what is sent, and what is settled."""
    return cids(found.next(room, now, largest))


def cids(found: Iterable[str | Settled]) -> list[Any]:
    return [json.loads(each)["cid"] if isinstance(each, str) else each for each in found]


def echo(cid: str | None, number: int = 7, author: str = "alice", room: str = "r") -> Frame:
    return Frame("message", {"username": author, "text": "hi"}, {"id": number, "room": room, "cid": cid})


def answer(event: str, cid: str | None, data: dict[str, Any] | None = None, **beside: Any) -> Frame:
    return Frame(event, data or {}, {"cid": cid, **beside})


UNAVAILABLE = answer("error", "a", {"message": "Not known"}, code="unavailable")


# Sending


def test_a_draft_is_sent_as_a_command_with_its_cid() -> None:
    found = outbox("a")
    (text,) = found.next("r", 0.0, None)
    assert text == command("message", {"text": "hi"}, "a")


def test_one_is_under_way_at_a_time_and_they_go_in_their_order() -> None:
    found = outbox("a", "b", "c")
    order = []
    for number in range(3):
        (cid,) = sent(found)
        assert sent(found) == []
        assert found.due("r") is None
        order.append(cid)
        assert found.recorded(echo(cid, number), number, "alice") == Settled(cid, number)
    assert order == ["a", "b", "c"]
    assert (len(found), sent(found), found.due("r")) == (0, [], None)


def test_each_one_counts_until_it_is_settled() -> None:
    found = outbox("a", "b")
    sent(found)
    assert (len(found), found.owns("a"), found.owns("x"), found.owns(None)) == (2, True, False, False)
    found.answered(answer("ack", "a"), 0.0)
    assert (len(found), found.owns("a")) == (1, False)


def test_what_was_under_way_is_sent_again_after_a_loss() -> None:
    found = outbox("a", "b")
    assert sent(found) == ["a"]
    found.lost()
    assert found.due("r") == 0.0
    assert sent(found) == ["a"]


def test_a_draft_is_sent_in_its_room_only_and_none_before_an_earlier_one() -> None:
    found = outbox("a", room="ops")
    add(found, "b", "r")
    assert (sent(found), found.due("r"), found.waits_for("r"), found.waits_for("ops")) == (
        [],
        None,
        False,
        True,
    )
    assert sent(found, room="ops") == ["a"]
    found.answered(answer("ack", "a"), 0.0)
    assert sent(found, room="ops") == []
    assert sent(found) == ["b"]


def test_many_drafts_take_linear_time() -> None:
    """Each time the first one is looked for; among 100,000 that would take minutes."""
    found = outbox(*map(str, range(100_000)))
    for number in range(100_000):
        assert sent(found) == [str(number)]
        assert found.answered(answer("ack", str(number)), 0.0) is not None
    assert len(found) == 0


# Settled


def test_a_record_of_somebody_else_in_another_room_or_with_a_foreign_cid_settles_nothing() -> None:
    found = outbox("a")
    sent(found)
    frames = (echo("a", author="bob"), echo("a", room="ops"), echo("x"), echo(None), echo(""))
    assert [found.recorded(frame, 7, "alice") for frame in frames] == [None] * 5
    assert len(found) == 1
    assert sent(found) == []


@pytest.mark.parametrize("event", sorted(RECORDS - {"message"}))
def test_a_record_is_of_whose_command_it_was(event: str) -> None:
    found = outbox("a")
    frame = Frame(event, {"username": "bob", "by": "alice"}, {"id": 7, "room": "r", "cid": "a"})
    assert found.recorded(frame, 7, "bob") is None
    assert found.recorded(frame, 7, "alice") == Settled("a", 7)


def test_a_replayed_record_settles_what_is_not_under_way() -> None:
    found = outbox("a", "b")
    sent(found)
    found.lost()
    assert found.recorded(echo("b", 8), 8, "alice") == Settled("b", 8)
    assert found.recorded(echo("a", 7), 7, "alice") == Settled("a", 7)
    assert sent(found) == []


def test_what_settles_another_one_leaves_one_under_way() -> None:
    found = outbox("a", "b", "c")
    sent(found)
    assert found.recorded(echo("b"), 7, "alice") is not None
    assert found.answered(answer("ack", "c"), 0.0) is not None
    assert sent(found) == []


@pytest.mark.parametrize(
    ("data", "settled"),
    [
        ({"id": 7, "duplicate": True}, Settled("a", 7, duplicate=True)),
        ({"id": 7}, Settled("a", 7)),
        ({}, Settled("a")),
        ({"id": "7", "duplicate": 1}, Settled("a")),
        ({"id": True}, Settled("a")),
    ],
)
def test_an_ack(data: dict[str, Any], settled: Settled) -> None:
    found = outbox("a", "b")
    sent(found)
    assert found.answered(answer("ack", "a", data), 0.0) == settled
    assert sent(found) == ["b"]


def test_an_error_settles_by_its_sentence() -> None:
    found = outbox("a", "b")
    sent(found)
    error = answer("error", "a", {"message": "Not allowed in this room"}, code="forbidden")
    assert found.answered(error, 5.0) == Settled("a", error="Not allowed in this room")
    assert sent(found, 5.0) == ["b"]


def test_an_answer_to_something_else_settles_nothing() -> None:
    found = outbox("a")
    sent(found)
    assert found.answered(answer("ack", "x"), 0.0) is None
    assert found.answered(answer("error", None, code="bad_json"), 0.0) is None
    assert found.answered(echo("a"), 0.0) is None
    assert len(found) == 1


def test_nothing_is_settled_twice() -> None:
    found = outbox("a")
    sent(found)
    assert found.recorded(echo("a"), 7, "alice") is not None
    assert found.recorded(echo("a"), 7, "alice") is None
    assert found.answered(answer("ack", "a"), 0.0) is None


# Unavailable


def test_after_unavailable_the_same_one_is_sent_again_a_moment_later() -> None:
    found = outbox("a", "b")
    assert sent(found, 5.0) == ["a"]
    assert found.answered(UNAVAILABLE, 6.0) is None
    assert found.due("r") == 6.0 + RETRY_SECONDS
    assert sent(found, 5.9 + RETRY_SECONDS) == []
    assert sent(found, 6.0 + RETRY_SECONDS) == ["a"]


def test_the_moment_is_waited_for_over_a_loss() -> None:
    found = outbox("a")
    sent(found)
    found.answered(UNAVAILABLE, 6.0)
    found.lost()
    assert sent(found, 6.5) == []
    assert sent(found, 7.0) == ["a"]


def test_a_record_settles_what_waits_for_its_moment() -> None:
    found = outbox("a")
    sent(found)
    found.answered(UNAVAILABLE, 6.0)
    assert found.recorded(echo("a"), 7, "alice") == Settled("a", 7)
    assert found.due("r") is None


def test_unavailable_for_one_that_is_not_under_way_changes_nothing() -> None:
    found = outbox("b", "a")
    assert sent(found) == ["b"]
    assert found.answered(UNAVAILABLE, 6.0) is None
    assert sent(found, 60.0) == []
    found.answered(answer("ack", "b"), 6.0)
    assert sent(found, 6.0) == ["a"]


# Too large


def test_what_is_larger_than_the_server_takes_is_refused_and_the_next_one_is_sent() -> None:
    found = outbox()
    add(found, "a", text="x" * 100)
    add(found, "b", text="y" * 100)
    add(found, "c")
    assert sent(found, largest=100) == [
        Settled("a", error=TOO_LARGE),
        Settled("b", error=TOO_LARGE),
        "c",
    ]
    assert len(found) == 1


@pytest.mark.parametrize("text", ["x", "é", "\U0001f600", '"', "\x00"])
def test_what_counts_are_the_bytes_of_the_frame(text: str) -> None:
    bytes_of_it = len(command("message", {"text": text}, "a").encode())
    for largest, expected in ((bytes_of_it, "a"), (bytes_of_it - 1, Settled("a", error=TOO_LARGE))):
        found = outbox()
        add(found, "a", text=text)
        assert sent(found, largest=largest) == [expected]


def test_after_1009_the_one_under_way_was_it() -> None:
    found = outbox("a", "b")
    assert found.too_large() is None
    sent(found)
    assert found.too_large() == Settled("a", error=TOO_LARGE)
    assert found.too_large() is None
    assert sent(found) == ["b"]


# Rooms


def test_what_was_to_be_said_next_in_a_room_is_refused_with_it() -> None:
    found = outbox("a", "b", room="ops")
    add(found, "c", "r")
    add(found, "d", "ops")
    refused = list(found.refuse("ops", "no"))
    assert refused == [Settled("a", error="no"), Settled("b", error="no")]
    assert list(found.refuse("ops", "no")) == []
    assert sent(found) == ["c"]
    assert len(found) == 2


def test_a_room_is_renamed_in_all_its_drafts() -> None:
    found = outbox("a", room="Ops")
    add(found, "b", "r")
    add(found, "c", "Ops")
    found.rename("Ops", "ops")
    assert sent(found, room="ops") == ["a"]
    assert found.recorded(echo("a", room="ops"), 7, "alice") is not None
    assert sent(found, room="r") == ["b"]
    found.answered(answer("ack", "b"), 0.0)
    assert sent(found, room="ops") == ["c"]


# Any order of things


@given(st.lists(st.sampled_from(("add", "send", "lost", "echo", "ack", "unavailable", "wait")), max_size=60))
def test_each_draft_is_settled_once_and_sent_in_its_order(steps: list[str]) -> None:
    found, now, added, settled = Outbox(), 0.0, 0, []
    under_way: str | None = None
    for step in [*steps, *["lost", "wait", "send", "ack"] * 60]:
        answered = None
        if step == "add":
            add(found, str(added))
            added += 1
        elif step == "send":
            texts = sent(found, now)
            assert len(texts) <= (under_way is None)
            if texts:
                (under_way,) = texts
                assert under_way == str(len(settled)), "the first one that isn't settled"
        elif step == "lost":
            found.lost()
            under_way = None
        elif step == "wait":
            now += RETRY_SECONDS
        elif under_way is not None:
            if step == "echo":
                answered = found.recorded(echo(under_way), 7, "alice")
            elif step == "ack":
                answered = found.answered(answer("ack", under_way), now)
            else:
                found.answered(answer("error", under_way, code="unavailable"), now)
            under_way = None
        settled += [] if answered is None else [answered.cid]
    assert settled == [str(number) for number in range(added)]


def test_what_means_a_message_of_a_history_that_is_replaced_is_refused() -> None:
    found = outbox("said")
    for cid, room in (("here", "r"), ("there", "other")):
        found.add(Draft(cid, room, "delete", {"id": 5}))
    assert list(found.replaced("r")) == [Settled("here", error=REPLACED)]
    assert sent(found) == ["said"]
    found.answered(answer("ack", "said", {"id": 1}), 0.0)
    assert sent(found, room="other") == ["there"]
