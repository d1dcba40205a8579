"""A Chromium for files of this folder that follow each other: to start one takes as long as two visitors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A Chromium, in which each visitor has a profile; it ends before tests of another folder begin."""
    with chromium() as running:
        yield running
