"""The log: two formats, no forged line, no flood, nothing of other people's loggers."""

import json
import logging
import math
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom import logs
from chatroom.core.errors import CloseCode
from chatroom.core.logevents import log_event, logger

MOMENT = 1764000001.0426


def record(event: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("chatroom", level, "", 0, event, (), None)
    made.created = MOMENT
    made.fields = fields
    return made


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Log:
    """A log that goes to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().split("\n")[:-1]]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "log")
    yield log
    os.close(log.fd)


def test_a_json_line() -> None:
    line = logs.json_line(
        record("JOIN", conn=7, room="général", code=CloseCode.RESTART, took=0.5, ok=True, no=None)
    )
    assert line == (
        '{"ts": "2025-11-24T16:00:01.042Z", "level": "info", "event": "JOIN", "conn": 7, "room": "général", '
        '"code": 1012, "took": 0.5, "ok": true, "no": null}\n'
    )


def test_a_text_line() -> None:
    line = logs.text_line(
        record("JOIN", conn=7, room="général", peer="[::1]:5", said="a b", none=None, empty="")
    )
    assert line == (
        "2025-11-24T16:00:01.042Z info    JOIN conn=7 room=général "
        'peer="[::1]:5" said="a b" none=null empty=""\n'
    )


@pytest.mark.parametrize("value", ['a" b="c', "a=b", "null x", "\\", "a,b"])
def test_a_text_value_cannot_pass_for_another_field(value: str) -> None:
    line = logs.text_line(record("x", name=value))
    assert json.loads(line.partition("name=")[2]) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, b"\xff", CloseCode, ("a", 1), ValueError("x")])
def test_whatever_json_has_not_becomes_text(value: object) -> None:
    assert json.loads(logs.json_line(record("x", value=value)))["value"] == str(value)
    assert "value=" in logs.text_line(record("x", value=value))


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters()))
def test_no_text_forges_a_line(event: str, value: str) -> None:
    for line in (logs.json_line(record(event, name=value)), logs.text_line(record(event, name=value))):
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        line.encode()


@given(st.text(alphabet=st.characters(), max_size=logs.VALUE_CHARS))
def test_json_keeps_what_was_said(value: str) -> None:
    assert json.loads(logs.json_line(record("x", name=value)))["name"] == value


def test_long_values_are_cut() -> None:
    long = "x" * 10_000
    entry = json.loads(logs.json_line(record(long, name=long, traceback=long)))
    assert entry["name"] == entry["event"] == "x" * logs.VALUE_CHARS + "…"
    assert entry["traceback"] == long
    assert len(logs.text_line(record(long, name=long))) < 3 * logs.VALUE_CHARS


def test_fields_cannot_replace_what_every_line_has() -> None:
    forged = record("x")
    forged.fields = {"ts": 1, "event": "y", "level": "z"}
    entry = json.loads(logs.json_line(forged))
    assert entry == {"ts": "2025-11-24T16:00:01.042Z", "level": "info", "event": "x"}


def test_a_traceback_stands_behind_bars_in_text() -> None:
    line = logs.text_line(record("crash", logging.ERROR, kind="E", traceback="one\ntwo\x1b\u2028three\n"))
    assert line.split("\n")[1:] == ["  | one", "  | two\\u001b", "  | three", ""]
    assert "kind=E" in line


def test_a_record_without_fields() -> None:
    plain = logging.LogRecord("chatroom", logging.WARNING, "", 0, "event %d", (3,), None)
    assert json.loads(logs.json_line(plain))["event"] == "event 3"


def test_the_level_decides(log: Log) -> None:
    with logs.logging_to(log.fd, "warning", "json"):
        log_event(logging.INFO, "quiet")
        log_event(logging.WARNING, "loud", n=1)
    assert [(entry["level"], entry["event"]) for entry in log.lines()] == [("warning", "loud")]


def test_auto_is_json_in_a_file_and_text_on_a_terminal(log: Log) -> None:
    with logs.logging_to(log.fd, "info", "auto"):
        log_event(logging.INFO, "x")
    assert log.lines()[0]["event"] == "x"
    master, slave = pty.openpty()
    try:
        with logs.logging_to(slave, "info", "auto"):
            log_event(logging.INFO, "x", n=1)
        assert b"info    x n=1" in os.read(master, 1000)
    finally:
        os.close(master)
        os.close(slave)


def test_text_can_be_asked_for(log: Log) -> None:
    with logs.logging_to(log.fd, "info", "text"):
        log_event(logging.INFO, "x", n=1)
    assert log.path.read_text().endswith("Z info    x n=1\n")


def test_libraries_stay_quiet(log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    with logs.logging_to(log.fd, "debug", "json"):
        for name in ("trio.serve_listeners", "trio-websocket", "h11"):
            logging.getLogger(name).error("forged\nline")
    assert log.path.read_text() == ""
    assert capfd.readouterr() == ("", "")


def test_everything_is_put_back(log: Log) -> None:
    def state() -> tuple[object, ...]:
        root = logging.getLogger()
        return logger.level, logger.propagate, list(logger.handlers), list(root.handlers), sys.unraisablehook

    before = state()
    with logs.logging_to(log.fd, "debug", "json"):
        assert state() != before
    assert state() == before
    with pytest.raises(KeyError), logs.logging_to(log.fd, "debug", "json"):
        raise KeyError
    assert state() == before


def test_a_field_that_cannot_be_shown_costs_only_its_line(log: Log) -> None:
    with logs.logging_to(log.fd, "info", "json"):
        log_event(logging.INFO, "x", rude=Rude())
        assert logs.lines_dropped() == 1
        log_event(logging.INFO, "y")
    assert [(entry["event"], entry.get("count")) for entry in log.lines()] == [
        ("y", None),
        ("log_lines_dropped", 1),
    ]
    assert logs.lines_dropped() == 0


def test_a_closed_descriptor_stops_nothing(log: Log) -> None:
    gone = os.dup(log.fd)
    os.close(gone)
    with logs.logging_to(gone, "info", "json"):
        log_event(logging.INFO, "x")
        logs.flush()
        assert logs.lines_dropped() == 1


def test_a_full_pipe_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.01)
    reader, writer = os.pipe()
    with logs.logging_to(writer, "info", "json"):
        for _ in range(10_000):
            log_event(logging.INFO, "x", text="y" * 200)
        assert logs.lines_dropped() > 1000
    os.close(reader)  # frees the thread
    os.close(writer)


def test_flush_makes_a_line_visible(log: Log) -> None:
    with logs.logging_to(log.fd, "info", "json"):
        log_event(logging.INFO, "x")
        logs.flush()
        assert log.lines()[0]["event"] == "x"


def test_an_exception_in_a_finaliser_is_one_event(log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    class Bad:
        def __del__(self) -> None:
            raise ValueError("s3cret")

    with logs.logging_to(log.fd, "info", "json"):
        Bad()
        sys.unraisablehook(SimpleNamespace(exc_value=None))
    first, second = log.lines()
    assert first["event"] == second["event"] == "unraisable"
    assert first["exception"] == "ValueError"
    assert "__del__" in first["location"]
    assert "s3cret" not in log.path.read_text()
    assert capfd.readouterr() == ("", "")
