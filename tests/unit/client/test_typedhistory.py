"""The file of typed lines."""

import os
import stat
from pathlib import Path

import pytest

from chatroom.client.typedhistory import LONGEST, MOST, TypedHistory


def history(path: Path | None) -> TypedHistory:
    return TypedHistory(path, is_secret=lambda line: "secret" in line)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history"


def test_lines_outlast_the_program(path: Path) -> None:
    first = history(path)
    for line in ("hello", "two\nlines", "日本 \x1b[2J \ud800"):
        first.add(line)
    assert history(path).lines == ["hello", "two\nlines", "日本 \x1b[2J \ud800"]


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    history(path).add("hello")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_programs_add_to_one_file(path: Path) -> None:
    first, second = history(path), history(path)
    first.add("one")
    second.add("two")
    first.add("three")
    assert history(path).lines == ["one", "two", "three"]


def test_a_line_isnt_kept_twice_in_a_row_nor_if_it_is_empty_long_or_secret(path: Path) -> None:
    typed = history(path)
    for line in ("a", "a", " ", "x" * (LONGEST + 1), "the secret", "b", "a"):
        typed.add(line)
    assert typed.lines == history(path).lines == ["a", "b", "a"]


def test_the_file_is_bounded(path: Path) -> None:
    typed = history(path)
    for number in range(MOST + 5):
        typed.add(str(number))
    assert len(history(path).lines) == MOST
    assert path.read_text().count("\n") == MOST
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert history(path).lines[-1] == str(MOST + 4)
    assert [each.name for each in path.parent.iterdir()] == ["history"]


def test_the_file_is_bounded_while_the_program_runs(path: Path) -> None:
    first, second = history(path), history(path)
    for number in range(3 * MOST):
        (first if number % 2 else second).add(str(number))
        assert number % 100 or path.read_text().count("\n") <= 2 * MOST
    assert history(path).lines == [str(number) for number in range(2 * MOST, 3 * MOST)]
    assert len(first.lines) == MOST
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_was_cut_off_takes_no_other_one_with_it(path: Path) -> None:
    path.write_bytes(b'"one"\n"tw')
    history(path).add("three")
    assert path.read_text() == '"one"\n"tw\n"three"\n'
    assert history(path).lines == ["one", "three"]


def test_what_is_no_ordinary_file_is_neither_read_nor_written(path: Path) -> None:
    os.mkfifo(path)
    typed = history(path)
    typed.add("hello")
    assert typed.lines == ["hello"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_what_is_no_line_is_passed_over(path: Path) -> None:
    path.write_bytes(b'"one"\nnonsense\n7\n\xff\n["x"]\n"two"\n"thr')
    assert history(path).lines == ["one", "two"]


def test_without_a_place_it_lasts_as_long_as_the_program(path: Path) -> None:
    for place in (None, path / "no" / "such" / "folder", path.parent):
        typed = history(place)
        typed.add("hello")
        assert typed.lines == ["hello"]


def test_a_link_that_somebody_put_there_isnt_written_to(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("")
    path.symlink_to(other)
    history(path).add("hello")
    assert other.read_text() == ""
