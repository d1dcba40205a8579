"""`python -m tests.support.task_tree` prints the tasks of a server with one client, as [name, children].

It is a program of its own because a server tunes the process that it runs in.
"""

import json
import signal
from typing import Any

import trio
import trio.testing
from trio_websocket import open_websocket_url

from chatroom.auth.keyfeed import KeyFeed
from chatroom.auth.tokens import TokenTable, Verifiers
from chatroom.auth.webtokens import Key
from chatroom.config.settings import Settings, read_settings
from chatroom.process import Stop
from chatroom.server import Server, listen


def tree(task: trio.lowlevel.Task) -> list[Any]:
    """A task's name and its children, in the order of their names."""
    children = [tree(child) for nursery in task.child_nurseries for child in nursery.child_tasks]
    return [".".join(task.name.split(".")[-2:]), sorted(children)]


async def keys() -> tuple[Key, ...]:
    """One key, of no use."""
    return (Key("RS256", None, 256, lambda *_: False),)


async def main() -> None:
    """Serve, connect, look."""
    settings = read_settings(["--host", "127.0.0.1", "--port", "0", "--db", "none"], {})
    assert isinstance(settings, Settings)
    listeners = listen(settings, [], secure=False)
    feed = KeyFeed(keys)
    await feed.load()
    server = Server(settings, Verifiers([TokenTable.development()]), None, feed)
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, listeners, hangups, Stop())
            url = listeners[0].name.replace("http", "ws") + "/?token=dev-token"
            async with open_websocket_url(url) as client:
                await client.get_message()
                await trio.testing.wait_all_tasks_blocked()
                (served,) = [task for task in nursery.child_tasks if "Server.run" in task.name]
                print(json.dumps(tree(served)))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
