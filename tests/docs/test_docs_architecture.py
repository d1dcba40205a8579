"""docs/architecture.md shows the code as it is: its layers, its tasks, its names and its numbers."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from chatroom import logs, server
from chatroom.connections import backlog, connection
from chatroom.core.limits import MAX_UNANSWERED, Limits
from chatroom.engines.sqlite import opening, store
from chatroom.http import frontdoor
from chatroom.rooms import broker, entries, fanout, room
from tests.support.pages import ROOT, blocks, rows, section, words
from tests.unit.test_layers import MAY_IMPORT, PURE

DOCUMENT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PACKAGE = ROOT / "chatroom"
PARTS = {words(part)[0]: words(modules) for part, modules, _, _ in rows(DOCUMENT, "Parts")}


# Parts


def modules_in(folder: Path) -> list[str]:
    """The modules of a folder, and the packages in it."""
    packages = [path.parent for path in folder.glob("*/__init__.py") if path.parent.name not in PARTS]
    return sorted(path.stem for path in [*folder.glob("*.py"), *packages] if path.stem != "__init__")


def test_every_module_stands_in_its_part() -> None:
    assert set(PARTS) == {"chatroom"} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    for part, modules in PARTS.items():
        assert modules == modules_in(PACKAGE if part == "chatroom" else PACKAGE / part)


def test_what_each_part_may_import() -> None:
    may = {words(part)[0]: set(words(parts)) for part, _, parts, _ in rows(DOCUMENT, "Parts")}
    del may["chatroom"]
    assert may == MAY_IMPORT
    assert list(may) == list(MAY_IMPORT)


def test_the_pure_modules_are_named() -> None:
    (named,) = re.findall(r"All\nof `core` and `protocol` is pure, and so are (.*?)\.\s", DOCUMENT, re.DOTALL)
    assert {f"chatroom.{name.replace('/', '.')}" for name in words(named)} == PURE


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_library_is_known_to_those_who_are_named() -> None:
    knowing = {path.stem for path in PACKAGE.rglob("*.py") if "trio_websocket" in imports(path)}
    seam = " ".join(section(DOCUMENT, "The seam to trio-websocket").split())
    (named,) = re.findall(r"only (.+) knows? it\.", seam)
    assert knowing == set(words(named))


# Tasks

PASSING = re.compile(r"\((for a moment|while [a-z ]+)\)")


def documented_tree() -> tuple[list[object], list[str]]:
    """The tasks of a server with one client as [name, children], and the names of those that pass."""
    (text, *_) = [block for block in blocks(DOCUMENT, "") if block.startswith("Server.run")]
    path: list[list[object]] = []
    passing = []
    for line in text.splitlines():
        found = re.match(r"([│├└─ ]*)(\S+)", line)
        assert found
        depth, name = len(found[1]) // 3, found[2]
        if PASSING.search(line):
            passing.append(name)
            continue
        node: list[object] = [name, []]
        del path[depth:]
        if path:
            children = path[-1][1]
            assert isinstance(children, list)
            children.append(node)
        path.append(node)
    return path[0], passing


def in_order(node: object) -> object:
    """The tree with children sorted; the module before a plain function's name is left out."""
    assert isinstance(node, list)
    name = node[0].rpartition(".")[2] if node[0][0].islower() else node[0]
    return [name, sorted(in_order(child) for child in node[1])]


def test_the_tasks_are_those_of_a_server_with_a_client() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.task_tree"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert in_order(documented_tree()[0]) == in_order(json.loads(done.stdout.splitlines()[-1]))


def test_the_tasks_that_pass_are_started_somewhere() -> None:
    sources = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    _, passing = documented_tree()
    assert len(passing) == 6
    for name in passing:
        last = name.rpartition(".")[2]
        assert re.search(rf"start_soon\((?:\w+\.)*_?{last}\b", sources), name


# Names and numbers


