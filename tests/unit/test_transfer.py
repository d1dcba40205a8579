"""The commands `export` and `import`: a room goes out and comes in as it was, or not at all."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import closing, redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom import cli
from chatroom.core.errors import StartError
from chatroom.core.messages import Delete, Draft, Edit, Message, Moderate
from chatroom.core.sanctions import Action
from chatroom.protocol import events
from chatroom.protocol.roomfile import Head, end_line, head_line
from chatroom.system.stdio import STANDARD_IN
from chatroom.transfer import (
    ExportSettings,
    ImportSettings,
    read_export,
    read_import,
    run_export,
)
from tests.support.database import open_store, query
from tests.support.engine_contract import HOSTILE, TS, draft

Captured = pytest.CaptureFixture[str]
LATER = 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def export(path: Path, room: str = "r") -> list[bytes]:
    output = path.with_name("export.jsonl")
    output.unlink(missing_ok=True)
    run_export([room, "--db", str(path), "--output", str(output)], {})
    return output.read_bytes().splitlines(keepends=True)


class Imported:
    """What an import of these bytes has said, and its exit code."""

    def __init__(self, content: bytes, *arguments: str) -> None:
        said, kept = StringIO(), os.dup(STANDARD_IN)
        with TemporaryFile() as file, redirect_stderr(said):
            file.write(content)
            file.seek(0)
            os.dup2(file.fileno(), STANDARD_IN)
            try:
                self.code = cli.main(["import", *arguments], {})
            finally:
                os.dup2(kept, STANDARD_IN)
                os.close(kept)
        self.said = said.getvalue()


# The round trip

NAMES = ["alice", "bob", "élise"]
CIDS = st.none() | st.integers(0, 10**6).map(str)
POSTS = st.tuples(st.just("post"), st.sampled_from(NAMES), st.sampled_from(HOSTILE[1:]), CIDS)
EDITS = st.tuples(st.just("edit"), st.sampled_from(NAMES), st.sampled_from(HOSTILE[1:]), st.integers(1, 30))
DELETIONS = st.tuples(st.just("delete"), st.sampled_from([*NAMES, "carol"]), st.just(""), st.integers(1, 30))
ACTIONS = st.tuples(
    st.just("moderate"), st.sampled_from(NAMES), st.sampled_from(["", "why"]), st.sampled_from(list(Action))
)


def drafts_of(steps: list[Any]) -> Iterator[Draft]:
    for kind, username, text, rest in steps:
        match kind:
            case "post":
                yield Draft("r", username, text.strip() or "x", rest, TS)
            case "edit":
                yield Draft("r", username, text.strip() or "x", None, TS, act=Edit(rest, LATER))
            case "delete":
                act = Delete(rest, LATER)
                yield Draft("r", username, "", None, TS, moderator=username == "carol", act=act)
            case _:
                seconds = 10**9 if rest in (Action.MUTE, Action.BAN) else None
                moderate = Moderate(rest, username, seconds)
                yield Draft("r", "carol", text, None, TS, moderator=True, act=moderate)


def relabelled(lines: list[bytes]) -> list[Any]:
    """The lines with new ids, without an epoch, and without changes of what isn't there."""
    head, *frames, end = [json.loads(line) for line in lines]
    messages = {frame["id"] for frame in frames if frame["event"] == "message"}
    frames = [
        frame
        for frame in frames
        if frame["event"] not in ("edited", "deleted") or frame["data"]["id"] in messages
    ]
    new = {frame["id"]: number for number, frame in enumerate(frames, 1)}
    for frame in frames:
        for place, name in ((frame, "id"), (frame, "edited"), (frame, "deleted"), (frame["data"], "id")):
            if name in place:
                place[name] = new[place[name]]
    head["data"] |= {"epoch": None, "first": 1, "last": len(frames)}
    return [head, *frames, end]


