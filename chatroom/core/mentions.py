"""Mentions: which names a text calls by an @.

1. A mention is an @, also a full-width or a small one, and a name, in any letter case and however its accents
   are composed. Of several names that begin there, the longest is called.
2. Nothing that could belong to a word stands before the @, or right behind the name: letters, marks, numbers
   and the underscore. So `@bob,` calls bob, and `@bobby` doesn't.
3. Only the first MAX_SIGNS signs of a text are looked at, and MAX_NAME characters behind each.

The page follows the same rules. They don't know who is where.
"""

import unicodedata
from collections.abc import Collection, Iterator, Mapping

MAX_SIGNS = 50
MAX_NAME = 64
"""A name has half as many; some letters are written as several characters."""
MAX_FOLDED = 4 * MAX_NAME
"""Characters of a name in its folded form: of what a name may have, none is written as more than four."""
SIGNS = "@\uff20\ufe6b"


def fold(name: str) -> str:
    """The form in which names are compared."""
    return unicodedata.normalize("NFKD", name).lower()


def mentions(text: str, names: Mapping[str, Collection[str]]) -> frozenset[str]:
    """The names that `text` calls; `names` has them by their folded forms."""
    return frozenset(name for at in _signs(text) for name in _called_behind(text, at, names))


def _signs(text: str) -> Iterator[int]:
    found = 0
    for at, character in enumerate(text):
        if character in SIGNS and not (at and _is_word(text[at - 1])):
            yield at
            found += 1
            if found == MAX_SIGNS:
                return


def _called_behind(text: str, at: int, names: Mapping[str, Collection[str]]) -> Collection[str]:
    """The names that are called by the sign there, the longest of them."""
    called: Collection[str] = ()
    start, folded = at + 1, ""
    for end in range(at + 2, min(len(text), at + 1 + MAX_NAME) + 1):
        if end == len(text) or not _is_word(text[end]):
            # What is no mark is never put before what stands in front of it, so pieces can be taken apart.
            folded += unicodedata.normalize("NFKD", text[start:end])
            if len(folded) > MAX_FOLDED:
                break
            called = names.get(folded.lower()) or called
            start = end
    return called


def _is_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"
