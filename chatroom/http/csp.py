"""The Content-Security-Policy of the browser client, computed from the page itself.

Owns: which blocks of the page may run, and what the page may reach.

1. The page has exactly one inline `<script>` and one inline `<style>`, without attributes; each is allowed
   by its SHA-256 hash. There is no `unsafe-inline`, no `unsafe-eval` and no outside origin.
2. Served at `/`, the page speaks to its own origin only. Opened from a file it may speak to any server, by
   a policy in its own `<meta>`, which is otherwise no weaker.
3. No string ever becomes HTML or script: Trusted Types are required, and none can be made.
4. A page that breaks rule 1 is an error of this project (`ValueError`), never served with a weaker policy.

Doesn't know: where the page comes from or who serves it. Knows of HTML only that a block ends at its end tag.
"""

import base64
import hashlib
import re

_SHARED = "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
_ANY_SERVER = "ws: wss: http: https:"
_META = re.compile(rb'(<meta http-equiv="Content-Security-Policy" content=")([^"]*)(">)')


def policy(html: bytes) -> str:
    """The header to serve `html` with: for its own origin alone, and never inside a frame."""
    return _policy(html, connect="'self'") + "; frame-ancestors 'none'"


def file_policy(html: bytes) -> str:
    """The policy that `html` states in its `<meta>`; `frame-ancestors` has no meaning there."""
    return _policy(html, connect=_ANY_SERVER)


def stated_policy(html: bytes) -> str:
    """The policy that stands in the page's `<meta>` now."""
    found = _META.findall(html)
    if len(found) != 1:
        raise ValueError("the page must state exactly one Content-Security-Policy")
    return str(found[0][1], "utf-8")


def seal(html: bytes) -> bytes:
    """The page with its `<meta>` made right, for whoever has edited its script or style."""
    stated_policy(html)
    fresh = file_policy(html).encode()
    return _META.sub(lambda match: match[1] + fresh + match[3], html)


def _policy(html: bytes, *, connect: str) -> str:
    script, style = _hash(html, b"script"), _hash(html, b"style")
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; "
        f"connect-src {connect}; img-src data:; manifest-src data:; {_SHARED}"
    )


def _hash(html: bytes, tag: bytes) -> str:
    """The source expression of the one inline block `tag`. Browsers hash what they parsed: LF line ends."""
    blocks = re.findall(rb"<" + tag + rb">(.*?)</" + tag + rb">", html, re.DOTALL)
    if len(blocks) != 1 or len(re.findall(rb"<" + tag + rb"\b", html, re.IGNORECASE)) != 1:
        raise ValueError(f"the page must have exactly one inline <{tag.decode()}>, without attributes")
    digest = hashlib.sha256(blocks[0].replace(b"\r\n", b"\n")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
