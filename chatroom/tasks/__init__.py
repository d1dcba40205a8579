"""Tasks: the broker, the committer and the tasks of one connection."""
