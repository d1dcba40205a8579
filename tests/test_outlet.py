"""A connection's channel: never full, never lost, and at most one other command under way."""

import pytest
import trio
import trio.testing

from chatroom.pure.frames import text_frame
from chatroom.tasks.ending import End, Ending
from chatroom.tasks.outlet import CAPACITY, MAX_UNANSWERED, Answer, ConnectionOutlet
from chatroom.tasks.stay import Member
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect
from chatroom.values.statistics import Drop


def outlet() -> ConnectionOutlet:
    return ConnectionOutlet(End())


async def test_answers_come_out_in_their_order_as_frames() -> None:
    out = outlet()
    out.answer(b"1")
    out.reply(b"2")
    out.answer(b"3")
    expected = [
        Answer(text_frame(b"1"), False),
        Answer(text_frame(b"2"), True),
        Answer(text_frame(b"3"), False),
    ]
    assert [out.receive_nowait(), await out.receive(), out.receive_nowait()] == expected
    assert out.receive_nowait() is None


async def test_to_be_woken_twice_is_to_be_woken_once_until_it_has_been_heard() -> None:
    out = outlet()
    for _ in range(2):
        for _ in range(CAPACITY + 1):
            out.wake()
        assert await out.receive() is None
        out.woken()
    assert out.receive_nowait() is None


async def test_an_answer_behind_a_wake_up_is_found_without_waiting() -> None:
    out = outlet()
    out.wake()
    out.answer(b"1")
    assert out.receive_nowait() == Answer(text_frame(b"1"), False)
    out.wake()
    assert out.receive_nowait() is None
    out.wake()  # and the wake-ups that were passed over are not remembered
    assert await out.receive() is None


def test_the_channel_has_place_for_all_that_can_be_under_way() -> None:
    out = outlet()
    for _ in range(MAX_UNANSWERED):
        out.answer(b"x")
    out.reply(b"x")
    out.wake()


def test_past_that_the_connection_ends_and_the_broker_does_not() -> None:
    end = End()
    out = ConnectionOutlet(end)
    for _ in range(CAPACITY):
        out.answer(b"x")
    assert end.ending is None
    out.reply(b"x")
    assert end.ending == Ending(drop=Drop.INTERNAL_ERROR, hard=True)


async def test_a_further_message_waits_until_fewer_are_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out = outlet()
    member = Member("alice", out)
    await out.wait_room(member)
    member.outstanding = MAX_UNANSWERED - 1
    await out.wait_room(member)
    out.answer(b"x")
    with trio.move_on_after(1) as scope:
        await out.wait_room(member)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.wait_room, member)
        await trio.testing.wait_all_tasks_blocked()
        out.settled()  # but nothing has changed: it looks again, and waits on
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        member.outstanding -= 1
        out.settled()
    async with trio.open_nursery() as nursery:
        member.outstanding += 1
        nursery.start_soon(out.wait_room, member)
        await trio.testing.wait_all_tasks_blocked()
        answer = out.receive_nowait()
        assert answer is not None
        out.handed(answer)


@pytest.mark.parametrize("how", ["reply", "opened"])
async def test_the_answer_to_the_other_command_is_known_when_it_is_handed_on(how: str) -> None:
    out = outlet()
    replied = out.expect_reply()
    out.answer(b"of a message")
    answer = out.receive_nowait()
    assert answer is not None
    out.handed(answer)
    assert not replied.is_set()
    if how == "reply":
        out.reply(b"of the command")
        answer = out.receive_nowait()
        assert answer is not None
        assert not replied.is_set()
        out.handed(answer)
    else:
        out.opened()
    assert replied.is_set()
    assert not out.expect_reply().is_set()


def test_an_opening_that_nobody_waits_for_is_no_trouble() -> None:
    out = outlet()
    out.opened()
    out.settled()


def test_the_broker_may_ask_for_the_end() -> None:
    end = End()
    ConnectionOutlet(end).end(Disconnect(CloseCode.INTERNAL_ERROR, "no log"))
    assert end.ending is not None
    assert end.ending.disconnect is not None
    assert end.ending.disconnect.code == CloseCode.INTERNAL_ERROR
