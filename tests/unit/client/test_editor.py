"""The screen where lines are edited, at a real pseudo-terminal."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ROOT, heeding
from tests.support.screen import Screen
from tests.support.terminal import Terminal


def open_editor(*arguments: str, columns: int = 60, rows: int = 12) -> Terminal:
    return Terminal(
        [sys.executable, "-m", "tests.support.at_screen", *(arguments or ("editor",))],
        cwd=str(ROOT),
        columns=columns,
        rows=rows,
    )


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with open_editor() as terminal:
        terminal.wait_for("ready")
        yield terminal


def bottom(*lines: str) -> "object":
    """Whether the screen ends in these lines."""

    def look(screen: Screen) -> bool:
        return screen.lines[-len(lines) :] == list(lines)

    look.__qualname__ = repr(lines)
    return look


def line(terminal: Terminal, text: str) -> None:
    """Wait until this is the line that is edited."""
    terminal.wait_for(lambda screen: len(screen.lines) > 1 and screen.lines[-2] == f"#room> {text}".rstrip())


def test_what_is_typed_is_at_the_bottom_and_what_is_shown_above_it(terminal: Terminal) -> None:
    terminal.press("hi")
    terminal.wait_for(bottom("hello", "#room> hi", "typed 2"))
    terminal.press("\r")
    terminal.wait_for(bottom("hello", "said 'hi'", "#room>", "typed 0"))


def test_what_is_shown_scrolls_away_whole(terminal: Terminal) -> None:
    terminal.press("half a line")
    terminal.press("\x01\x0b!show 30\r\x19")  # begin of the line, cut, the command, put it back
    screen = terminal.wait_for(bottom("line 29 green", "#room> half a line", "typed 11"))
    shown = [each for each in [*screen.scrolled, *screen.lines] if each.startswith("line ")]
    assert shown == [f"line {number} green" for number in range(30)]


@pytest.mark.parametrize(
    ("first", "between", "rest"),
    [
        ("16:00:01 bob: " + "x" * 26, "", "          16:00:02 alice: hi"),
        ("16:00:01 bob: " + "x" * 25, " ", "          16:00:02 alice: hi"),
        ("16:00:01 bob: " + "x" * 19 + " hello", " ", "          you"),
        ("16:00:01 bob: " + "日" * 13, "", "          " + "日" * 7),
        ("    a further line of a text of several", " ", "    lines"),
    ],
)
def test_the_rest_of_a_long_line_is_indented(first: str, between: str, rest: str) -> None:
    with open_editor(columns=40) as terminal:
        terminal.wait_for("ready")
        terminal.press(f"!raw {first}{between}{rest.lstrip()}\r")
        terminal.wait_for(bottom(first, rest, "#room>", "typed 0"))


@pytest.mark.parametrize(
    ("mark", "widest"),
    [("\u093e", 1), ("\u302e", 2), ("\u3164", 2), ("\uffa0", 1), ("\u3248", 2), ("\u2764\ufe0f", 2)],
)
def test_a_row_has_place_for_its_characters_however_wide_a_terminal_takes_them(
    mark: str, widest: int
) -> None:
    with open_editor(columns=40) as terminal:
        terminal.wait_for("ready")
        terminal.press(f"!raw 16:00:01 bob: {mark * 60}16:00:02 alice: I resign\r")
        terminal.wait_for("resign")
        first, *rest = [line for line in terminal.screen.text.split("\n") if "6:" in line or mark in line]
        assert first.startswith("16:00:01 bob: ")
        assert len(rest) >= 60 * widest // 40
        assert all(row.startswith(" " * 10) for row in rest)
        for row in (first, *rest):
            assert len(row.replace(mark, "")) + row.count(mark) * widest <= 40


def test_the_terminal_breaks_no_line_that_is_shown(terminal: Terminal) -> None:
    terminal.press("!raw mark\r")
    terminal.wait_for(bottom("mark", "#room>", "typed 0"))
    before, _, behind = terminal.written.partition(b"mark\r\r\n")
    assert before.endswith(b"\x1b[?7l")
    assert behind.startswith(b"\x1b[?7h")


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(12, ["line 0 green"]), (11, ["line 0", "  green"]), (3, ["lin", "e 0", "gre", "en"])],
)
def test_colours_take_no_columns(columns: int, rows: list[str]) -> None:
    with open_editor(columns=columns) as terminal:
        terminal.wait_for("hel")
        terminal.press("!show 1\r")
        terminal.wait_for(lambda screen: "\n".join(rows) in screen.text)


def test_the_terminal_is_as_before_at_the_end(terminal: Terminal) -> None:
    assert not terminal.is_as_before()
    terminal.press("!go 7\r")
    assert terminal.wait() == 7
    assert terminal.is_as_before()
    assert terminal.screen.lines == ["hello"]
    assert terminal.screen.column == 0


def test_a_program_that_is_done_at_once_leaves_at_once() -> None:
    with open_editor("brief") as terminal:
        assert terminal.wait() == 5
        assert terminal.screen.lines == ["hello"]
        assert terminal.is_as_before()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(terminal: Terminal, number: signal.Signals) -> None:
    terminal.process.send_signal(number)
    assert terminal.wait() == 0
    assert terminal.is_as_before()
    if number == signal.SIGTERM:
        assert "told to stop" in terminal.screen.lines


def test_an_error_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.press("!fail\r")
    assert terminal.wait() == 1
    assert terminal.is_as_before()
    assert "RuntimeError: it failed" in terminal.screen.text


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_at_an_empty_line_control_c_and_d_leave(terminal: Terminal, key: str) -> None:
    terminal.press(key)
    assert terminal.wait() == 0
    assert terminal.is_as_before()
    assert "leaving" in terminal.screen.text


def test_control_c_clears_a_line_first(terminal: Terminal) -> None:
    terminal.press("not this")
    line(terminal, "not this")
    terminal.press("\x03")
    line(terminal, "")
    terminal.press("but this\r")
    terminal.wait_for("said 'but this'")
    assert "not this" not in terminal.screen.text


def test_control_d_in_a_line_deletes_a_character(terminal: Terminal) -> None:
    terminal.press("abc\x01\x04")
    line(terminal, "bc")


def test_a_terminal_that_is_gone_is_the_end() -> None:
    command = f"trap '' HUP; exec {sys.executable} -m tests.support.at_screen editor"
    with Terminal(["sh", "-c", command], cwd=str(ROOT)) as terminal:
        terminal.wait_for("ready")
        terminal.hang_up()
        assert terminal.wait() == 0


def test_keys_edit_the_line(terminal: Terminal) -> None:
    terminal.press("one two three\x17\x17\x1b[D\x1b[D X\x05!\x01>")  # words off, left, insert, end, begin
    line(terminal, ">on Xe !")
    terminal.press("\x15")
    line(terminal, "on Xe !")


def test_history_comes_back_in_the_next_run(tmp_path: Path) -> None:
    path = str(tmp_path / "history")
    with open_editor("editor", path) as terminal:
        terminal.wait_for("ready")
        for text in ("first", "second", "a secret"):
            terminal.press(f"{text}\r")
            terminal.wait_for(f"said '{text}'")
        terminal.press("\x04")
        assert terminal.wait() == 0
    with open_editor("editor", path) as terminal:
        terminal.wait_for("ready")
        terminal.press("\x1b[A")
        line(terminal, "second")
        terminal.press("\x1b[A")
        line(terminal, "first")
        terminal.press("\x1b[B\x1b[B")
        line(terminal, "")
        terminal.press("\x12fir")  # search backwards
        terminal.wait_for("first")
        terminal.press("\r\r")
        terminal.wait_for("said 'first'")
    assert "secret" not in (tmp_path / "history").read_text()


def test_tab_completes_and_walks_through_the_choices(terminal: Terminal) -> None:
    terminal.press("hi al\t")
    terminal.wait_for(bottom("#room> hi alice", "alice  albert"))
    terminal.press("\t")
    terminal.wait_for(bottom("#room> hi albert", "albert  alice"))
    terminal.press("\x1b[Z")
    terminal.wait_for(bottom("#room> hi alice", "alice  albert"))
    terminal.press(" 日\t!")
    line(terminal, "hi alice 日本語 !")
    terminal.press("\r")
    terminal.wait_for(f"said {'hi alice 日本語 !'!a}")


def test_a_paste_of_many_lines_is_one_line_to_be_edited(terminal: Terminal) -> None:
    terminal.press("see: ")
    line(terminal, "see: ")
    terminal.paste("one\ntwo\n  three")
    terminal.wait_for(bottom("#room> see: one", "two", "  three", "typed 20"))
    terminal.press("!\x1b[A\x1b[A\x01>")
    terminal.wait_for(bottom("#room> >see: one", "two", "  three!", "typed 22"))
    terminal.press("\r")
    terminal.wait_for("said '>see: one\\ntwo\\n  three!'")


def test_a_new_line_can_be_typed(terminal: Terminal) -> None:
    terminal.press("one\x1b\rtwo\r")
    terminal.wait_for("said 'one\\ntwo'")


def test_without_marks_of_a_paste_each_line_is_one(terminal: Terminal) -> None:
    terminal.press("one\rtwo\rthree")
    terminal.wait_for("said 'one'")
    terminal.wait_for("said 'two'")
    line(terminal, "three")


def test_wide_characters_and_marks_stand_where_they_belong(terminal: Terminal) -> None:
    terminal.press("日本e\u0301x")
    line(terminal, "日本e\u0301x")
    assert terminal.screen.column == len("#room> ") + 2 * 2 + 2
    terminal.press("\x1b[D\x7f\x7f")
    line(terminal, "日本x")
    terminal.press("\x7f\x7f🙂")
    line(terminal, "🙂x")
    assert terminal.screen.column == len("#room> ") + 2
    terminal.press("\r")
    terminal.wait_for(f"said {'🙂x'!a}")


@pytest.mark.parametrize(
    ("text", "parts", "columns"),
    [
        ("❤\ufe0f", "❤", 1),
        ("👩\u200d👧", "👩👧", 4),
        ("👍\U0001f3fd", "👍", 2),
        ("\U0001f1e9\U0001f1ea", "DE", 2),
    ],
)
def test_what_terminals_disagree_about_is_edited_by_its_parts(
    terminal: Terminal, text: str, parts: str, columns: int
) -> None:
    terminal.press(f"{text}x")
    line(terminal, f"{parts}x")
    assert terminal.screen.column == len("#room> ") + columns + 1
    terminal.press("\x1b[D!\x05.\x01>")
    line(terminal, f">{parts}!x.")
    terminal.press("\r")
    terminal.wait_for(f"said {f'>{text}!x.'!a}")


def test_a_line_longer_than_the_screen_is_edited_in_several_rows(terminal: Terminal) -> None:
    terminal.press("日" * 40)
    terminal.wait_for(bottom("#room> " + "日" * 26, "日" * 14, "typed 40"))
    terminal.press("\r")
    terminal.wait_for(bottom("#room>", "typed 0"))


def test_another_size_draws_the_line_anew(terminal: Terminal) -> None:
    terminal.press("in the middle of it")
    line(terminal, "in the middle of it")
    terminal.resize(30, 8)
    terminal.press(", still")
    terminal.wait_for(bottom("hello", "#room> in the middle of it, st", "ill", "typed 26"))
    terminal.resize(90, 30)
    terminal.wait_for(bottom("hello", "#room> in the middle of it, still", "typed 26"))
    terminal.press("\r")
    terminal.wait_for("said 'in the middle of it, still'")


def test_the_screen_is_cleared_by_control_l(terminal: Terminal) -> None:
    terminal.press("kept\x0c")
    terminal.wait_for(lambda screen: screen.lines == ["#room> kept", "typed 4"])


def test_it_is_suspended_and_comes_back() -> None:
    with Terminal(["sh", "-i"], cwd=str(ROOT), env={"PS1": "$ "}) as terminal:
        terminal.wait_for("$")
        before = terminal.screen.modes.copy()
        terminal.press(f"{sys.executable} -m tests.support.at_screen editor\r")
        terminal.wait_for("ready")
        terminal.press("kept\x1a")
        terminal.wait_for("Stopped")
        assert terminal.screen.modes - before <= {7, 25}
        terminal.press("stty\r")
        terminal.wait_for("speed")
        assert "-icanon" not in terminal.screen.text
        terminal.press("fg\r")
        line(terminal, "kept")
        assert {1004, 2004} <= terminal.screen.modes
        terminal.press("\r")
        terminal.wait_for("said 'kept'")
        terminal.press("\x04")
        terminal.wait_for(lambda screen: screen.lines[-1] == "$")


@pytest.fixture
def shell() -> Iterator[Terminal]:
    """A shell with a job that is suspended."""
    with Terminal(["sh", "-i"], cwd=str(ROOT), env={"PS1": "$ "}) as terminal:
        terminal.wait_for("$")
        terminal.press(f"{sys.executable} -m tests.support.at_screen editor\r")
        terminal.wait_for("ready")
        terminal.press("kept\x1a")
        terminal.wait_for("Stopped")
        yield terminal


def test_in_the_background_it_can_be_told_to_stop(shell: Terminal) -> None:
    shell.press("kill %1; bg; wait %1; echo code $?\r")
    shell.wait_for("code 0")
    shell.press("stty\r")
    shell.wait_for("speed")
    assert "-icanon" not in shell.screen.text


def test_in_the_background_it_waits_for_the_terminal(shell: Terminal) -> None:
    shell.press("bg; jobs\r")
    shell.wait_for("Running")
    shell.press("fg\r")
    line(shell, "kept")
    shell.press("\r")
    shell.wait_for("said 'kept'")


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGQUIT])
def test_these_signals_do_what_keys_do_elsewhere(number: signal.Signals) -> None:
    with heeding(number), Terminal(["sh", "-i"], cwd=str(ROOT), env={"PS1": "$ "}) as terminal:
        terminal.wait_for("$")
        before = terminal.screen.modes.copy()
        terminal.press(f"{sys.executable} -m tests.support.at_screen editor; echo code $?\r")
        terminal.wait_for("ready")
        os.kill(os.tcgetpgrp(terminal.main), number)
        terminal.wait_for("code 0" if number == signal.SIGQUIT else "Stopped")
        assert terminal.screen.modes - before <= {7, 25}
        terminal.press("stty\r")
        terminal.wait_for("speed")
        assert "-icanon" not in terminal.screen.text


def test_what_is_pasted_never_acts_on_the_terminal(terminal: Terminal) -> None:
    terminal.paste("a\x1b[2Jb\x9bc\u202ed\u2066e\x07\x08\tf\x7f")
    terminal.wait_for("a^[[2Jb")
    assert "\ufffd" in terminal.screen.text
    terminal.press("\r")
    terminal.wait_for("said 'a\\x1b[2Jb\\x9bc\\u202ed\\u2066e\\x07\\x08\\tf\\x7f'")


def test_the_status_is_cut_to_the_width(terminal: Terminal) -> None:
    terminal.press("!status " + "日" * 50 + "\r")
    terminal.wait_for(lambda screen: screen.lines[-1] == "日" * 29 + "…")


def test_a_text_is_put_back_only_into_an_empty_line(terminal: Terminal) -> None:
    terminal.press("!back again\r")
    line(terminal, "again")
    terminal.press("\x15!back other\rmine\r")
    terminal.wait_for("said 'mine'")


def test_only_what_was_put_back_is_taken_back(terminal: Terminal) -> None:
    terminal.press("!both again again\r")
    terminal.wait_for("taken back again")
    line(terminal, "")
    terminal.press("!both this that\r")
    line(terminal, "this")


def test_a_text_that_is_put_back_isnt_typed(terminal: Terminal) -> None:
    terminal.press("!back again\r")
    line(terminal, "again")
    terminal.press("\x15!told\r")
    terminal.wait_for("'!told' ''")
    assert "'again'" not in terminal.screen.text


def test_the_terminal_tells_whether_somebody_looks(terminal: Terminal) -> None:
    assert 1004 in terminal.screen.modes
    terminal.press("a\x1b[Ob\x1b[Ic")
    terminal.wait_for("looking False")
    terminal.wait_for("looking True")
    line(terminal, "abc")


def test_without_colours_there_are_none() -> None:
    with open_editor("mono") as terminal:
        terminal.wait_for("ready")
        terminal.press("text\r")
        terminal.wait_for("said 'text'")
        assert all(colours in {"", "0", "0;1", "0;2", "2", "1"} for colours in terminal.screen.colours)


def test_nothing_is_asked_of_the_terminal(terminal: Terminal) -> None:
    terminal.press("x\r\x04")
    assert terminal.wait() == 0
    assert b"\x1b[6n" not in terminal.written
    assert b"\x1b[c" not in terminal.written


# Keys


def test_the_lines_before_are_there_together_with_the_enter(terminal: Terminal) -> None:
    terminal.press("first\rsecond\r\x1b[A\x1b[A!\r")
    terminal.wait_for("said 'first!'")


def test_the_search_shows_nothing_that_acts(terminal: Terminal) -> None:
    terminal.press("\x12")
    terminal.wait_for("I-search backward:")
    terminal.paste("ab\u202ecd\u2066x\u200fy\x9bz")
    terminal.wait_for("ab\ufffdcd\ufffdx")


def test_control_o_is_an_enter_and_alt_hash_does_nothing(terminal: Terminal) -> None:
    terminal.press("once\x1b#")
    line(terminal, "once")
    terminal.press("\x0f")
    terminal.wait_for("said 'once'")
    line(terminal, "")
    terminal.press("\x12on\x0fce")
    terminal.wait_for("I-search backward: once")
    terminal.press("\r!\r")
    terminal.wait_for("said '!once'")


def test_a_key_that_looks_like_an_answer_of_the_terminal_counts_as_none(terminal: Terminal) -> None:
    terminal.press("\x1b[1;2R\x1b[3;5R\x1b[1;3Rone\r\x0c")
    terminal.press("two\r")
    terminal.wait_for("said 'two'")
    assert b"\x1b[6n" not in terminal.written


def test_a_paste_without_marks_may_have_sequences_in_it(terminal: Terminal) -> None:
    terminal.press("a\x1b[32mb\x1b[0mc\x1b[Mxyzd\x1b[<99;1;1me\x1b[;m\r")
    terminal.wait_for("said 'abcde'")


def test_a_key_that_is_unknown_does_nothing(terminal: Terminal) -> None:
    terminal.press("a\x1b[5;5~b\x1b[1;9Z\x1b3\x1b[6;5~c\x1b[23;8~d\x1b[99;5ue\x1b[1;16Hf\r")
    terminal.wait_for("said 'abcdef'")


def test_a_key_is_repeated_only_as_often_as_that_takes_no_time(terminal: Terminal) -> None:
    terminal.press("\x1b9" * 6 + "x")
    terminal.wait_for(bottom("typed 999"))


_STATES = {
    "an empty line": "",
    "a line": "one two",
    "its begin": "one two\x01",
    "rows": "one\x1b\rtwo",
    "a line before": "one\x1b\rtwo\x1b\rthree\r\x1b[A\x1b[A",
    "a selection": "one\x1b\rtwo\x00\x1b[A",
    "a search": "\x12o",
    "a macro": "\x18(",
}
_ARGUMENTS = ("", "\x1b-", "\x1b0", "\x1b3", "\x1b9" * 7)
_LEAVING = frozenset("\x03\x04\x1a")
_KEYS = (
    *(chr(code) for code in range(0x20) if chr(code) not in _LEAVING),
    *(f"\x1b{chr(code)}" for code in (*range(0x20, 0x4F), *range(0x50, 0x5B), *range(0x5C, 0x7F))),
    *(f"\x1b[{modified}{letter}" for letter in "ABCDFH" for modified in ("", "1;2", "1;5")),
    *(f"\x1b[{number}{modified}~" for number in range(1, 9) for modified in ("", ";5")),
    *(f"\x18{key}" for key in "()er\x18\x15"),
)


@pytest.mark.parametrize("state", _STATES.values(), ids=_STATES)
def test_no_key_ends_it(terminal: Terminal, state: str) -> None:
    for number, argument in enumerate(_ARGUMENTS):
        for key in _KEYS:
            terminal.press(f"{state}{argument}{key}x\x18)\x07z\x03")
        terminal.press(f"!status round {number}\r")
        terminal.wait_for(bottom(f"round {number}"))
