"""Who is typing: when to tell the others of oneself, and how long the marks of others stand.

Owns the times of docs/protocol.md, `typing`. It doesn't know a clock beyond the times that it is given.
"""

EVERY = 3.0
"""Seconds between two `true`."""
RESTS = 4.0
"""Seconds without a key after which somebody has stopped."""
LASTS = 6.0
"""Seconds for which a mark stands without another `true`."""


class OwnTyping:
    """What the others are told of one's own typing: true, false, or nothing (None)."""

    def __init__(self) -> None:
        self._told: float | None = None
        self._pressed = 0.0

    def changed(self, text: str, now: float) -> bool | None:
        """The line has another text now. What is for one's own client alone isn't told."""
        if not text.strip() or (text.startswith("/") and not text.startswith(("//", "/me "))):
            return self._stop()
        self._pressed = now
        if self._told is not None and now - self._told < EVERY:
            return None
        self._told = now
        return True

    def rested(self, now: float) -> bool | None:
        """Time has passed."""
        return self._stop() if self._told is not None and now - self._pressed >= RESTS else None

    def forget(self) -> None:
        """Nobody knows of it any more: another room, another connection, or the message is said."""
        self._told = None

    @property
    def due(self) -> float | None:
        """When to call `rested`."""
        return None if self._told is None else self._pressed + RESTS

    def _stop(self) -> bool | None:
        told, self._told = self._told, None
        return None if told is None else False


class Marks:
    """Who else is typing now."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def told(self, name: str, *, active: bool, now: float) -> None:
        """The server passes on that somebody types, or has stopped."""
        if active:
            self._until[name] = now + LASTS
        else:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Somebody has said something, or has left."""
        self._until.pop(name, None)

    def clear(self) -> None:
        """Another room, or another connection."""
        self._until.clear()

    def names(self, now: float) -> list[str]:
        """Who is typing, the one who has been at it longest first."""
        self._until = {name: until for name, until in self._until.items() if until > now}
        return list(self._until)

    @property
    def due(self) -> float | None:
        """When the next mark goes, if nothing else is told."""
        return min(self._until.values(), default=None)
