"""What is here for contributors and maintainers: hooks, editor settings, forms and the release checklist."""

import configparser
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.pages import ROOT, blocks

FOLDERS = (".ci", ".github", "benchmarks", "bundle", "chatroom", "docs", "findings", "requirements", "tests")
TEMPLATES = ROOT / ".github"


def texts() -> list[Path]:
    """The project's text files."""
    beside = [path for path in ROOT.iterdir() if path.suffix in {".md", ".sh", ".toml", ".yaml", ".html"}]
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in (*beside, *inside) if not {"__pycache__", "images"} & {*path.parts}]


def test_the_hooks_run_what_the_tests_run() -> None:
    checked = re.findall(r"^check (?:style|format|types) (.+)$", (ROOT / "test.sh").read_text(), re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert len(checked) == 3
    assert re.findall(r"^ +entry: (.+)$", hooks, re.MULTILINE) == checked
    assert re.findall(r"^ +language: (.+)$", hooks, re.MULTILINE) == ["system"] * 3


# Editors


def settings_for(path: Path) -> dict[str, str]:
    """What .editorconfig says of a file; later sections win."""
    parser = configparser.ConfigParser()
    parser.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    found: dict[str, str] = {}
    for pattern in parser.sections()[1:]:
        braced = re.search(r"\{(.+)\}", pattern)
        choices = [pattern.replace(braced[0], each) for each in braced[1].split(",")] if braced else [pattern]
        if any(fnmatch(path.name, choice) for choice in choices):
            found |= dict(parser[pattern])
    return found


def test_the_tree_is_as_editors_are_told() -> None:
    seen = set()
    for path in texts():
        wanted = settings_for(path)
        seen.add(wanted["indent_style"])
        text = path.read_bytes().decode(wanted["charset"])
        assert text.endswith("\n") or not text, path
        assert "\r" not in text, path
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), path
        if wanted["indent_style"] == "space":
            assert not re.search(r"^\t", text, re.MULTILINE), path
        if wanted["indent_style"] == "tab":
            assert re.search(r"^\t", text, re.MULTILINE), path
    assert seen == {"space", "tab", "unset"}


# Forms


def test_the_forms_ask_for_what_is_needed_and_for_no_secret() -> None:
    bug = (TEMPLATES / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    assert re.findall(r"^    id: (\w+)$", bug, re.MULTILINE) == ["version", "command", "steps", "log"]
    assert "`./chat.pyz --version`" in bug
    assert "Remove tokens, passwords and keys" in bug


@pytest.mark.parametrize(
    "form", ["ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/feature.yml", "PULL_REQUEST_TEMPLATE.md"]
)
def test_what_a_form_names_is_here(form: str) -> None:
    text = (TEMPLATES / form).read_text()
    for name in re.findall(r"\b[A-Z]+\.md\b|(?<=`)docs/(?=`)|\btest\.sh\b", text):
        assert (ROOT / name).exists(), name
    readme = (ROOT / "README.md").read_text("utf-8")
    for heading in re.findall(r'README lists under "([^"]+)"', text):
        assert f"\n## {heading}\n" in readme


# Releases

RELEASING = (ROOT / "docs" / "releasing.md").read_text("utf-8")


def release_commands() -> list[list[str]]:
    """Each command of the checklist as its words, without the variables that are set for it."""
    text = re.sub(r"^ +(?=```)|^   (?=\S)", "", RELEASING, flags=re.MULTILINE)
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    commands = [command.split() for line in lines for command in line.split(" && ")]
    return [[word for word in command if not re.match(r"[A-Z_]+=", word)] for command in commands]


def test_the_commands_of_a_release_exist() -> None:
    commands = release_commands()
    assert ["./test.sh"] in commands
    assert ["./build.sh"] in commands
    for first, *words in commands:
        if "/" in first:
            script = ROOT / first.removeprefix(".build/again/")
            assert script.stat().st_mode & 0o111, first
        else:
            assert shutil.which(first), first
        for word in words:
            assert not word.startswith("tests/") or (ROOT / word).is_file(), word


def test_the_reproducible_build_compares_two_builds() -> None:
    commands = release_commands()
    order = [
        ["git", "clone", "--quiet", "--branch", "v0.1.0", ".", ".build/again"],
        [".build/again/build.sh"],
        ["./build.sh"],
        ["cmp", "chat.pyz", ".build/again/chat.pyz"],
    ]
    places = [commands.index(command) for command in order]
    assert places == sorted(places)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/.build/", "/chat*.pyz", "/chat*.pyz.sha256"} <= {*ignored}


# Every page can be found


def test_every_file_of_the_documentation_is_linked() -> None:
    links = set()
    for page in (ROOT / "README.md", ROOT / "docs" / "README.md"):
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            links.add((page.parent / link).resolve())
    files = {path for path in (ROOT / "docs").rglob("*") if path.is_file()} - {ROOT / "docs" / "README.md"}
    assert files <= links
    assert (ROOT / "docs" / "README.md") in links
    assert (ROOT / "SECURITY.md") in links
