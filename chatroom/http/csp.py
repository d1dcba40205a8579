"""The Content-Security-Policy of the browser client, computed from the page itself.

Owns which blocks of the page may run, and which servers the page may reach. Rules:

1. The page has exactly two inline scripts and one inline `<style>`; each is allowed by its SHA-256 hash.
   There is no `unsafe-inline`, no `unsafe-eval` and no outside origin. The second script is inert in the
   document: the first one starts it, and browsers look for its hash then.
2. Served at `/`, the page speaks to its own origin only. Opened from a file it may speak to any server, by
   a policy in its own `<meta>`, which is otherwise no weaker.
3. No string ever becomes HTML or script: Trusted Types are required, and none can be made.
4. A page that breaks rule 1 is an error of this project (`ValueError`), and never served with a weaker
   policy.

It doesn't know where the page comes from. Of HTML it knows only that a block ends at its end tag.
"""

import base64
import hashlib
import re

_SHARED = "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
_ANY_SERVER = "ws: wss: http: https:"
_STARTS = {b"script": [b"<script>", b'<script type="text/plain" id="rest">'], b"style": [b"<style>"]}
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
    """The page with the right policy in its `<meta>`, after its script or style was edited."""
    stated_policy(html)
    fresh = file_policy(html).encode()
    return _META.sub(lambda match: match[1] + fresh + match[3], html)


def _policy(html: bytes, *, connect: str) -> str:
    scripts, style = _hashes(html, b"script"), _hashes(html, b"style")
    return (
        f"default-src 'none'; script-src {scripts}; style-src {style}; "
        f"connect-src {connect}; img-src data:; manifest-src data:; {_SHARED}"
    )


def _hashes(html: bytes, tag: bytes) -> str:
    """The source expressions of the inline blocks `tag`. Browsers hash what they parsed: LF line ends."""
    blocks = re.findall(rb"(<" + tag + rb"\b[^>]*>)(.*?)</" + tag + rb">", html, re.DOTALL)
    starts = [start for start, _ in blocks]
    if starts != _STARTS[tag] or len(re.findall(rb"<" + tag + rb"\b", html, re.IGNORECASE)) != len(starts):
        wanted = b" ".join(_STARTS[tag]).decode()
        raise ValueError(f"the page must have exactly these inline blocks: {wanted}")
    digests = (hashlib.sha256(text.replace(b"\r\n", b"\n")).digest() for _, text in blocks)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
