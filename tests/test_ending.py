"""A connection's end is decided once, and carried out at once by whoever listens."""

import pytest

from chatroom.tasks.ending import CLIENT_LEFT, End, Ending
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect
from chatroom.values.statistics import Drop

WHY = Disconnect(CloseCode.POLICY, "flood")
STALLED = Ending(drop=Drop.STALLED, hard=True)


def test_nothing_has_ended_that_nobody_asked_to_end() -> None:
    told: list[Ending] = []
    end = End()
    end.listen(told.append)
    assert end.ending is None
    assert told == []


def test_the_first_reason_wins_and_is_told_once() -> None:
    told: list[Ending] = []
    end = End()
    end.listen(told.append)
    end.ask(STALLED)
    end.ask(CLIENT_LEFT)
    end.disconnect(WHY)
    assert end.ending is STALLED
    assert told == [STALLED]


def test_a_reason_from_before_anybody_listened_is_told_then() -> None:
    told: list[Ending] = []
    end = End()
    end.disconnect(WHY)
    end.ask(STALLED)
    end.listen(told.append)
    assert told == [Ending(WHY, Drop.POLICY)]


def test_whoever_listens_may_ask_again_without_going_round_in_circles() -> None:
    end = End()
    end.listen(lambda _: end.ask(CLIENT_LEFT))
    end.ask(STALLED)
    assert end.ending is STALLED


@pytest.mark.parametrize("code", [code for code in CloseCode if code != CloseCode.NORMAL])
def test_every_close_of_ours_is_counted_under_its_name(code: CloseCode) -> None:
    end = End()
    end.disconnect(Disconnect(code, "because"))
    assert end.ending is not None
    assert end.ending.drop == Drop(code.name.lower())
    assert not end.ending.hard
