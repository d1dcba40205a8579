"""What several nodes tell each other of who is in a room."""

from typing import NamedTuple


class Change(NamedTuple):
    """A name came into a room on one node (`here`), or its last connection there went.

    `announced`: that changed who is in the room on all nodes together, so it is to be told. `ours`: it was
    on this node.
    """

    username: str
    here: bool
    announced: bool
    ours: bool
