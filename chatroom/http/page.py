"""The page: the browser client, one HTML file that is served as it is.

Owns the answers to a browser that asks for `client.html`. Rules:

1. The page is compressed once, at the start. A browser that takes gzip gets those bytes.
2. Browsers may keep the page, and ask by its ETag whether it is still the same one (RFC 9110 section 13.1.2).
   `no-store` would keep the page out of their back-forward caches.
3. Where the server takes the development tokens, `Server-Timing` names one, so that the page can show it to a
   newcomer. A page can read its own header of this name, and the page's bytes and policy stay the same.

It doesn't know what is in the page.
"""

import gzip
import hashlib
import re

from chatroom.core.http import Request, Response
from chatroom.http.csp import policy

_TYPE = "text/html; charset=utf-8"
_GZIP = re.compile(r"(?:gzip|\*)\s*(?:;\s*q=(?P<weight>[0-9.]+)\s*)?", re.IGNORECASE)


class Page:
    """The answers to `GET /`."""

    def __init__(self, html: bytes, *, development_token: str | None = None) -> None:
        """`development_token`: a token that everybody may use here, or None."""
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
    """The value of `q`. An unreadable one counts as 0."""
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0
