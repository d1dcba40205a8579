"""The policy is computed from the page, and the page in this repository carries the right one."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from chatroom.http.csp import file_policy, policy, seal, stated_policy
from tests.support.seal import PAGE

META = b'<meta http-equiv="Content-Security-Policy" content="old">'
SCRIPT = b"\n'use strict';\n"
STYLE = b"\np { margin: 0; }\n"
REST = b"\nrest();\n"
INERT = b'<script type="text/plain" id="rest">' + REST + b"</script>"
SMALL = META + b"<style>" + STYLE + b"</style><p>hello</p><script>" + SCRIPT + b"</script>" + INERT


def source(block: bytes) -> str:
    """What a browser compares an inline block with."""
    return f"'sha256-{b64encode(sha256(block).digest()).decode()}'"


def directives(text: str) -> dict[str, str]:
    """The directives of a policy by name."""
    return dict(part.strip().split(" ", 1) for part in text.split(";"))


def test_only_the_inline_blocks_may_run_and_only_the_own_origin_is_reached() -> None:
    assert directives(policy(SMALL)) == {
        "default-src": "'none'",
        "script-src": f"{source(SCRIPT)} {source(REST)}",
        "style-src": source(STYLE),
        "connect-src": "'self'",
        "img-src": "data:",
        "manifest-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
        "frame-ancestors": "'none'",
    }


def test_a_page_from_a_file_differs_only_in_whom_it_may_speak_to() -> None:
    served, filed = directives(policy(SMALL)), directives(file_policy(SMALL))
    assert filed.pop("connect-src") == "ws: wss: http: https:"
    del served["connect-src"], served["frame-ancestors"]
    assert filed == served


def test_a_changed_byte_changes_the_hash() -> None:
    assert policy(SMALL) != policy(SMALL.replace(b"strict", b"Strict"))
    assert policy(SMALL) != policy(SMALL.replace(b"rest()", b"Rest()"))
    assert policy(SMALL) != policy(SMALL.replace(b"margin: 0", b"margin: 1"))
    assert policy(SMALL) == policy(SMALL.replace(b"hello", b"goodbye"))


def test_line_ends_are_hashed_as_a_browser_reads_them() -> None:
    assert policy(SMALL.replace(b"\n", b"\r\n")) == policy(SMALL)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        SMALL.replace(b"<script>", b'<script src="https://elsewhere.example/x.js">'),
        SMALL + b"<script>more()</script>",
        SMALL + b"<SCRIPT>more()</SCRIPT>",
        SMALL.replace(b"<style>", b"<style media=print>"),
        SMALL + b"<style></style>",
        SMALL.replace(b"</script>", b""),
        SMALL.replace(INERT, b""),
        SMALL.replace(b"text/plain", b"module"),
        SMALL.replace(INERT, b"").replace(b"<script>", INERT + b"<script>"),
    ],
)
def test_a_page_that_needs_a_weaker_policy_is_refused(page: bytes) -> None:
    with pytest.raises(ValueError, match="exactly these inline blocks"):
        policy(page)


def test_sealing_states_the_policy_and_changes_nothing_else() -> None:
    sealed = seal(SMALL)
    assert stated_policy(sealed) == file_policy(SMALL)
    assert sealed.replace(stated_policy(sealed).encode(), b"old") == SMALL
    assert seal(sealed) == sealed


@pytest.mark.parametrize("page", [SMALL.replace(META, b""), META + SMALL])
def test_a_page_states_exactly_one_policy(page: bytes) -> None:
    with pytest.raises(ValueError, match="exactly one Content-Security-Policy"):
        seal(page)


def test_the_page_states_the_right_policy() -> None:
    page = PAGE.read_bytes()
    expected = file_policy(page)
    assert stated_policy(page) == expected, (
        f"run `python -m tests.support.seal`; the policy is now: {expected}"
    )


def test_the_page_has_nothing_that_the_policy_would_block() -> None:
    page = PAGE.read_text("utf-8")
    markup = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"<[^>]*\s(style|on\w+)\s*=", markup)
    assert not re.search(r"javascript:", page, re.IGNORECASE)
    assert not re.search(
        r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|new Function)\b", page
    )
    assert set(re.findall(r"https?://[^\s'\"`>]+", page)) == {"http://www.w3.org/2000/svg"}
