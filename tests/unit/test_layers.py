"""Imports go one way: from part to part as it is written here, and the pure core of each part stays pure."""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.process import ROOT

MAY_IMPORT = {
    "core": set[str](),
    "system": {"core"},
    "engines": {"core"},
    "net": {"core"},
    "auth": {"core", "system"},
    "websocket": {"core", "net"},
    "protocol": {"core", "auth", "websocket"},
    "http": {"core", "net", "auth"},
    "rooms": {"core", "auth", "engines", "protocol", "websocket"},
    "connections": {"core", "net", "auth", "engines", "websocket", "protocol", "http", "rooms"},
    "config": {"core", "net", "system"},
    "client": {"core", "system", "config"},
}
"""Each part of the package, and the parts that it may import from beside itself."""
TOP = (
    ("__init__",),
    ("logs", "copies", "mint"),
    ("metrics", "process", "transfer"),
    ("admin", "credentials", "join", "say", "tail"),
    ("server",),
    ("cli",),
    ("__main__",),
)
"""The modules on top, in storeys: each may import from every part, and from the storeys before its own."""
PURE = frozenset(
    {
        "chatroom.auth.rights",
        "chatroom.auth.tokens",
        "chatroom.auth.webtokens",
        "chatroom.client.backoff",
        "chatroom.client.batches",
        "chatroom.client.completing",
        "chatroom.client.core",
        "chatroom.client.cursor",
        "chatroom.client.events",
        "chatroom.client.frames",
        "chatroom.client.lines",
        "chatroom.client.outbox",
        "chatroom.client.owner",
        "chatroom.client.printable",
        "chatroom.client.roomview",
        "chatroom.client.screen",
        "chatroom.client.typed",
        "chatroom.client.typedline",
        "chatroom.client.typingmarks",
        "chatroom.client.unread",
        "chatroom.config.options",
        "chatroom.config.parsers",
        "chatroom.engines.changes",
        "chatroom.engines.redis.leases",
        "chatroom.engines.redis.pushes",
        "chatroom.http.api",
        "chatroom.http.body",
        "chatroom.http.csp",
        "chatroom.http.exchange",
        "chatroom.http.handshake",
        "chatroom.http.page",
        "chatroom.net.proxies",
        "chatroom.rooms.changes",
        "chatroom.rooms.ring",
        "chatroom.rooms.roster",
        "chatroom.rooms.sequence",
        "chatroom.websocket.framing",
        "chatroom.websocket.keepalive",
    }
)
"""The pure core of each part; all of `core` and `protocol` is pure as well."""
NOT_PURE = frozenset(
    {
        "trio",
        "trio_websocket",
        "time",
        "asyncio",
        "socket",
        "threading",
        "ssl",
        "select",
        "selectors",
        "subprocess",
    }
    | {
        "multiprocessing",
        "random",
        "secrets",
        "os",
        "datetime",
        "pathlib",
        "signal",
        "sqlite3",
        "io",
        "tempfile",
    }
)
"""What no pure module may import: Trio, I/O, clocks, threads, chance."""
KNOWS_CONFIGURATION = {"chatroom.client.settings"}
"""Known at the top only beside it: below, configuration is named arguments."""


def part_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "top"


def is_pure(module: str) -> bool:
    return part_of(module) in {"core", "protocol"} or module in PURE


@cache
def imports_of(module: str, source: str, *, for_types: bool = False) -> tuple[str, ...]:
    """Every module that `source` imports, wherever the import stands; imports for types alone on request."""
    return tuple(_imports(module, source, for_types=for_types))