@settings(max_examples=60, deadline=None)
@given(st.lists(POSTS | EDITS | DELETIONS | ACTIONS, min_size=1, max_size=40), st.integers(0, 20))
def test_what_comes_in_is_what_went_out_but_for_ids_and_epoch(steps: list[Any], trimmed: int) -> None:
    with TemporaryDirectory() as folder:
        first, second, third = (Path(folder, name) for name in ("1.db", "2.db", "3.db"))
        with closing(open_store(first)) as store:
            store.append([draft("x", room="other"), draft("begin"), *drafts_of(steps)])
            store.trim({"r": min(trimmed, store.extent("r").last) + 1})
        out = export(first)
        assert Imported(b"".join(out), "--db", str(second)).code == 0
        again = export(second)
        assert [json.loads(line) for line in again[1:]] == relabelled(out)[1:]
        assert json.loads(again[0])["data"]["epoch"] not in (None, json.loads(out[0])["data"]["epoch"])
        assert Imported(b"".join(again), "--db", str(third)).code == 0
        assert export(third)[1:] == again[1:]


def test_frames_are_those_of_the_server(path: Path) -> None:
    with closing(open_store(path)) as store:
        (stored,) = store.append([draft("hi\x9b", "c")])
        assert isinstance(stored, Message)
    assert export(path) == [
        head_line(Head("r", "all", "e1", 1, 1)) + b"\n",
        events.record("r", stored) + b"\n",
        end_line("r", ()) + b"\n",
    ]


# Export


def test_export_to_standard_output(path: Path, capfd: Captured) -> None:
    with closing(open_store(path)) as store:
        store.append([draft("hi")])
    assert cli.main(["export", "r"], {"CHATROOM_DB": str(path)}) == 0
    assert capfd.readouterr().out.encode() == b"".join(export(path))


def test_a_new_file_is_private_and_nothing_is_replaced(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.append([draft("hi")])
    lines = export(path)
    output = path.with_name("export.jsonl")
    assert output.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StartError, match=r"export\.jsonl exists already: give a name that is free"):
        run_export(["r", "--db", str(path), "--output", str(output)], {})
    assert output.read_bytes() == b"".join(lines)
    with pytest.raises(StartError, match=r"--output .*nowhere/x can't be written"):
        run_export(["r", "--db", str(path), "--output", str(path.parent / "nowhere" / "x")], {})


def test_options_of_export() -> None:
    store = (None, "chatroom", None, None)
    assert read_export(["Café"], {}) == ExportSettings("Café", "chat.db", *store, None)
    arguments = ["r", "--output=o", "--db", "d"]
    assert read_export(arguments, {"CHATROOM_DB": "x"}) == ExportSettings("r", "d", *store, "o")
    found = read_export(["r", "--redis", "redis://h", "--redis-prefix", "p"], {})
    assert isinstance(found, ExportSettings)
    assert found.redis is not None
    assert (found.redis.shown, found.redis_prefix) == ("redis://h:6379", "p")
    help_text = read_export(["--help"], {"CHATROOM_DB": ""})
    assert isinstance(help_text, str)
    assert help_text.startswith("usage: ./chat.pyz export [--db PATH] [--output FILE] ROOM")


