"""The log in one SQLite file.

    engine     the Engine, as the tasks see it: awaits, never touches SQLite
    worker     the one thread, and what it does next
    store      one log that survives trouble: what a failure means, and the way back from it
    log        rooms and messages in SQL: append, read, history, trim
    retention  which messages go, and when; what the time is, as far as it makes messages old
    opening    from a path to a connection, or to one line that says why not: checks, modes, the lock
    schema     the tables, their versions, the epochs; connections and their errors
    backup     a copy by another process; all of a database, for a store of several nodes or from one

1. One connection writes, and one thread uses it. Before SQLite 3.51.3 several connections that write or
   checkpoint can lose commits of a database in WAL mode.
2. What is reported stored has been synced: WAL, `synchronous=FULL`.
"""
