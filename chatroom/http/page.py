"""The browser client: one HTML file, served as it is, under a policy computed from it.

Owns how `client.html` is answered to a browser; nothing of what is in it.

1. The page is compressed once, at the start. A browser that takes gzip gets those bytes.
2. Browsers may keep the page, and ask by its ETag whether it is still the same one (RFC 9110 section 13.1.2).
   `no-store` would keep the page out of their back-forward caches.
3. Where the development tokens are taken, `Server-Timing` names one, so that the page can tell a newcomer: a
   page can read this header of itself, and it leaves the page's bytes and its policy alone.

The Content-Security-Policy of the browser client, computed from the page itself.

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
import gzip
import hashlib
import re

from chatroom.core.http import Request, Response

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


_TYPE = "text/html; charset=utf-8"
_GZIP = re.compile(r"(?:gzip|\*)\s*(?:;\s*q=(?P<weight>[0-9.]+)\s*)?", re.IGNORECASE)


class Page:
    """The answers to `GET /`."""

    def __init__(self, html: bytes, *, development_token: str | None = None) -> None:
        """`development_token`: one that everybody may use here, if there is any."""
        tag = hashlib.sha256(html).hexdigest()[:16]
        shared = [
            ("Content-Security-Policy", policy(html)),
            ("Cache-Control", "no-cache"),
            ("Vary", "Accept-Encoding"),
        ]
        if development_token is not None:
            shared.append(("Server-Timing", f'development-token;desc="{development_token}"'))
        self._plain = Response(200, html, _TYPE, (*shared, ("ETag", f'"{tag}"')))
        zipped = (*shared, ("ETag", f'"{tag}-gzip"'), ("Content-Encoding", "gzip"))
        self._zipped = Response(200, gzip.compress(html, mtime=0), _TYPE, zipped)
        self._tags = frozenset({f'"{tag}"', f'"{tag}-gzip"', "*"})

    def answer(self, request: Request) -> Response:
        """The page, or 304 if the browser has it already."""
        page = self._zipped if takes_gzip(request) else self._plain
        known = {
            tag.strip().removeprefix("W/") for tag in ",".join(request.values("if-none-match")).split(",")
        }
        if known.isdisjoint(self._tags):
            return page
        kept = tuple(header for header in page.headers if header[0] != "Content-Encoding")
        return Response(304, headers=kept)


def takes_gzip(request: Request) -> bool:
    """Whether Accept-Encoding allows gzip, by its name or by `*` (RFC 9110 section 12.5.3)."""
    weights: dict[str, float] = {}
    for member in ",".join(request.values("accept-encoding")).split(","):
        found = _GZIP.fullmatch(member.strip())
        if found is not None:
            name = "*" if found[0].startswith("*") else "gzip"
            weights[name] = _weight(found["weight"])
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(text: str | None) -> float:
    """The value of `q`; one that can't be read allows nothing."""
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0
