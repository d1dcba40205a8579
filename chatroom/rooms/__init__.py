"""Rooms: the broker, membership, the recent frames and the fan-out."""
