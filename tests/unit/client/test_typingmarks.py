"""When typing is told, and how long it is believed."""

from chatroom.client.typingmarks import EVERY, LASTS, RESTS, Marks, OwnTyping


def test_typing_is_told_at_most_every_three_seconds() -> None:
    own = OwnTyping()
    assert [own.changed("x", now) for now in (0, 1, EVERY - 0.1, EVERY, EVERY + 1)] == [
        True,
        None,
        None,
        True,
        None,
    ]


def test_who_empties_the_line_has_stopped() -> None:
    own = OwnTyping()
    assert [own.changed(text, 0) for text in ("x", "", "", "y")] == [True, False, None, True]


def test_who_rests_has_stopped() -> None:
    own = OwnTyping()
    own.changed("x", 0)
    own.changed("xy", 1)
    assert own.due == 1 + RESTS
    assert own.rested(RESTS) is None
    assert own.rested(1 + RESTS) is False
    assert own.due is None
    assert own.rested(2 + RESTS) is None
    assert own.changed("xyz", 3 + RESTS) is True


def test_what_is_said_ends_typing_by_itself() -> None:
    own = OwnTyping()
    own.changed("x", 0)
    own.forget()
    assert own.changed("", 0) is None
    assert own.changed("y", 0.1) is True


def test_a_command_is_typed_for_oneself() -> None:
    own = OwnTyping()
    assert own.changed("/switch ops", 0) is None
    assert own.changed("//etc", 0) is True
    assert own.changed("/", 0) is False
    assert own.changed("/me waves", 0) is True


def test_a_mark_goes_after_six_seconds() -> None:
    marks = Marks()
    marks.told("alice", active=True, now=0)
    marks.told("bob", active=True, now=1)
    assert (marks.names(LASTS - 0.1), marks.due) == (["alice", "bob"], LASTS)
    assert (marks.names(LASTS), marks.due) == (["bob"], LASTS + 1)
    marks.told("bob", active=True, now=LASTS)
    assert marks.names(2 * LASTS - 0.1) == ["bob"]
    assert (marks.names(2 * LASTS), marks.due) == ([], None)


def test_a_mark_goes_when_somebody_stops_or_has_spoken() -> None:
    marks = Marks()
    marks.told("alice", active=True, now=0)
    marks.told("bob", active=True, now=0)
    marks.told("alice", active=False, now=1)
    assert marks.names(1) == ["bob"]
    marks.drop("bob")
    marks.drop("nobody")
    assert marks.names(1) == []
