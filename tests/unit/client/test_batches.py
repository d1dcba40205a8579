"""An outbox as lines: what is read of it, however it was cut, and which command is tried again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.batches import (
    KEPT_SECONDS,
    Batch,
    Entry,
    Recognizer,
    batch_line,
    end_line,
    entry_line,
    head_line,
    lines_of,
    read_batches,
    settled_line,
)
from tests.unit.client.test_frames import json_values

NOW = 1_764_000_000


def batch(*texts: str, name: str = "b", settled: bool = False, time: int = NOW) -> Batch:
    entries = [Entry(f"{name}-{number}", text) for number, text in enumerate(texts)]
    if settled:
        for number, entry in enumerate(entries, 1):
            entry.id, entry.epoch = number, "e"
    return Batch(name, time, entries)


def recognized(batches: list[Batch], *texts: str) -> Batch | None:
    found = Recognizer(batches)
    for text in texts:
        found.give(text)
    return found.batch()


@st.composite
def outboxes(draw: st.DrawFn) -> list[Batch]:
    """Batches as commands leave them."""
    texts = st.text(st.characters(codec="utf-8"), max_size=5)
    found = []
    for number in range(draw(st.integers(0, 4))):
        made = batch(*draw(st.lists(texts, min_size=1, max_size=4)), name=f"b{number}")
        made.ended, made.sent = draw(st.booleans()), draw(st.booleans())
        for entry in made.entries:
            what = draw(st.sampled_from(("waits", "stored", "refused")))
            if what == "stored":
                entry.id, entry.epoch = draw(st.integers(0, 2**53 - 1)), draw(texts)
            elif what == "refused":
                entry.error = draw(texts)
        found.append(made)
    return found


# Lines


def test_the_lines_of_an_outbox() -> None:
    made = batch("hi\n\u2028\U0001f600", "no", name="b1")
    made.ended = made.sent = True
    made.entries[0].id, made.entries[0].epoch = 1843, "e"
    made.entries[1].error = "Not allowed"
    assert [json.loads(line) for line in (head_line("wss://h", "ops", "ci"), *lines_of(made))] == [
        {"outbox": 1, "url": "wss://h", "room": "ops", "whose": "ci"},
        {"batch": "b1", "time": NOW},
        {"batch": "b1", "cid": "b1-0", "text": "hi\n\u2028\U0001f600"},
        {"batch": "b1", "cid": "b1-1", "text": "no"},
        {"batch": "b1", "sent": True},
        {"batch": "b1", "end": True},
        {"cid": "b1-0", "id": 1843, "epoch": "e", "time": NOW},
        {"cid": "b1-1", "error": "Not allowed", "time": NOW},
    ]


@given(outboxes())
def test_what_is_written_is_read(batches: list[Batch]) -> None:
    lines = [line for each in batches for line in lines_of(each)]
    assert all(line.endswith("\n") and line[:-1].isascii() and "\n" not in line[:-1] for line in lines)
    assert read_batches([head_line("u", "r", "n"), *lines], NOW) == batches


@given(outboxes(), st.data())
def test_of_an_outbox_that_was_cut_all_whole_lines_are_read(
    batches: list[Batch], data: st.DataObject
) -> None:
    lines = [head_line("u", "r", "n"), *(line for each in batches for line in lines_of(each))]
    whole = "".join(lines)
    *before, last = whole[: data.draw(st.integers(0, len(whole)))].split("\n")
    if lines[len(before) :] and last == lines[len(before)].rstrip("\n"):
        before.append(last)  # nothing but its end is missing
    assert read_batches([*before, last], NOW) == read_batches(lines[: len(before)], NOW)


@given(st.lists(json_values().map(json.dumps) | st.text() | outboxes().map(str), max_size=8))
def test_whatever_is_in_an_outbox_is_read_without_an_error(lines: list[str]) -> None:
    read_batches(lines, NOW)


@pytest.mark.parametrize(
    "line",
    [
        '{"batch":"x","cid":"c","text":"of no batch"}',
        '{"batch":"b","cid":"c"}',
        '{"batch":"b","cid":1,"text":"a"}',
        '{"batch":"b","cid":"c","text":1}',
        '{"batch":"b","end":1}',
        '{"batch":"b","sent":1}',
        '{"batch":"x","sent":true}',
        '{"batch":"x","end":true}',
        '{"cid":"unknown","id":1,"epoch":"e","time":1}',
        '{"cid":"b-0","id":1,"epoch":"e"}',
        '{"batch":"x","time":-1}',
        "[" * 100_000,
        '{"batch":"b","cid":"c","text":"cut off',
        "null",
    ],
)
def test_a_line_that_makes_no_sense_counts_for_nothing(line: str) -> None:
    made = batch("hi")
    assert read_batches([*lines_of(made), line], NOW) == [made]


def test_a_batch_without_a_message_counts_for_nothing() -> None:
    assert read_batches([batch_line(batch()), end_line(batch())], NOW) == []


def test_what_is_settled_counts_for_a_while() -> None:
    made = batch("hi", settled=True, time=NOW - KEPT_SECONDS)
    assert read_batches(lines_of(made), NOW) == [made]
    assert read_batches(lines_of(made), NOW + 1) == []


def test_what_is_not_settled_counts_however_old_it_is() -> None:
    made = batch("a", "b", time=1)
    made.entries[0].id = 1
    assert read_batches(lines_of(made), NOW) == [made]


def test_a_command_that_is_still_at_work_says_so_by_its_time() -> None:
    made = batch("hi", settled=True, time=1)
    lines = list(lines_of(made))
    made.time = NOW
    (found,) = read_batches([*lines, batch_line(made)], NOW + KEPT_SECONDS)
    assert found == made


def test_the_time_is_that_of_the_last_change() -> None:
    made = batch("hi", time=1)
    made.entries[0].id, made.entries[0].epoch = 7, "e"
    lines = [batch_line(made), entry_line(made, made.entries[0]), settled_line(made.entries[0], NOW)]
    (found,) = read_batches(lines, NOW + KEPT_SECONDS)
    assert (found.time, found.settled) == (NOW, True)


# What was tried before


def test_a_command_is_one_that_was_tried_before_if_it_begins_with_all_of_it() -> None:
    earlier = batch("a", "b")
    assert recognized([earlier], "a", "b") is earlier
    assert recognized([earlier], "a", "b", "c") is earlier
    assert recognized([earlier], "a") is None
    assert recognized([earlier], "b", "a") is None
    assert recognized([earlier]) is None
    assert recognized([]) is None


def test_the_longest_one_counts_and_of_equal_ones_the_first() -> None:
    short, first, second, other = batch("a"), batch("a", "b"), batch("a", "b"), batch("a", "c")
    assert recognized([short, first, second, other], "a", "b", "x") is first
    assert recognized([short, first, second, other], "a", "x") is short
    assert recognized([second, short], "a", "b") is second


def test_it_is_decided_when_no_further_text_can_change_it() -> None:
    short, long = batch("a"), batch("a", "b", "c")
    found = Recognizer([short, long, batch("x")])
    assert not found.decided
    found.give("a")
    assert not found.decided, "it may be the long one"
    found.give("z")
    assert found.decided
    assert found.batch() is short


def test_without_an_earlier_one_it_is_decided_at_once() -> None:
    assert Recognizer([]).decided


@given(
    st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), max_size=6),
    st.lists(st.sampled_from("ab"), max_size=6),
)
def test_text_by_text_it_comes_to_what_the_rule_says(earlier: list[list[str]], texts: list[str]) -> None:
    batches = [batch(*each, name=str(number)) for number, each in enumerate(earlier)]
    whole = [each for each in batches if [entry.text for entry in each.entries] == texts[: len(each.entries)]]
    expected: Any = max(whole, key=lambda each: len(each.entries), default=None)
    found = Recognizer(batches)
    decided: Any = "not yet"
    for text in texts:
        if found.decided and decided == "not yet":
            decided = found.batch()
        found.give(text)
    assert found.batch() is expected
    assert decided == "not yet" or decided is expected