def _imports(module: str, source: str, *, for_types: bool) -> Iterator[str]:
    tree = ast.parse(source)
    typing_only = {
        inner
        for node in ast.walk(tree)
        if not for_types and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            assert node.module is not None
            if node.module in PACKAGES:
                # A name in a package is a module of it, except for what its __init__ holds.
                yield from (
                    node.module if alias.name.startswith("__") else f"{node.module}.{alias.name}"
                    for alias in node.names
                )
            else:
                yield node.module


def storey_of(module: str) -> int:
    name = module.removeprefix("chatroom.") if module != "chatroom" else "__init__"
    return next(number for number, storey in enumerate(TOP) if name in storey)


def faults_of(module: str, source: str) -> list[str]:
    """What in `source` breaks the rules."""
    faults = []
    part = part_of(module)
    for imported in imports_of(module, source):
        if imported.partition(".")[0] != "chatroom":
            if is_pure(module) and imported.partition(".")[0] in NOT_PURE:
                faults.append(f"{module} imports {imported}: it is pure, does no I/O and has no clock")
            continue
        target = part_of(imported)
        if part == target == "top":
            if storey_of(imported) >= storey_of(module) and imported != "chatroom":
                faults.append(f"{module} imports {imported}: imports on top go one way, too")
        elif part not in {"top", target} and target not in MAY_IMPORT[part] and imported != "chatroom":
            faults.append(f"{module} imports {imported}: {part} may not import from {target}")
        elif is_pure(module) and target == part and not is_pure(imported):
            faults.append(f"{module} imports {imported}: it is pure, the other is not")
    return faults


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PACKAGES = {module_of(path) for path in (ROOT / "chatroom").rglob("__init__.py")}
SOURCES = {module_of(path): path.read_text() for path in sorted((ROOT / "chatroom").rglob("*.py"))}


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_downward(module: str) -> None:
    assert faults_of(module, SOURCES[module]) == []


def test_every_module_has_a_place() -> None:
    modules = set(SOURCES)
    top = {module for module in modules if part_of(module) == "top"}
    assert top == {
        "chatroom" if name == "__init__" else f"chatroom.{name}" for storey in TOP for name in storey
    }
    assert {part_of(module) for module in modules} == {*MAY_IMPORT, "top"}
    assert modules >= PURE
    assert all(module.count(".") <= 2 or part_of(module) == "engines" for module in modules)


def test_the_parts_have_no_circle() -> None:
    """Each part may import only from those that stand before it."""
    before: set[str] = set()
    for part, may in MAY_IMPORT.items():
        assert may <= before, part
        before.add(part)


def test_the_configuration_is_known_to_those_who_are_named() -> None:
    knowing = {
        module
        for module, source in SOURCES.items()
        if part_of(module) not in {"config", "top"}
        and any(name.startswith("chatroom.config") for name in imports_of(module, source))
    }
    assert knowing == KNOWS_CONFIGURATION


def test_every_module_says_what_it_is() -> None:
    for module, source in SOURCES.items():
        assert ast.get_docstring(ast.parse(source)), module


def test_no_two_modules_import_each_other() -> None:
    """Not for their types either."""
    graph = {
        module: {name for name in imports_of(module, source, for_types=True) if name.startswith("chatroom.")}
        for module, source in SOURCES.items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle of imports: {way}"
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_what_is_imported_is_there() -> None:
    """The other way round from the map: a name that the checks take for a module is one."""
    for module, source in SOURCES.items():
        for imported in imports_of(module, source):
            if imported.startswith("chatroom"):
                assert importlib.util.find_spec(imported) is not None, (module, imported)


PLANTED = [
    ("chatroom.core.names", "import trio"),
    ("chatroom.core.names", "from chatroom.protocol import codec"),
    ("chatroom.protocol.codec", "import time"),
    ("chatroom.protocol.codec", "import trio.testing"),
    ("chatroom.protocol.codec", "from asyncio import sleep"),
    ("chatroom.protocol.codec", "import json, socket"),
    ("chatroom.protocol.codec", "def f():\n    import threading"),
    (
        "chatroom.protocol.codec",
        "try:\n    import chatroom.rooms.room\nexcept ImportError:\n    pass",
    ),
    ("chatroom.protocol.codec", "from chatroom.config.settings import Settings"),
    ("chatroom.rooms.ring", "import time"),
    ("chatroom.rooms.ring", "from chatroom.rooms.broker import Broker"),
    ("chatroom.websocket.wire", "from chatroom.rooms.room import Subscription"),
    ("chatroom.websocket.wire", "import chatroom.rooms.room"),
    ("chatroom.websocket.wire", "from chatroom.rooms import room"),
    ("chatroom.websocket.wire", "from chatroom import server"),
    ("chatroom.connections.incoming", "from chatroom.config.settings import Settings"),
    ("chatroom.connections.incoming", "from chatroom.config import settings"),
    ("chatroom.rooms.broker", "from chatroom.connections.connection import Connection"),
    ("chatroom.engines.sqlite.log", "from chatroom.rooms.room import Room"),
    ("chatroom.connections.acceptor", "from chatroom.server import Server"),
    ("chatroom.server", "from chatroom.cli import main"),
    ("chatroom.metrics", "from chatroom import server"),
]


@pytest.mark.parametrize(("module", "source"), PLANTED)
def test_the_check_finds_what_is_planted(module: str, source: str) -> None:
    assert len(faults_of(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("chatroom.protocol.codec", "import json\nfrom chatroom.core.errors import CommandError"),
        ("chatroom.protocol.codec", "from chatroom.protocol import events"),
        ("chatroom.rooms.room", "if TYPE_CHECKING:\n    from chatroom.server import Server"),
        (
            "chatroom.server",
            "from chatroom import __version__\nfrom chatroom.connections.acceptor import Acceptor",
        ),
        ("chatroom.config.settings", "from chatroom import __version__"),
        ("chatroom.websocket.wire", "import trio\nimport socket"),
    ],
)
def test_the_check_lets_pass_what_may_be(module: str, source: str) -> None:
    assert faults_of(module, source) == []
