"""A connection's end is decided once, and carried out at once by whoever listens."""

import pytest

from chatroom.connections.ending import CLIENT_LEFT, FAULT, End, Ending
from chatroom.core.errors import CloseCode, Disconnect
from chatroom.core.statistics import Drop

WHY = Disconnect(CloseCode.POLICY, "flood")
STALLED = Ending(drop=Drop.STALLED, hard=True)


def test_nothing_has_ended_that_nobody_asked_to_end() -> None:
    told: list[Ending] = []
    assert End(told.append).ending is None
    assert told == []


def test_the_first_reason_wins_and_is_told_once() -> None:
    told: list[Ending] = []
    end = End(told.append)
    end.ask(STALLED)
    end.ask(CLIENT_LEFT)
    end.disconnect(WHY)
    assert end.ending is STALLED
    assert told == [STALLED]


def test_an_end_that_was_forgotten_tells_nobody() -> None:
    told: list[Ending] = []
    end = End(told.append)
    end.forget()
    end.disconnect(WHY)
    assert end.ending == Ending(WHY, Drop.POLICY)
    assert told == []


def test_whoever_is_told_may_ask_again_without_going_round_in_circles() -> None:
    ends: list[End] = []
    ends.append(End(lambda _: ends[0].ask(CLIENT_LEFT)))
    ends[0].ask(STALLED)
    assert ends[0].ending is STALLED


def test_a_fault_of_ours_ends_it_and_is_raised_where_somebody_can() -> None:
    told: list[Ending] = []
    end = End(told.append)
    end.raise_fault()
    end.fail(LookupError("ours"))
    assert told == [Ending(FAULT, Drop.INTERNAL_ERROR)]
    with pytest.raises(LookupError, match="ours"):
        end.raise_fault()


@pytest.mark.parametrize("code", [code for code in CloseCode if code != CloseCode.NORMAL])
def test_every_close_of_ours_is_counted_under_its_name(code: CloseCode) -> None:
    end = End(lambda _: None)
    end.disconnect(Disconnect(code, "because"))
    assert end.ending is not None
    assert end.ending.drop == Drop(code.name.lower())
    assert not end.ending.hard
