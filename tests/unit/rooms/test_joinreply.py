"""Where a reader starts: a recovery is whole, or is not called one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatroom.rooms.joinreply import MAX_RECOVERED, Resume, Start, start_of_replay

EPOCH = "e1"


def start(
    since: int | None, epoch: str = EPOCH, *, first_id: int = 1, last_id: int = 100, history: int = 50
) -> Start:
    resume = None if since is None else Resume(since, epoch)
    return start_of_replay(resume, epoch=EPOCH, first_id=first_id, last_id=last_id, history=history)


@pytest.mark.parametrize(
    ("first_id", "last_id", "history", "after"),
    [
        (1, 100, 50, 50),
        (1, 50, 50, 0),
        (1, 49, 50, 0),
        (1, 0, 50, 0),
        (81, 100, 50, 80),  # no more than is kept
        (101, 100, 50, 100),  # all trimmed
        (104, 100, 50, 100),  # and some that the room hasn't shown yet
        (246, 0, 50, 0),
        (1, 100, 0, 100),
        (1, 1000, 500, 500),
    ],
)
def test_who_asks_for_nothing_gets_the_last_ones(
    first_id: int, last_id: int, history: int, after: int
) -> None:
    assert start(None, first_id=first_id, last_id=last_id, history=history) == Start(after, None)


@pytest.mark.parametrize(
    ("since", "keywords", "expected"),
    [
        (98, {}, Start(98, True)),
        (100, {}, Start(100, True)),
        (0, {}, Start(0, True)),
        (0, {"last_id": 0}, Start(0, True)),
        (101, {}, Start(50, False)),  # beyond the end
        (2**63, {}, Start(50, False)),
        (98, {"epoch": "e2"}, Start(50, False)),
        (98, {"epoch": ""}, Start(50, False)),
        (10, {"first_id": 11}, Start(10, True)),
        (9, {"first_id": 11}, Start(50, False)),  # one is missing
        (0, {"first_id": 90}, Start(89, False)),
        (100, {"first_id": 101}, Start(100, True)),  # all trimmed, nothing missed
        (99, {"first_id": 101}, Start(100, False)),
        (0, {"last_id": 500}, Start(0, True)),
        (0, {"last_id": 501}, Start(451, False)),  # too many
        (98, {"history": 0}, Start(98, True)),
    ],
)
def test_a_resume_is_whole_or_it_is_not_recovered(
    since: int, keywords: dict[str, object], expected: Start
) -> None:
    assert start(since, **keywords) == expected  # type: ignore[arg-type]


@given(
    st.integers(0, 1200),
    st.sampled_from([EPOCH, "e2"]),
    st.integers(1, 1100),
    st.integers(0, 1000),
    st.integers(0, 500),
)
@example(500, EPOCH, 501, 1000, 50)
def test_what_is_promised_can_be_given(
    since: int, epoch: str, first_id: int, last_id: int, history: int
) -> None:
    first_id = min(first_id, last_id + 1)
    begin = start(since, epoch, first_id=first_id, last_id=last_id, history=history)
    assert first_id - 1 <= begin.after <= last_id or begin.after == 0 == first_id - 1
    if begin.recovered:
        assert begin.after == since
        assert epoch == EPOCH
        assert last_id - since <= MAX_RECOVERED
    else:
        assert last_id - begin.after <= history
        possible = epoch == EPOCH and first_id - 1 <= since <= last_id and last_id - since <= MAX_RECOVERED
        assert not possible
