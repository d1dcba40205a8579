"""Parts of a Markdown page, for the tests that hold a page against the code."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pages() -> list[Path]:
    """The project's own pages."""
    folders = ("*.md", ".github/*.md", "docs/**/*.md", "benchmarks/*.md")
    return sorted(path for folder in folders for path in ROOT.glob(folder))


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of the same level or above."""
    marks = r"(#+) " + re.escape(heading)
    found = re.search(rf"^{marks}\n", page, re.MULTILINE)
    assert found, heading
    rest = page[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    found = re.search(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section(page, heading), re.MULTILINE)
    assert found, f"no table under {heading}"
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in found[1].splitlines()]


def words(cell: str) -> list[str]:
    """What stands in code marks."""
    return re.findall(r"`([^`]+)`", cell)


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a kind, each as one text."""
    return re.findall(rf"^```{re.escape(kind)}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def fences(page: str, kind: str) -> list[str]:
    """The lines of all fenced blocks of a kind."""
    return [line for block in blocks(page, kind) for line in block.splitlines()]