def members(node: ast.ClassDef) -> set[str]:
    """The methods of a class, its fields, and what its methods set on `self`."""
    found = {part.name for part in ast.walk(node) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
    for part in ast.walk(node):
        match part:
            case ast.Attribute(ast.Name("self"), name, ast.Store()):
                found.add(name)
            case ast.AnnAssign(ast.Name(name)):
                found.add(name)
    return found


def classes() -> dict[str, set[str]]:
    """All classes by their names, and what they have; unions of classes have nothing."""
    trees = [ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    unions = [
        target.id
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return {name: set() for name in unions} | {node.name: members(node) for node in nodes}


CLASSES = classes()


def exists(name: str) -> bool:
    """Whether a name in code marks is that of something here; plain words are not judged."""
    if "/" in name and "*" not in name:
        return any((base / f"{name}{suffix}").exists() for base in (ROOT, PACKAGE) for suffix in ("", ".py"))
    if found := re.fullmatch(r"([A-Z]\w+)(?:\.(\w+))?", name):
        if found[2]:
            return found[2] in CLASSES.get(found[1], set())
        return found[1] in CLASSES or hasattr(trio, found[1])
    return True


def test_what_is_named_exists() -> None:
    for name in words(re.sub(r"^```.*?^```", "", DOCUMENT, flags=re.MULTILINE | re.DOTALL)):
        assert exists(name), name
    for step in re.findall(r"^\d\. (.+?)(?::|$)", section(DOCUMENT, "Where to begin reading"), re.MULTILINE):
        assert words(step), step


def modules_with(*names: str) -> set[str]:
    """The modules of the package that know one of the names, as the page writes them."""
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b")
    return {
        str(path.relative_to(PACKAGE).with_suffix(""))
        for path in PACKAGE.rglob("*.py")
        if pattern.search(path.read_text("utf-8"))
    }


@pytest.mark.parametrize(
    ("heading", "signs"),
    [
        ("Adding an event", ["ListMembers", "MembersRequest", "request_members"]),
        ("Adding an event", ["SwitchRoom", "_FIELDS"]),
        ("Adding an engine", ["MemoryEngine", "NO_DATABASE", "engine_for"]),
    ],
)
def test_what_is_added_goes_where_what_is_there_shows(heading: str, signs: list[str]) -> None:
    found = modules_with(*signs) - {"engines/memory"}
    assert len(found) > 1
    assert found <= set(words(section(DOCUMENT, heading))), "a step is missing"


def test_where_the_words_live_is_a_place() -> None:
    for _, code, _, test in rows(DOCUMENT, "Where the words live"):
        assert words(test), code
        assert all((ROOT / f"{name}.py").exists() for name in words(test)), test


def test_failures_are_handled_where_it_is_said() -> None:
    modules = {module for names in PARTS.values() for module in names}
    for what, _, where in rows(DOCUMENT, "Failures"):
        assert words(where), what
        assert set(words(where)) <= modules, what


def test_numbers_in_the_text() -> None:
    limits = Limits()
    text = " ".join(DOCUMENT.split())
    for sentence in (
        f"after each {'MiB' if fanout.GIVE_WAY == 1 << 20 else '?'} (a",
        f"member counts for {fanout.MEMBER_BYTES >> 10} KiB",
        f"has {entries.MAX_DRAFTS} messages and {entries.MAX_OTHERS} other commands at most",
        f"while {MAX_UNANSWERED} messages are unanswered",
        f"up to {room.MAX_QUEUED}, each at its place",
        f"{room.BATCHING_FACTOR} times as long as telling the last broadcast took",
        f"At most {room.MAX_TYPING:,} typing marks wait, and when {room.MAX_PRESENCE:,} joins and leaves do",
        f"{store.PROBE_BYTES >> 10} KiB that succeeds",
        f"tried {'twice' if store.RETRY_SECONDS == 0.5 else '?'} a second",
        f"for {'half a second' if opening.CHECK_SECONDS == 0.5 else '?'} at most",
        f"within {server.RING_BYTES >> 20} MiB for the process",
        f"its inbox ({broker.INBOX} commands)",
        f"in pieces of {backlog.CHUNK >> 10} KiB of text",
        f"takes nothing for {limits.send_timeout:g} s",
        f"a ping after {limits.ping_interval:g} s, a reset {limits.ping_timeout:g} s later",
        f"at {limits.unauthenticated} nobody is accepted",
        f"a pause of {frontdoor.PIPELINE_PAUSE * 1000:g} ms",
        f"429 after {limits.wrong_tokens} in a minute",
        f"for {connection.CATCH_UP_SECONDS:g} s at most",
        f"told 1011, within {server.CRASH_SECONDS:g} s",
        f"pauses for {server.ACCEPT_PAUSE:g} s",
        f"stored and shown ({server.SETTLE_SECONDS:g} s)",
        f"up to {logs.BUDGET_BYTES >> 20} MiB",
    ):
        assert sentence in text, sentence


# Reading


def lines_of(name: str) -> int:
    """How long a module is, or a package of modules."""
    found = [path for path in PACKAGE.rglob("*.py") if path.stem == name.rpartition("/")[2]]
    return sum(len(path.read_text("utf-8").splitlines()) for path in found)


def test_how_much_there_is_to_read() -> None:
    text = section(DOCUMENT, "Where to begin reading")
    steps = re.findall(r"^\d\. (.+(?:\n   .+)*)", text, re.MULTILINE)
    lengths = [sum(lines_of(name) for name in words(step)) for step in steps]
    everything = sum(len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py"))
    said = [int(number.replace(",", "")) for number in re.findall(r"\b[\d,]+00\b", text)]
    assert len(said) == 3
    for number, real in zip(said, (everything, sum(lengths[:4]), sum(lengths)), strict=True):
        assert abs(number - real) < real / 4, (number, real)
    assert sum(lengths[:4]) < 2500, "that takes more than an evening"


# Tests

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
ELSEWHERE = {
    module: words(tested) for modules, tested in rows(DOCUMENT, "Tests") for module in words(modules)
}


def has_a_file_of_its_own(module: str) -> bool:
    folder, _, name = f"tests/unit/{module}".rpartition("/")
    found = [path.stem for path in (ROOT / folder).glob("test_*.py")]
    return any(test == f"test_{name}" or test.startswith(f"test_{name}_") for test in found)


def test_where_the_tests_of_each_module_are() -> None:
    paths = [path for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    modules = {str(path.relative_to(PACKAGE).with_suffix("")) for path in paths}
    without = {module for module in modules if not has_a_file_of_its_own(module)}
    assert set(ELSEWHERE) == without, "the table of modules without a test file of their name"
    known = {path.stem for path in TESTS} | {str(path.relative_to(ROOT).with_suffix("")) for path in TESTS}
    for module, tests in ELSEWHERE.items():
        assert tests, module
        assert set(tests) <= known | {"engine_contract"}, module


def test_every_test_of_a_module_has_its_module() -> None:
    """Nothing is left behind when a module goes: each file below tests/unit begins with a module's name."""
    for path in (ROOT / "tests" / "unit").rglob("test_*.py"):
        part = path.parent.relative_to(ROOT / "tests" / "unit")
        names = [each.stem for each in (PACKAGE / part).glob("*.py")]
        assert (
            str(part) == "support"
            or path.stem == "test_layers"
            or any(f"{path.stem}_".startswith(f"test_{name}_") for name in names)
        ), path
