"""The walk through choices by the Tab key."""

from chatroom.client.completing import Completing
from chatroom.client.screen import Completions


def among(*names: str) -> Completing:
    def find(before: str) -> Completions:
        start = before.rfind(" ") + 1
        return Completions(start, tuple(name for name in names if name.startswith(before[start:])))

    return Completing(find)


def walk(completing: Completing, before: str, *, backwards: bool = False) -> str:
    made = completing.press(before, backwards=backwards)
    assert made is not None
    return made


def test_a_single_choice_is_done() -> None:
    completing = among("alice", "bob")
    assert walk(completing, "hi al") == "hi alice "
    assert completing.shown("hi alice ") == ((), 0)


def test_several_choices_come_one_after_the_other_and_around() -> None:
    completing = among("alice", "albert", "bob")
    line = "hi al"
    made = [line := walk(completing, line) for _ in range(3)]
    assert made == ["hi alice", "hi albert", "hi alice"]
    assert completing.shown("hi alice") == (("alice", "albert"), 0)


def test_the_walk_goes_backwards() -> None:
    completing = among("a1", "a2", "a3")
    line = "a"
    made = [line := walk(completing, line, backwards=True) for _ in range(4)]
    assert made == ["a3", "a2", "a1", "a3"]
    assert walk(completing, "a3") == "a1"


def test_another_line_begins_another_walk() -> None:
    completing = among("alice", "albert", "bob")
    assert walk(completing, "al") == "alice"
    assert completing.shown("alice!") == ((), 0)
    assert walk(completing, "alice b") == "alice bob "


def test_without_a_choice_nothing_changes() -> None:
    completing = among("alice")
    assert completing.press("x") is None
    assert completing.shown("x") == ((), 0)
