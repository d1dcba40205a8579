"""The policy of the page holds in a real browser, served and from a file."""

from __future__ import annotations

import pytest

from chatroom.http.csp import policy
from tests.support.browser import PAGE, Visit

A_LATER_ERROR = "new Promise(done => Object.assign(new Image(), {onerror: () => done(), src: location}))"
"""An image, the page as such, that fails after those that were asked for before it."""


def test_the_page_is_served_with_the_strict_policy(visit: Visit) -> None:
    answer = visit().page.request.get(visit().address)
    assert answer.body() == PAGE.read_bytes()
    assert answer.headers["content-security-policy"] == policy(PAGE.read_bytes())


@pytest.mark.parametrize("from_file", [False, True], ids=["served", "file"])
def test_an_injected_script_would_not_run(visit: Visit, from_file: bool) -> None:
    alice = visit(from_file=from_file)
    for attempt in (
        "document.body.innerHTML = '<img src=x onerror=\"window.broken = 1\">'",
        "document.body.append(make('script', '', 'window.broken = 1'))",
        "document.body.setAttribute('onclick', 'window.broken = 1'); document.body.click()",
        "document.body.append(make('style', '', 'body { color: red }'))",
    ):
        alice.page.evaluate(f"() => {{ try {{ {attempt} }} catch {{ }} }}")
    alice.page.evaluate(A_LATER_ERROR)
    assert alice.page.evaluate("window.broken") is None
    assert alice.page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    alice.forgive("console: violation of", "console: ")
