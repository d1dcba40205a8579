"""The engine for several nodes, on a store of Valkey or Redis.

`library.lua` has what runs in the store. `library` names and calls it, `dialling` makes connections to it,
`commander` and `subscriber` are the two threads that use them, `shard` is both for one server of the
store. `attendance` knows who is where, and `engine` puts it together.
"""
