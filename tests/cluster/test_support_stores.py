"""The stores that other tests use: real ones, which live and die when told to."""

import socket
import time
from pathlib import Path

import pytest
import redis

from tests.support.proxies import CERTIFICATE
from tests.support.relay import Relay
from tests.support.scene import await_true
from tests.support.stores import Kind, Stores

both = pytest.mark.parametrize("kind", Kind)


@both
def test_a_store_keeps_its_data_over_a_kill_and_loses_it_when_told(stores: Stores, kind: Kind) -> None:
    store = stores.start()
    client = store.client()
    assert (client.info("server").get("server_name") == "valkey") is (kind is Kind.VALKEY)
    client.set("key", "value")
    store.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    store.start()
    assert client.get("key") == "value"
    assert store.stop() == 0
    store.restart()
    assert client.get("key") == "value"
    store.restart(empty=True)
    assert client.get("key") is None


@both
def test_a_frozen_store_answers_when_it_is_thawed(stores: Stores) -> None:
    store = stores.start()
    client = store.client()
    late = store.client(socket_timeout=0.05)
    assert late.ping()
    store.freeze()
    with pytest.raises(redis.TimeoutError):
        late.set("late", "yes")
    store.thaw()
    assert client.get("late") == "yes", "what timed out is carried out all the same"


def test_options_reach_the_server(stores: Stores) -> None:
    store = stores.start(
        "maxmemory 10mb", appendonly=False, appendfsync="no", password="p@ss/word", unix=True
    )
    store.config_set("maxmemory-policy", "allkeys-lru")
    said = store.client().config_get("maxmemory*", "append*")
    expected = {
        "maxmemory": "10485760",
        "maxmemory-policy": "allkeys-lru",
        "appendonly": "no",
        "appendfsync": "no",
    }
    assert {name: said[name] for name in expected} == expected
    with pytest.raises(redis.AuthenticationError):
        store.client(password=None).ping()
    client = redis.Redis.from_url(store.url)
    assert client.connection_pool.connection_kwargs["path"] == str(store.path)
    assert client.ping()
    client.close()


def test_users_have_the_rights_that_they_are_given(stores: Stores) -> None:
    store = stores.start(users=["ann on >secret ~chat:* &chat:* +@all -@dangerous"])
    ann = store.client(username="ann", password="secret")
    ann.set("chat:key", "value")
    with pytest.raises(redis.exceptions.NoPermissionError):
        ann.set("other", "value")


@pytest.mark.parametrize("kind", [Kind.REDIS])
def test_tls_is_by_the_certificate_of_the_tests(stores: Stores) -> None:
    store = stores.start(tls=True)
    replica = stores.start(tls=True, replica_of=store)
    assert replica.replication()["role"] == "slave"
    client = redis.Redis.from_url(store.url, ssl_ca_certs=str(CERTIFICATE))
    assert client.ping()
    client.close()
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        store.client(ssl_ca_certs=None).ping()


@both
def test_a_sentinel_makes_the_replica_the_primary(stores: Stores) -> None:
    primary = stores.start(password="secret")
    replica = stores.start(replica_of=primary)
    client = primary.client()
    client.set("key", "value")
    assert client.wait(1, 5000) == 1
    sentinel = stores.watch(primary)
    assert sentinel.primary() == primary.port
    sentinel.await_knowing(replicas=1)
    primary.kill()
    sentinel.await_primary(replica)
    assert replica.client().get("key") == "value"
    primary.start()
    primary.await_synced()
    assert primary.replication()["role"] == "slave", "it is told that it isn't the primary any more"


@both
def test_a_cluster_of_three_goes_on_when_one_is_killed(stores: Stores) -> None:
    cluster = stores.cluster()
    assert {cluster.owner(key) for key in "abcdefgh"} == set(cluster.nodes)
    for key in "abcdefgh":
        cluster.owner(key).client().set(key, "value")
    gone = cluster.owner("a")
    gone.kill()
    cluster.await_agreed()
    left = {key for key in "abcdefgh" if cluster.owner(key) is not gone}
    assert [cluster.owner(key).client().get(key) for key in left] == ["value"] * len(left)
    gone.start()
    cluster.await_agreed()
    assert gone.client().get("a") == "value"


def test_a_port_is_held_while_nobody_listens_on_it(stores: Stores) -> None:
    store = stores.start()
    store.kill()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", store.port))
    store.start()


def test_the_configuration_that_a_server_has_written_is_kept(stores: Stores) -> None:
    store = stores.start()
    store.config_set("maxmemory", 12345678)
    store.ask("CONFIG REWRITE")
    store.restart(empty=True)
    assert store.client().config_get("maxmemory") == {"maxmemory": "12345678"}


def test_at_the_end_nothing_runs(tmp_path: Path) -> None:
    stores = Stores(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    store, frozen = stores.start(), stores.start()
    frozen.freeze()
    stores.close()
    assert not store.running
    assert not frozen.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", store.port))


# The way to a store


def test_a_link_that_is_parted_carries_what_piled_up_when_it_is_joined(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as relay:
        client = store.client(port=relay.port, socket_timeout=0.1)
        assert client.ping()
        relay.part()
        with pytest.raises(redis.TimeoutError):
            client.set("late", "yes")
        with pytest.raises(redis.TimeoutError):
            client.set("never", "since the new connection gets no answer to its first words")
        bystander = store.client()
        assert bystander.get("late") is None
        relay.join()
        await_true(lambda: bystander.get("late") == "yes", "it arrives")
        assert client.ping()


def test_a_deaf_link_carries_what_is_asked_and_no_answer(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as relay:
        client = store.client(port=relay.port, socket_timeout=0.1)
        assert client.ping()
        relay.part(deaf=True)
        with pytest.raises(redis.TimeoutError):
            client.set("key", "value")
        bystander = store.client()
        await_true(lambda: bystander.get("key") == "value", "it is carried out")
        relay.join()
        assert client.get("key") == "value"


def test_a_link_refuses_and_a_store_that_is_away_does_not_end_it(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as relay:
        client = store.client(port=relay.port)
        for refusing in (True, False):
            relay.refusing = refusing
            relay.cut()
            if refusing:
                with pytest.raises(redis.ConnectionError):
                    client.ping()
            else:
                assert client.ping()
        store.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        store.start()
        assert client.ping()


def test_a_slow_link_delays_both_ways(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as relay:
        client = store.client(port=relay.port)
        client.ping()
        relay.delay = 0.05
        started = time.monotonic()
        client.ping()
        assert time.monotonic() - started >= 0.1
