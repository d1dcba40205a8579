"""What a web token says once its signature is proven: the claims of RFC 7519, read strictly.

1. `sub` and `exp` are required. `sub` must be a username in its one clean form: an issuer that tells two
   accounts apart must not see them become one name here.
2. Clocks may differ by LEEWAY: a token is good so long after its `exp`, and so long before its `nbf`.
3. `exp` may be at most MOST_AHEAD ahead, and so may `iat`: nothing is good for ever.
4. Dates are numbers of seconds, not below zero, integers or with a fraction, which is cut off. A truth value
   is no number.
5. An `aud` must name the audience that is expected, and there must be one. Where none is expected, a token
   with an `aud` is meant for somebody else. An `iss` counts where one is expected.
6. Claims that are not named here mean nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatroom.auth.rights import Rights
from chatroom.core.names import clean_username

LEEWAY = 30
"""Seconds by which the clock of an issuer may be wrong."""
MOST_AHEAD = 30 * 24 * 3600
_LAST_DATE = 2**53
"""Beyond it a number with a fraction may stand for another one than it says."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What was claimed, and holds at the moment."""

    username: str
    rights: Rights
    expires: int


@dataclass(frozen=True, slots=True)
class Expected:
    """For whom tokens must be, and from whom; None: for nobody in particular, from anybody with the key."""

    audience: str | None = None
    issuer: str | None = None


def read_claims(claims: Mapping[str, Any], expected: Expected, now: float) -> Claims:
    """What the claims say at `now`, in seconds since 1970; ValueError if they prove nothing."""
    expires = _read_dates(claims, now)
    _check_parties(claims, expected)
    rights = Rights.parse(claims["rooms"]) if "rooms" in claims else Rights.everything()
    return Claims(_read_subject(claims), rights, expires)


def has_expired(expires: int, now: float) -> bool:
    """Whether a token with this `exp` is good no longer."""
    return now >= expires + LEEWAY


def _read_dates(claims: Mapping[str, Any], now: float) -> int:
    dates = {name: _read_date(name, claims[name]) for name in ("exp", "nbf", "iat") if name in claims}
    if "exp" not in dates:
        raise ValueError("exp: missing")
    if has_expired(dates["exp"], now):
        raise ValueError("exp: over")
    if max(dates["exp"], dates.get("iat", 0)) > now + MOST_AHEAD + LEEWAY:
        raise ValueError("exp or iat: too far ahead")
    if dates.get("nbf", 0) > now + LEEWAY:
        raise ValueError("nbf: not yet")
    return dates["exp"]


def _read_date(name: str, value: object) -> int:
    if type(value) not in (int, float) or not 0 <= value <= _LAST_DATE:  # type: ignore[operator]
        raise ValueError(f"{name}: not a date")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _check_parties(claims: Mapping[str, Any], expected: Expected) -> None:
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise ValueError("aud: neither a string nor a list of strings")
    if expected.audience is None and "aud" in claims:
        raise ValueError("aud: meant for somebody else")
    if expected.audience is not None and expected.audience not in audiences:
        raise ValueError("aud: not meant for us")
    if expected.issuer is not None and claims.get("iss") != expected.issuer:
        raise ValueError("iss: not the issuer")


def _read_subject(claims: Mapping[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or clean_username(subject) != subject:
        raise ValueError("sub: not a username, or not in its clean form")
    return subject
