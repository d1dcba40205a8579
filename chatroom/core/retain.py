"""How long messages are kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retain:
    """Messages younger than `seconds`, and the newest `count` of a room; None sets no limit.

    A message goes when it is beyond either limit.
    """

    seconds: float | None = None
    count: int | None = None

    @property
    def everything(self) -> bool:
        """No limit is set."""
        return self.seconds is None and self.count is None
