"""All pages: links lead somewhere, and nothing of the machine on which they were written is in them."""

import re
from pathlib import Path

import pytest

from chatroom import __version__
from chatroom.admin import ADMIN_OPTIONS
from chatroom.config.options import OPTIONS
from chatroom.mint import TOKEN_OPTIONS
from chatroom.say import SAY_OPTIONS
from chatroom.tail import TAIL_OPTIONS
from chatroom.transfer import OUTPUT
from tests.support.pages import ROOT, pages

PAGES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in pages()]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked by."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_something_here(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_no_page_knows_the_machine_on_which_it_was_written(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"(?<![\w.:])/(?:home|root|work|tmp|Users|mnt|srv)/", text)
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text


@pytest.mark.parametrize("page", PAGES)
def test_options_of_the_server_are_spelt_right(page: Path) -> None:
    options = (*OPTIONS, *TOKEN_OPTIONS, *ADMIN_OPTIONS, *SAY_OPTIONS, *TAIL_OPTIONS, OUTPUT)
    flags = {option.flag for option in options} | {"--version", "--help"}
    shown = re.findall(r"chat\.pyz ([^`|\n]*)", page.read_text("utf-8"))
    for arguments in shown:
        assert set(re.findall(r"(?<!\S)--[\w-]+", arguments)) <= flags, arguments


def test_the_pages_that_must_be_here_are() -> None:
    names = {str(path.relative_to(ROOT)) for path in pages()}
    assert names >= {
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/README.md",
        "docs/first-steps.md",
        "docs/releasing.md",
        "docs/security.md",
        "docs/cluster.md",
        "docs/protocol.md",
        "docs/operations.md",
        "docs/architecture.md",
        "benchmarks/README.md",
    }


def test_this_version_has_its_changes() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == __version__


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/releasing.md"])
def test_the_commands_for_contributors_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    modules = re.findall(r"python -m ([\w.]+)", text)
    assert modules
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for name in re.findall(r"(?:^| |`)((?:tests|chatroom|docs)/[a-z_/]+\.\w+)", text):
        assert (ROOT / name).is_file(), name
