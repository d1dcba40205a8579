"""Fixtures that every test file may use."""

from __future__ import annotations

import faulthandler
import inspect
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from _pytest.faulthandler import fault_handler_stderr_fd_key
from coverage import Coverage
from hypothesis import settings

from tests.support.browser import Visit, Visitor, chromium
from tests.support.process import PYZ, ROOT, ServerProcess
from tests.support.stores import Kind, Stores

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.register_assert_rewrite("tests.support.engine_contract")  # so that a failure there says why

# Examples are drawn the same way each time, so that a run of the suite can be repeated; a busy machine is
# no failure, so single examples have no deadline.
settings.register_profile("chatroom", deadline=None, derandomize=True)
settings.load_profile("chatroom")
settings.register_profile("quick", settings.get_profile("chatroom"), max_examples=20)  # for ./test.sh --quick


LONG = (
    "test_cluster_faults",
    "test_page_engines",
    "test_cluster_nemesis",
    "test_pyz_build",
    "test_cluster_starts",
    "test_page_place",
    "test_served_dead",
    "test_docs_clients",
    "test_cluster_oddities",
    "test_page_reading",
    "test_served_clock",
    "test_redis_faults",
    "test_page_hostile",
    "test_served_keepalive",
    "test_incoming_order",
    "test_cluster_leases",
)
"""The files that take longest, by turns those that wait and those that work: a run ends with short ones."""
OUTSIDE = ("test_autobahn", "test_cluster", "test_docs", "test_page", "test_pyz", "test_served", "test_wscat")
"""Where tests look at servers from outside. Coverage doubles the work of both, and most of what these run is
measured where modules are tested by themselves; the rest by tests that say `usefixtures("measured")`."""
MEASURING = "COVERAGE_PROCESS_CONFIG"
"""By this variable a process is told to measure itself."""
_HOW_TO_MEASURE = os.environ.get(MEASURING)


@pytest.fixture(scope="session")
def pyz() -> Path:
    """The built file, up to date with the sources (`CHAT_PYZ` names another one to test instead)."""
    chosen = os.environ.get("CHAT_PYZ")
    if chosen:
        return Path(chosen).resolve()
    done = subprocess.run([ROOT / "build.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return PYZ


@pytest.fixture
def alive(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Tell that the test still moves: the time after which a hanging one is ended begins again."""
    seconds = float(request.config.getini("faulthandler_timeout"))
    stderr = request.config.stash[fault_handler_stderr_fd_key]
    return lambda: faulthandler.dump_traceback_later(seconds, exit=True, file=stderr)


def run_on_virtual_clock(main: Callable[[], Awaitable[object]], *, clock: Any = None, **more: Any) -> None:
    """trio.run, but time passes only when everybody waits for it, and then at once."""
    trio.run(main, clock=clock or trio.testing.MockClock(autojump_threshold=0), **more)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """`usefixtures("autojump_clock")` counts for a whole file; pytest-trio looks at arguments only.

    Several workers begin with the files that take long.
    """
    for item in items:
        if "autojump_clock" in item.fixturenames and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=run_on_virtual_clock))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="module", autouse=True)
def _unmeasured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Neither the tests that look from outside nor their servers are measured."""
    here = Coverage.current()
    if not request.path.stem.startswith(OUTSIDE) or here is None:
        yield
        return
    here.stop()
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(MEASURING)
        yield
    here.start()


@pytest.fixture
def measured(_unmeasured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coverage of servers that this test starts counts, also in a file where it doesn't otherwise."""
    if _HOW_TO_MEASURE is not None:
        monkeypatch.setenv(MEASURING, _HOW_TO_MEASURE)


@pytest.fixture
def kind() -> Kind:
    """Whose servers `stores` starts; a test for all kinds says `@pytest.mark.parametrize("kind", Kind)`."""
    return Kind.VALKEY


@pytest.fixture
def stores(tmp_path: Path, kind: Kind) -> Iterator[Stores]:
    """Real stores, which end with the test."""
    stores = Stores(tmp_path, kind)
    yield stores
    stores.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for the tests of one file."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def page_server(browser: Browser, pyz: Path) -> Iterator[ServerProcess]:
    """The server whose page the tests of one file visit; each takes a room of its own."""
    with ServerProcess("--db", "none", "--rate", "0") as running:
        yield running


@pytest.fixture
def visit(browser: Browser, page_server: ServerProcess) -> Iterator[Visit]:
    """Open the page as one more visitor; all are closed, and found without problems, at the end."""
    with ExitStack() as stack:

        def open_page(at: ServerProcess = page_server, **options: Any) -> Visitor:
            visitor = Visitor(browser, at.url, **options)
            stack.callback(visitor.close)
            return visitor

        yield open_page
