"""Whose a token is, as far as it tells by itself: what is kept for one person isn't used for another one.

1. A web token (RFC 7519) is renewed every few minutes. What it says of its owner stays; its times and what
   else is its own do not count.
2. Any other token stands for its owner.
3. Nothing is checked here, nor can a token be made out of what is returned.

It doesn't know what is kept.
"""

import hashlib
import json
from base64 import urlsafe_b64decode

from chatroom.core.jsontext import decoder

_OF_ONE_TOKEN = frozenset(
    {"exp", "iat", "nbf", "jti", "auth_time", "nonce", "sid", "at_hash", "c_hash", "s_hash"}
)
"""Claims that differ from one token of a person to the next (RFC 7519, 4.1; OpenID Connect Core, 2)."""
_DECODER = decoder(dict)


def owner_of(token: str) -> str:
    """A name for whoever has the token: the same for all web tokens of one person."""
    claims = _claims(token)
    own = {name: value for name, value in claims.items() if name not in _OF_ONE_TOKEN}
    said = json.dumps(own, sort_keys=True) if own else token
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _claims(token: str) -> dict[str, object]:
    """What a web token claims; nothing if it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = _DECODER.decode(urlsafe_b64decode(parts[1] + "==").decode())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
