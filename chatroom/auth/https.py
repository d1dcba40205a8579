"""One small document from an https address.

1. The server must prove its name, by the certificates that this machine trusts (`SSL_CERT_FILE` may name
   others). The proxy of the environment (`https_proxy`) is used.
2. No redirect is followed: it could lead anywhere, out of TLS as well.
3. Size and time are bounded. The waiting is done in a thread, which is left to itself when the time is over;
   there are never more than THREADS of them, however slowly a server goes on answering.
4. Whatever fails is a StartError that names the address without its query, which may be a secret.
"""

import ssl
from urllib.parse import urlsplit

import trio

from chatroom.core.errors import StartError

DEADLINE_SECONDS = 10.0
MAX_BYTES = 256 * 1024
THREADS = 2
_limiter = trio.CapacityLimiter(THREADS)


def shown(url: str) -> str:
    """An address as it may be seen by others."""
    return urlsplit(url)._replace(query="").geturl()


async def fetch(url: str) -> bytes:
    """What is at `url`."""
    try:
        with trio.fail_after(DEADLINE_SECONDS):
            return await trio.to_thread.run_sync(_fetch, url, abandon_on_cancel=True, limiter=_limiter)
    except trio.TooSlowError:
        reason = f"no answer within {DEADLINE_SECONDS:g} seconds"
    except _Unfit as error:
        reason = str(error)
    raise StartError(
        f"{shown(url)} gave no keys ({reason}): see whether it answers, or give a file"
    ) from None


class _Unfit(Exception):
    """What was found can't be used; why."""


def _fetch(url: str) -> bytes:
    from http.client import HTTPException  # noqa: PLC0415  (slow to import, and rarely needed)
    from urllib import error, request  # noqa: PLC0415  (likewise)

    class NoRedirects(request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPSHandler(context=ssl.create_default_context()),
        NoRedirects(),
        request.HTTPErrorProcessor(),
        request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    headers = {"Accept": "application/jwk-set+json, application/json", "User-Agent": "chatroom"}
    try:
        with opener.open(request.Request(url, headers=headers), timeout=DEADLINE_SECONDS) as answer:  # noqa: S310  (https only)
            body: bytes = answer.read(MAX_BYTES + 1)
    except error.HTTPError as refusal:
        refusal.close()
        raise _Unfit(f"status {refusal.code}") from None
    except (OSError, HTTPException, ValueError) as failure:
        cause = getattr(failure, "reason", failure)
        raise _Unfit(getattr(cause, "verify_message", None) or str(cause) or type(cause).__name__) from None
    if len(body) > MAX_BYTES:
        raise _Unfit(f"more than {MAX_BYTES // 1024} KiB")
    return body
