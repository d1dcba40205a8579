"""What a copy between a database and a store of several nodes moves."""

from typing import NamedTuple


class RoomLog(NamedTuple):
    """One room's log as it stands: its messages are dense from `first` to `last`; none where first > last."""

    room: str
    epoch: str
    first: int
    last: int

    @property
    def messages(self) -> int:
        """How many there are."""
        return self.last - self.first + 1
