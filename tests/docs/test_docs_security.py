"""docs/security.md names tests that exist, shows commands that work, and leaves no threat without a test."""

import ast
import re
from pathlib import Path

import pytest

from chatroom.config.settings import Settings, read_settings
from chatroom.core.limits import Limits
from chatroom.net.proxies import UNIX
from tests.support.pages import ROOT, blocks, rows, words

PAGE = (ROOT / "docs" / "security.md").read_text()
TABLES = ("Who gets in", "Browsers", "The bytes on the wire", "Exhaustion")
TEST = re.compile(r"(test_\w+)::(test_\w+)")
THREATS = [pytest.param(row, id=row[0][:40]) for table in TABLES for row in rows(PAGE, table)]


def functions_in(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 50
    missing = []
    for file, name in named:
        paths = (ROOT / "tests").rglob(f"{file}.py")
        if not any(name in functions_in(path) for path in paths):
            missing.append(f"{file}::{name}")
    assert missing == []


@pytest.mark.parametrize("row", THREATS)
def test_every_threat_is_met_and_names_its_tests(row: list[str]) -> None:
    threat, how, tests = row
    assert threat
    assert how
    assert words(tests)
    assert all(TEST.fullmatch(each) for each in words(tests))


def test_the_commands_shown_are_accepted() -> None:
    commands = re.findall(r"^    \./chat\.pyz (.+)$", PAGE, re.MULTILINE)
    assert len(commands) >= 2
    trusted = []
    for command in commands:
        found = read_settings(command.split(), {})
        assert isinstance(found, Settings)
        trusted.append(found.trusted_proxies)
    assert any(each and UNIX in each for each in trusted)


def test_the_proxies_are_configured_for_the_defaults() -> None:
    """What the configurations say about the server is what it does without further options."""
    defaults = read_settings([], {})
    assert isinstance(defaults, Settings)
    (nginx,), (caddy,) = blocks(PAGE, "nginx"), blocks(PAGE, "caddy")
    for text in (nginx, caddy):
        assert f"127.0.0.1:{defaults.port}" in text
    limits = Limits()
    read_timeout = re.search(r"proxy_read_timeout (\d+)s", nginx)
    assert read_timeout
    assert float(read_timeout[1]) > limits.ping_interval + limits.ping_timeout
    for text, pattern in ((nginx, r"keepalive_timeout (\d+)s"), (caddy, r"keepalive (\d+)s")):
        kept = re.search(pattern, text)
        assert kept
        assert float(kept[1]) < limits.head_seconds


def test_numbers_in_the_text() -> None:
    limits = Limits()
    for sentence in (
        f"after {limits.wrong_tokens} wrong tokens in a minute",
        f"{limits.head_seconds:.0f} s for a whole head",
        f"at most {limits.unauthenticated} sockets",
        f"pings every {limits.ping_interval:.0f} s",
        f"dropped after {limits.send_timeout:.0f} s without progress",
        f"{limits.frame_fragments} fragments, {limits.frame_seconds:.0f} s",
    ):
        assert sentence in PAGE, sentence
