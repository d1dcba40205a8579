"""Names of users and rooms: which are accepted, and the one form in which each is known from then on.

1. A name is what the profile UsernameCasePreserved of RFC 8265 makes of the input: full- and half-width
   forms mapped to the ordinary ones, composed (NFC), case kept, and nothing but letters, digits, marks and
   printable ASCII without the space. Everything that compares or shows names uses this form.
2. A clean name is stable: cleaning it again changes nothing.
3. Names that differ by something invisible can't coexist. The profile refuses format characters, fillers
   and variation selectors; the few it lets through in some place (the zero-width joiners after an Indic
   vowel killer, say, where many fonts draw nothing at all) are refused here too.
4. Input too long to become a valid name is refused before the profile looks at it: some of the profile's
   rules read the whole string again for each of its characters.
5. An error is a ValueError with a sentence for people. It never repeats the input, nor carries it along.
6. The Unicode version of the running Python decides which characters are letters (3.11 has 14.0, 3.13 has
   15.1): a name in a script newer than that is refused.

It doesn't know fonts: letters of different scripts that look alike (Latin a, Cyrillic a) make different
names.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from precis_i18n import get_profile

USERNAME_MAX = 32
ROOM_MAX = 64

_PROFILE = get_profile("UsernameCasePreserved")
_PLAIN = re.compile(r"[!-~]+")
"""What the profile returns unchanged: ASCII without space and controls."""

_INVISIBLE = frozenset(
    "\u200c\u200d\u2d7f\U0001107f\U000113d0\U00011a47\U00011a99\U00013440\U00016fe4\U0001bc9d"
)
"""Joiners, fillers and selectors that pass the profile in some place and may draw nothing there."""

_MOST_DECOMPOSED = 4
"""No character decomposes canonically into more than this many: composing shrinks at most so far."""

_REASONS = {
    "spaces": "may not contain spaces",
    "controls": "may not contain control characters",
    "precis_ignorable_properties": "may not contain invisible characters",
    "bidi_rule": "may not mix writing directions that way",
    "symbols": "may not contain symbols",
    "punctuation": "may not contain punctuation beyond ASCII",
    "unassigned": "may not contain characters unknown to this server's Unicode version",
}


def clean_username(raw: str) -> str:
    """The one form of the username `raw`. Raises ValueError if it can't be one."""
    return _clean("username", raw, USERNAME_MAX)


def clean_room(raw: str) -> str:
    """The one form of the room name `raw`. Raises ValueError if it can't be one."""
    return _clean("room", raw, ROOM_MAX)


def clean_room_pattern(raw: str) -> str:
    """The form of the glob `raw` that can be matched with clean room names.

    Its characters must fit the same profile as a room's, except for the rule about writing directions: that
    is about whole names, and a pattern is a part of one. Raises ValueError if no room name can match.
    """
    if not raw or len(raw) > ROOM_MAX:
        raise ValueError(f"room pattern must have 1 to {ROOM_MAX} characters")
    pattern = _compose(raw)
    reason = _fault(pattern, _PROFILE.base.enforce)
    if reason:
        raise ValueError(f"room pattern {reason}")
    return pattern


def _clean(what: str, raw: str, most: int) -> str:
    if not raw or len(raw) > most * _MOST_DECOMPOSED:
        raise ValueError(f"{what} must have 1 to {most} characters")
    if not _PLAIN.fullmatch(raw):
        return _clean_beyond_ascii(what, raw, most)
    if len(raw) > most:
        raise ValueError(f"{what} must have 1 to {most} characters")
    return raw


@lru_cache(maxsize=1024)
def _clean_beyond_ascii(what: str, raw: str, most: int) -> str:
    name = _compose(raw)
    if len(name) > most:
        raise ValueError(f"{what} must have 1 to {most} characters")
    reason = _fault(name, _PROFILE.enforce)
    if reason:
        raise ValueError(f"{what} {reason}")
    return name


def _compose(raw: str) -> str:
    """Apply the mappings of the profile, without its tests. Surrogates pass; the tests refuse them."""
    return unicodedata.normalize("NFC", _PROFILE.width_mapping_rule(raw))


def _fault(name: str, enforce: Callable[[str], str]) -> str | None:
    """Why `enforce` refuses the composed `name`, in words for people; None if it is clean and stable."""
    if not _INVISIBLE.isdisjoint(name):
        return _REASONS["precis_ignorable_properties"]
    try:
        stable = enforce(name) == name
    except UnicodeEncodeError as error:  # it holds the input: only its reason may leave
        kind = error.reason.rpartition("/")[2]
        return _REASONS.get(kind, "may only contain letters, digits and ASCII punctuation")
    return None if stable else "has no stable form"
