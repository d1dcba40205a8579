"""Imports go one way: values, pure, adapters, tasks, and the modules at the top."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ROOT

LAYERS = ("values", "pure", "adapters", "tasks", "top")
TOP = (
    ("__init__", "page"),
    ("lobby", "listeners", "site", "options", "logs"),
    ("storeoptions",),
    ("settings", "metrics", "process"),
    ("advice", "reception", "parts", "backup", "credentials", "mint", "transfer"),
    ("reload",),
    ("server",),
    ("cli",),
    ("__main__",),
)
"""The modules of the top layer, in storeys: each may import only from those before its own."""
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
"""What no module of values and pure may import: I/O, clocks, threads, chance."""
ONE_WAY = frozenset({"chatroom.config.options", "chatroom.config.settings"})
"""Known at the top only: below it, configuration is named arguments."""


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or parts[-1] in LAYERS else "top"


def imports_of(module: str, source: str) -> Iterator[str]:
    """Every module that `source` imports, wherever the import stands; only those for types don't count."""
    tree = ast.parse(source)
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
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
            if node.module in {"chatroom", *(f"chatroom.{layer}" for layer in LAYERS)}:
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
    layer = layer_of(module)
    for imported in imports_of(module, source):
        if imported.partition(".")[0] != "chatroom":
            if layer in {"values", "pure"} and imported.partition(".")[0] in NOT_PURE:
                faults.append(f"{module} imports {imported}: {layer} does no I/O and has no clock")
            continue
        target = layer_of(imported)
        if layer != "top" and imported in ONE_WAY:
            faults.append(f"{module} imports {imported}: only the top knows it")
        elif LAYERS.index(target) > LAYERS.index(layer):
            faults.append(f"{module} imports {imported}: {layer} is below {target}")
        elif target == layer == "top" and storey_of(imported) >= storey_of(module) and imported != "chatroom":
            faults.append(f"{module} imports {imported}: imports at the top go one way, too")
    return faults


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path.read_text() for path in sorted((ROOT / "chatroom").rglob("*.py"))}


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_downward(module: str) -> None:
    assert faults_of(module, SOURCES[module]) == []


def test_every_module_has_a_place() -> None:
    modules = set(SOURCES)
    top = {module for module in modules if layer_of(module) == "top"}
    assert top == {
        "chatroom" if name == "__init__" else f"chatroom.{name}" for storey in TOP for name in storey
    }
    assert {layer_of(module) for module in modules} == set(LAYERS)
    assert all(module.count(".") <= 2 or layer_of(module) == "adapters" for module in modules)


def test_every_module_of_a_layer_says_what_it_is() -> None:
    for module, source in SOURCES.items():
        assert ast.get_docstring(ast.parse(source)), module


def test_no_two_modules_import_each_other() -> None:
    graph = {
        module: {name for name in imports_of(module, source) if name.startswith("chatroom.")}
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
    ("chatroom.core.names", "from chatroom.pure import codec"),
    ("chatroom.protocol.codec", "import time"),
    ("chatroom.protocol.codec", "import trio.testing"),
    ("chatroom.protocol.codec", "from asyncio import sleep"),
    ("chatroom.protocol.codec", "import json, socket"),
    ("chatroom.protocol.codec", "def f():\n    import threading"),
    (
        "chatroom.protocol.codec",
        "try:\n    from chatroom.websocket.wire import Wire\nexcept ImportError:\n    pass",
    ),
    ("chatroom.protocol.codec", "from chatroom.config.settings import Settings"),
    ("chatroom.websocket.wire", "from chatroom.rooms.subscription import Subscription"),
    ("chatroom.websocket.wire", "import chatroom.rooms.subscription"),
    ("chatroom.websocket.wire", "from chatroom.tasks import subscription"),
    ("chatroom.websocket.wire", "from chatroom import server"),
    ("chatroom.connections.incoming", "from chatroom.config.settings import Settings"),
    ("chatroom.connections.incoming", "from chatroom import settings"),
    ("chatroom.connections.incoming", "from chatroom.http.site import ChatSite"),
    ("chatroom.connections.acceptor", "from chatroom.server import Server"),
    ("chatroom.server", "from chatroom.cli import main"),
    ("chatroom.metrics", "from chatroom import reception"),
]


@pytest.mark.parametrize(("module", "source"), PLANTED)
def test_the_check_finds_what_is_planted(module: str, source: str) -> None:
    assert len(faults_of(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("chatroom.protocol.codec", "import json\nfrom chatroom.core.errors import CommandError"),
        ("chatroom.protocol.codec", "from chatroom.pure import events"),
        ("chatroom.rooms.subscription", "if TYPE_CHECKING:\n    from chatroom.server import Server"),
        (
            "chatroom.server",
            "from chatroom import __version__\nfrom chatroom.connections.acceptor import Reception",
        ),
        ("chatroom.config.settings", "from chatroom import __version__"),
        ("chatroom.websocket.wire", "import trio\nimport socket"),
    ],
)
def test_the_check_lets_pass_what_may_be(module: str, source: str) -> None:
    assert faults_of(module, source) == []
