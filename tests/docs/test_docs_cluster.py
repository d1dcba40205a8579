"""docs/cluster.md, and two nodes in the first steps: real stores, nodes and nginx, as they stand there."""

from __future__ import annotations

import math
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chatroom.config.parsers import read_store_url
from chatroom.config.settings import Settings, read_settings
from chatroom.copies import CopySettings, read_copy
from chatroom.engines.redis import connecting
from chatroom.engines.redis.engine import Times
from tests.support.client import Chat, target
from tests.support.pages import ROOT, blocks
from tests.support.proxies import executable, free_port, nginx
from tests.support.scene import Served, await_true, check_clean, snapshot
from tests.support.stores import Kind, Stores, program

FIRST_STEPS = (ROOT / "docs" / "first-steps.md").read_text("utf-8")
PAGE = (ROOT / "docs" / "cluster.md").read_text("utf-8")
USED = ("6379", "3000", "3001", "3002")


@contextmanager
def process(command: Sequence[str], port: int, folder: Path) -> Iterator[None]:
    """Something that runs until the end of the block, and listens at the port."""
    with (folder / "said.log").open("ab") as said:
        running = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        await_true(lambda: running.poll() is not None or accepts(port), (folder / "said.log").read_text)
        assert running.poll() is None, (folder / "said.log").read_text()
        yield
    finally:
        running.terminate()
        running.wait(20)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def meet(url: str, nodes: Sequence[Served], token: str = "token-alice", **options: object) -> None:
    """Two people come by one address to two nodes, and talk."""
    alice, bob = (Chat(url + target("den", name, token), **options) for name in ("alice", "bob"))
    alice.expect("joined", username="bob")
    await_true(
        lambda: all(snapshot(node)["chatroom_connections"] == 1 for node in nodes), "one is on each node"
    )
    for speaker in (alice, bob):
        speaker.say("hello")
        assert alice.texts(1) == bob.texts(1) == ["hello"]
    alice.close()
    bob.close()


def test_the_four_lines_of_the_first_steps_make_two_nodes_behind_nginx(pyz: Path, tmp_path: Path) -> None:
    (block,) = [block for block in blocks(FIRST_STEPS, "sh") if "valkey-server" in block]
    configuration = (ROOT / "docs" / "nodes.conf").read_text("utf-8")
    ports = {old: str(free_port()) for old in USED}
    block = block.replace("redis://localhost", "redis://localhost:6379")
    for old, new in ports.items():
        block, configuration = (re.sub(rf"\b{old}\b", new, text) for text in (block, configuration))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "nodes.conf").write_text(configuration)
    store, first, second, proxy = [shlex.split(line) for line in block.splitlines()]
    assert (store.pop(0), first.pop(0), second.pop(0), proxy.pop(0)) == (
        "valkey-server",
        "./chat.pyz",
        "./chat.pyz",
        "nginx",
    )
    with ExitStack() as stack:
        run = [program(Kind.VALKEY), *store, "--port", ports["6379"], "--bind", "127.0.0.1"]
        stack.enter_context(process(run, int(ports["6379"]), tmp_path))
        nodes = [stack.enter_context(Served(*arguments)) for arguments in (first, second)]
        stack.enter_context(process([executable("nginx"), *proxy], int(ports["3000"]), tmp_path))
        meet(f"ws://localhost:{ports['3000']}", nodes)
        for node in nodes:
            check_clean(node)
            assert node.stop() == 0


def test_the_first_steps_with_nginx_as_it_is_before_one_server(
    pyz: Path, tmp_path: Path, stores: Stores
) -> None:
    """With the user of the page, too: it may do what nodes need, and they see how durable the store is."""
    making, running = blocks(PAGE, "sh")
    (user,) = blocks(PAGE, "valkey")
    (upstream,) = blocks(PAGE, "nginx")
    assert making.strip() == "valkey-server --port 6379 --appendonly yes --appendfsync always"
    store = stores.start(users=[user.strip().removeprefix("user ").replace("PASSWORD", "s3cret")])
    (tmp_path / "tokens.toml").write_text('[[token]]\ntoken = "t0ken"\n')
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        nodes = []
        for line, port in zip(running.splitlines(), ports, strict=True):
            arguments = shlex.split(line.removeprefix("./chat.pyz "))
            arguments[arguments.index("--redis") + 1] = store.url.replace("://", "://chatroom:s3cret@")
            arguments[arguments.index("--port") + 1] = str(port)
            arguments[arguments.index("--tokens") + 1] = str(tmp_path / "tokens.toml")
            nodes.append(stack.enter_context(Served(*arguments)))
        servers = re.findall(r"^    server [^\n]+\n", upstream, re.MULTILINE)
        assert servers == ["    server 127.0.0.1:3001;\n", "    server 127.0.0.1:3002;\n"]
        line = f"server 127.0.0.1:{ports[0]};"
        more = {f"{line}  # or": f"{line} server 127.0.0.1:{ports[1]};  # or"}
        proxy = stack.enter_context(nginx(tmp_path, ports[0], more))
        meet(proxy.url, nodes, "t0ken", ssl=proxy.trust)
        for node in nodes:
            check_clean(node, "s3cret", "t0ken")
            assert node.stop() == 0
            assert "store_unsafe" not in node.stderr


def test_the_commands_shown_are_accepted() -> None:
    shown = re.findall(r"^(?:    )?\./chat\.pyz (.+)$", PAGE, re.MULTILINE)
    assert len(shown) == 4
    for line in shown:
        if line.startswith("copy "):
            assert isinstance(read_copy(line.split()[1:], {}), CopySettings)
        else:
            assert isinstance(read_settings(line.split(), {}), Settings)


def test_the_urls_shown_are_read() -> None:
    shown = re.findall(r"`((?:redis|rediss|valkey|valkeys|unix)(?:\+\w+)?://[^`]+)`", PAGE)
    assert len(shown) >= 10
    for url in shown:
        assert read_store_url(url)


def test_numbers_in_the_text() -> None:
    times = Times()
    text = " ".join(PAGE.split())
    valkey, redis = (".".join(map(str, version)) for version in (connecting.MIN_VALKEY, connecting.MIN_REDIS))
    for sentence in (
        f"Valkey from {valkey} or Redis from {redis} on",
        f"`unavailable` within {math.ceil(times.patience)} seconds",
        f"its names leave after {times.lease:g} seconds",
        f"wait for {times.lease:g} seconds",
        f"for {times.grace:g} seconds nobody is shown as gone",
    ):
        assert sentence in text, sentence
