"""The size of a store: bytes for a message, a member and a room, in memory and on its disk.

The functions of the engine are called without a node. A size is the growth of all that the server has in use,
or of its append-only file, divided by how many there are. The file is largest where each message comes by
itself. From time to time the server rewrites the file: then it holds each thing once.
"""

import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

from benchmarks.stores import Store
from chatroom.core.messages import Draft
from chatroom.engines.redis import library
from chatroom.engines.redis.library import Command, RoomKeys

LENGTH = 40
"""Characters of a text, no two alike: the file is compressed where it can be."""
BATCH = 200
ALONE = 2000
"""So many messages are stored one by one."""
NODE = "chat-1.example-12345#0123abcd"
"""As long as one usually is: host name, process id and what tells it from the one before."""
MEMBERS = 1000
ROOMS = 5000


def measure(store: Store, messages: int) -> Iterator[tuple[str, float]]:
    """What, and how many bytes."""
    store.client.function_load(library.SOURCE, replace=True)
    for cids in (False, True):
        what = f"a message of {LENGTH} characters, {'with' if cids else 'without'} a `cid`"
        room = Room(store, f"alone-{cids}")
        before = written(store)
        for number in range(ALONE):
            room.append([number], cids=cids)
        yield f"{what}: file, each by itself", (written(store) - before) / ALONE
        rewrite(store)
        room = Room(store, f"cids-{cids}")
        before, before_file = used(store), written(store)
        for start in range(0, messages, BATCH):
            room.append([start + at for at in range(BATCH)], cids=cids)
        yield f"{what}: memory", (used(store) - before) / messages
        rewrite(store)
        yield f"{what}: file, rewritten", (written(store) - before_file) / messages
    room = Room(store, "members")
    before = used(store)
    for start in range(0, MEMBERS, BATCH):
        room.attend([f"user-{start + at:05}" for at in range(BATCH)])
    yield f"a member in a room of {MEMBERS:,}: memory", (used(store) - before) / MEMBERS
    for members in (0, 2):
        before = used(store)
        for number in range(ROOMS):
            room = Room(store, f"of-{members}-{number:05}")
            if members:
                room.attend([f"user-{number:05}-{member}" for member in range(members)])
        yield f"a room with {members or 'no'} members and no message: memory", (used(store) - before) / ROOMS
    store.client.flushall()


def text_of(number: int) -> str:
    """A text of its own."""
    return "".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz ", k=LENGTH))


def uuid_of(number: int) -> uuid.UUID:
    """An id of its own."""
    return uuid.UUID(int=random.Random(number).getrandbits(128), version=4)


def used(store: Store) -> int:
    """Bytes that the store has in use, but for its clients."""
    memory = store.info("memory")
    return int(memory["used_memory"] - memory["mem_clients_normal"])


def written(store: Store) -> int:
    """Bytes of the append-only file."""
    return int(store.info("persistence")["aof_current_size"])


def rewrite(store: Store) -> None:
    """Have the append-only file rewritten, and wait for it."""
    store.client.bgrewriteaof()
    persistence: dict[str, Any] = {"aof_rewrite_in_progress": 1}
    while persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"]:
        time.sleep(0.05)
        persistence = store.info("persistence")


class Room:
    """A room of the store, as a node sees it."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._keys = RoomKeys.of("size", name)
        self._context = library.context_of(self._keys, NODE, sharded=False, keep=None, keep_seconds=None)
        self._name = name
        self._last = 0
        self._number = 0
        self._call(library.open_room(self._keys, "epoch-1"))

    def append(self, numbers: list[int], *, cids: bool) -> None:
        """Some messages, as one batch."""
        drafts = [
            Draft(self._name, "alice", text_of(number), str(uuid_of(number)) if cids else None, 1)
            for number in numbers
        ]
        self._call(library.append(self._keys, self._context, "epoch-1", drafts, known=self._last, ts=0))
        self._last += len(drafts)

    def attend(self, names: list[str]) -> None:
        """These come in."""
        self._number += 1
        self._call(library.attend(self._keys, self._context, self._number, names, ()))

    def _call(self, command: Command) -> None:
        reply = self._store.client.execute_command(*command)
        assert reply.startswith('["ok"'), reply
