"""The engine for several nodes, on a store of Valkey or Redis.

In the store: `library.lua` has the functions that run there; `library` names and calls them.
To the store: `connecting` makes connections, `commander` and `subscriber` are the two threads that use them,
`shard` is both for one server of the store, and `shards` is all servers.
In the engine: `opening` opens rooms, `log` appends and reads, `storeevents` gives pushes out, `heads` finds
what no push has told, `presence` knows who is in a room, `nodelease` keeps this node's lease, `sweeper`
removes old messages, and `engine` puts all of it together.
"""
