"""What is held back until a message has been shown."""

import math

import pytest

from chatroom.core.messages import Head, Message
from chatroom.rooms.acknowledgements import DeferredActions
from chatroom.rooms.ring import RingBudget
from chatroom.rooms.room import Room


class Stage:
    def __init__(self) -> None:
        self.room = Room("r", Head("e", 0), RingBudget(1 << 20))
        self.deferred = DeferredActions()
        self.done: list[tuple[str, bool]] = []

    def hold(self, name: str, after: int, deadline: float = 10) -> None:
        self.deferred.put(self.room, after, deadline, lambda shown: self.done.append((name, shown)))

    def show(self, last_id: int) -> None:
        while self.room.head < last_id:
            self.room.show(Message(self.room.head + 1, 1, "alice", "hi", None))
            self.deferred.shown(self.room)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_what_needs_nothing_that_is_missing_is_done_at_once(stage: Stage) -> None:
    stage.hold("now", 0)
    assert stage.done == [("now", True)]
    assert not stage.deferred.rooms


def test_what_waits_is_done_in_the_order_of_its_places(stage: Stage) -> None:
    stage.hold("third", 2)
    stage.hold("first", 1)
    stage.hold("second", 1)
    assert (stage.done, bool(stage.deferred.rooms)) == ([], True)
    stage.show(1)
    assert stage.done == [("first", True), ("second", True)]
    stage.show(2)
    assert stage.done[2:] == [("third", True)]
    assert not stage.deferred.rooms


def test_nothing_waits_past_its_deadline(stage: Stage) -> None:
    assert stage.deferred.due == math.inf
    stage.hold("late", 5, deadline=1)
    stage.hold("later", 4, deadline=2)
    assert stage.deferred.due == 1
    stage.deferred.expire(0.5)
    assert stage.done == []
    stage.deferred.expire(1)
    assert stage.done == [("late", False)]
    stage.show(4)
    assert stage.done[1:] == [("later", True)]
    assert stage.deferred.due == math.inf


def test_a_room_that_is_given_up_has_all_done_without(stage: Stage) -> None:
    stage.hold("second", 3)
    stage.hold("first", 2)
    stage.deferred.give_up(stage.room)
    assert stage.done == [("first", False), ("second", False)]
    assert not stage.deferred.rooms
