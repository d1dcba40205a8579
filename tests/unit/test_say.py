"""What `say` prints of each outcome, and how it ends. How it comes to one is in client/test_saying."""

import pytest

from chatroom import say
from chatroom.client.batches import Entry
from chatroom.client.saying import Outcome, Result
from chatroom.core.errors import StartError
from chatroom.say import REFUSED, STORED, UNKNOWN, SaySettings, read_say

Captured = pytest.CaptureFixture[str]
AGAIN = ". The same command again stores nothing twice"


def asked(*arguments: str) -> SaySettings:
    found = read_say(("ws://h", "--room", "ops", *arguments), {"CHATROOM_TOKEN": "t"})
    assert isinstance(found, SaySettings)
    return found


def entries(*found: int | str | None) -> tuple[Entry, ...]:
    """Messages that are stored as a number, refused for a reason, or neither."""
    return tuple(
        Entry(
            "c",
            "hi",
            found if isinstance(found, int) else None,
            "e",
            found if isinstance(found, str) else None,
        )
        for found in found
    )


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(Result.STORED, entries(7)), "stored as 7 in ops"),
        (Outcome(Result.STORED, entries(7, 8)), "stored 2 messages, the last as 8 in ops"),
        (Outcome(Result.STORED, entries(8), forgotten=9), "stored 10 messages, the last as 8 in ops"),
        (Outcome(Result.STORED, entries(7), answer="done\n\x1b[31m3 hosts"), "done\n\\x1b[31m3 hosts"),
    ],
)
def test_what_is_stored_is_said_on_standard_output(outcome: Outcome, said: str, capsys: Captured) -> None:
    assert say._tell(outcome, asked(), "") == STORED
    assert capsys.readouterr() == (f"{said}\n", "")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(Result.REFUSED), "there is nothing to say: standard input is empty"),
        (Outcome(Result.REFUSED, reason="Unauthorized (401)"), "Unauthorized (401)"),
        (Outcome(Result.REFUSED, entries(None), reason="Unauthorized (401)"), "Unauthorized (401)"),
        (Outcome(Result.REFUSED, entries("Not allowed")), "refused: Not allowed"),
        (Outcome(Result.REFUSED, entries("Not\x1b[31m")), "refused: Not\\u001b[31m"),
        (Outcome(Result.REFUSED, entries(7, "no", 8)), "message 2 refused: no; 2 stored"),
        (Outcome(Result.REFUSED, entries("no", "never", 8)), "message 1 refused: no, and 1 more; 1 stored"),
        (
            Outcome(Result.REFUSED, entries(7, "no"), forgotten=100),
            "message 102 refused: no; 101 stored",
        ),
        (
            Outcome(Result.REFUSED, entries(7, "no"), forgotten=100, refused=3, first_refused=(5, "old")),
            "message 5 refused: old, and 3 more; 98 stored",
        ),
    ],
)
def test_what_is_refused_is_said_in_one_line(outcome: Outcome, said: str, capsys: Captured) -> None:
    assert say._tell(outcome, asked(), "") == REFUSED
    assert capsys.readouterr() == ("", f"chatroom: {said}\n")


@pytest.mark.parametrize(
    ("outcome", "wait", "said"),
    [
        (Outcome(Result.UNKNOWN, entries(None)), False, f"it isn't known whether it is stored: late{AGAIN}"),
        (Outcome(Result.UNKNOWN), False, "nothing was said: late"),
        (
            Outcome(Result.UNKNOWN, entries(7, None, None), forgotten=4),
            False,
            f"it isn't known whether 2 of 7 are stored: late{AGAIN}",
        ),
        (Outcome(Result.UNKNOWN, entries(7)), True, "stored as 7, but no answer has matched: late"),
        (
            Outcome(Result.UNKNOWN, entries(7, 8)),
            False,
            "stored 2 messages, the last as 8, but there may be more: late",
        ),
        (Outcome(Result.UNKNOWN, entries("no")), False, "stored 0 messages, but there may be more: late"),
    ],
)
def test_what_is_unknown_is_said_in_one_line(
    outcome: Outcome, wait: bool, said: str, capsys: Captured
) -> None:
    late = Outcome(outcome.result, outcome.entries, outcome.forgotten, reason="late")
    assert say._tell(late, asked(*["--wait", "x"] * wait), "") == UNKNOWN
    assert capsys.readouterr() == ("", f"chatroom: {said}\n")


def test_what_is_stored_but_cannot_be_noted_is_unknown(capsys: Captured) -> None:
    assert say._tell(Outcome(Result.STORED, entries(7)), asked(), "the disk is full") == UNKNOWN
    out, err = capsys.readouterr()
    assert (out, err.startswith("chatroom: stored as 7, but the disk is full. ")) == ("", True)


def test_a_full_outbox_is_said(capsys: Captured) -> None:
    assert say._tell(Outcome(Result.FULL), asked(), "") == UNKNOWN
    assert capsys.readouterr().err.startswith("chatroom: the outbox is full")


def test_lines_are_stripped_and_empty_ones_left_out() -> None:
    assert say._texts([b" a ", b"", b" \t", "é\r".encode()], 0) == ["a", "é"]


def test_a_line_that_is_no_text_is_told_by_its_number() -> None:
    with pytest.raises(StartError, match=r"^line 12 isn't UTF-8 \(byte 2\)"):
        say._texts([b"a", b"b\xff"], 10)