def test_options_of_import() -> None:
    assert read_import([], {}) == ImportSettings("chat.db", None, 4000)
    assert read_import(["--room", "\uff41", "--db=d"], {"CHATROOM_MAX_TEXT": "7"}) == ImportSettings(
        "d", "a", 7
    )
    help_text = read_import(["-h"], {})
    assert isinstance(help_text, str)
    assert help_text.startswith("usage: ./chat.pyz import [--db PATH] [--room NAME] < FILE")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("export", "export needs the name of a room: ./chat.pyz export general > general.jsonl"),
        ("export a\nb", "room may not contain control characters"),
        ("export r s", "unexpected argument 's'; --help lists the options"),
        ("export r --db none", "with --db none there is no database: give the server's by --db"),
        ("export r --db", "--db: needs a value; --help lists the options"),
        ("export r --redis redis://h --db x", "--db and --redis exclude each other: say where the room is"),
        (
            "export r --redis-prefix x",
            "--redis-prefix means nothing without --redis: leave it out, or give both",
        ),
        ("export r --output=", "--output: an empty file name: give the path of a file"),
        ("export r --outptu x", "unknown option '--outptu'; did you mean --output?"),
        ("export r --db /nowhere/x", "/nowhere/x doesn't exist: give the server's database by --db"),
        ("import x", "unexpected argument 'x'; --help lists the options"),
        ("import --db none", "with --db none there is no database: give the server's by --db"),
        ("import --room=", "--room: room must have 1 to 64 characters"),
        ("import --room a\x1b", "--room: room may not contain control characters"),
        ("import --max-text 0", "--max-text: '0' is not a whole number from 1 to 1000000"),
        ("import --rooms x", "unknown option '--rooms'; did you mean --room?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: str, why: str, capfd: Captured) -> None:
    assert cli.main(arguments.split(" "), {}) == 2
    assert capfd.readouterr() == ("", f"chatroom: {why}\n")


# Import

LINES = [
    head_line(Head("r", "all", "e1", 3, 5)),
    events.record("r", Message(3, TS, "alice", "hi", "c")),
    events.record("r", Message(4, TS, "bob", "ho", None)),
    events.record("r", Message(5, TS, "bob", "x" * 4000, None)),
    end_line("r", ()),
]


def test_an_import_says_what_it_did(path: Path) -> None:
    done = Imported(b"\n".join(LINES), "--db", str(path), "--room", "new")
    assert (done.code, done.said) == (0, f"chatroom: imported 3 messages into room new of {path}\n")
    assert query(path, "SELECT name FROM room") == [("new",)]


def test_a_file_of_messages_says_nothing_of_what_changed_them(path: Path) -> None:
    lines = [
        head_line(Head("r", "messages", None, 1, 99)),
        events.record("r", Message(2, TS, "alice", "hi", "c", edited=7)),
        events.record("r", Message(40, TS, "alice", "", None, deleted=50)),
        events.record("r", Message(60, TS, "alice", "ho", None)),
        end_line("r", None),
    ]
    done = Imported(b"\n".join(lines), "--db", str(path))
    assert done.said == (f"chatroom: imported 2 messages into room r of {path}; left out 1 deleted message\n")
    assert [json.loads(line).get("edited", 0) for line in export(path)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "line 1: it is not JSON"),
        (b"\n".join(LINES[1:]), "line 1: the first line of an export has the event room"),
        (b"\n".join([*LINES[:2], b"", *LINES[2:]]), "line 3: it is not JSON"),
        (b"\n".join([*LINES[:2], LINES[3]]), "line 3: the record 4 is missing"),
        (b"\n".join(LINES[:4]), "line 5: it has no last line with the sanctions: it was cut short"),
        (b"\n".join(LINES[:1]), "line 2: it has no last line with the sanctions: it was cut short"),
        (b"\n".join(LINES)[:-9], "line 5: it is not JSON"),
        (b"\n".join([*LINES, LINES[0]]), "line 6: the sanctions are the last line of an export"),
        (
            b"\n".join([*LINES[:2], events.record("r", Message(4, TS, "alice", "x", "c"))]),
            "line 3: the same name has used its cid before",
        ),
        (b"\n".join([LINES[0], b" " * 3_000_000]), "line 2: it is longer than 2,145,152 bytes"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_is_wrong_is_refused_by_its_line_and_nothing_is_kept(
    path: Path, content: bytes, why: str, there: bool
) -> None:
    if there:
        open_store(path).close()
    done = Imported(content, "--db", str(path))
    assert (done.code, done.said) == (2, f"chatroom: {why}: nothing was stored\n")
    if there:
        assert (
            query(path, "SELECT count(*) FROM message") == query(path, "SELECT count(*) FROM room") == [(0,)]
        )
    else:
        assert list(path.parent.iterdir()) == []


def test_longer_texts_take_the_option_of_the_server(path: Path) -> None:
    refused = Imported(b"\n".join(LINES), "--db", str(path), "--max-text", "3999")
    assert refused.said.startswith(
        "chatroom: line 4: its text is longer than 3999 characters (see --max-text)"
    )
    assert Imported(b"\n".join(LINES), "--db", str(path), "--max-text", "4000").code == 0


def test_a_database_in_use_and_a_room_that_is_there_are_left_alone(path: Path) -> None:
    with closing(open_store(path)):
        done = Imported(b"\n".join(LINES), "--db", str(path))
    assert done.code == 2
    assert done.said.startswith(f"chatroom: another server uses {path}")
    assert Imported(b"\n".join(LINES), "--db", str(path)).code == 0
    done = Imported(b"\n".join(LINES), "--db", str(path))
    assert (done.code, done.said) == (
        2,
        "chatroom: room 'r' is there already: choose another name by --room\n",
    )


def test_sanctions_that_have_ended_are_not_exported(path: Path) -> None:
    with closing(open_store(path)) as store:
        moderate = [Moderate(Action.MUTE, "bob", 1), Moderate(Action.BAN, "eve", None)]
        store.append([Draft("r", "carol", "", None, TS, moderator=True, act=act) for act in moderate])
    (sanction,) = json.loads(export(path)[-1])["data"]["sanctions"]
    assert sanction == {"action": "ban", "username": "eve", "by": "carol"}


# Files that somebody has changed


def whole_file() -> list[bytes]:
    """A file with all kinds of records."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "1.db")
        with closing(open_store(path)) as store:
            store.append([
                draft("one", "c1"),
                draft("two", "c2", username="bob"),
                Draft("r", "alice", "uno", None, TS, act=Edit(1, LATER)),
                Draft("r", "alice", "un", "c3", TS, act=Edit(1, LATER)),
                Draft("r", "carol", "", None, TS, moderator=True, act=Delete(2, LATER)),
                Draft("r", "carol", "why", None, TS, moderator=True, act=Moderate(Action.BAN, "eve", 10**9)),
                draft("three"),
            ])  # fmt: skip
        return export(path)


FILE = whole_file()
PLACES = st.integers(0, len(FILE) - 1)
CHANGES = (
    st.tuples(st.just("remove"), PLACES, st.just(0))
    | st.tuples(st.just("repeat"), PLACES, PLACES)
    | st.tuples(st.just("byte"), PLACES, st.tuples(st.integers(0, 400), st.integers(0, 255)))
    | st.tuples(st.just("number"), PLACES, st.tuples(st.integers(0, 9), st.integers(0, 10)))
)


def changed_by(lines: list[bytes], kind: str, at: int, how: Any) -> None:
    at %= len(lines)
    match kind:
        case "remove":
            del lines[at]
        case "repeat":
            lines.insert(how % len(lines), lines[at])
        case "byte":
            where = how[0] % len(lines[at])
            lines[at] = lines[at][:where] + bytes([how[1]]) + lines[at][where + 1 :]
        case _:
            numbers = list(re.finditer(rb"(?<=:)\d+", lines[at]))
            if numbers:
                start, end = numbers[how[0] % len(numbers)].span()
                lines[at] = lines[at][:start] + str(how[1]).encode() + lines[at][end:]


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_a_file_that_was_changed_is_refused_by_a_line_or_gives_a_whole_room(changes: list[Any]) -> None:
    lines = list(FILE)
    for change in changes:
        if lines:
            changed_by(lines, *change)
    with TemporaryDirectory() as folder:
        path = Path(folder, "2.db")
        done = Imported(b"".join(lines), "--db", str(path), "--room", "r")
        if done.code == 2:
            assert re.fullmatch(r"chatroom: line \d+: [^\n]+: nothing was stored\n", done.said)
            assert list(Path(folder).iterdir()) == []
            return
        assert (done.code, done.said.count("\n")) == (0, 1)
        out = export(path)
        again = Imported(b"".join(out), "--db", str(path), "--room", "s")
        assert again.code == 0, again.said
