"""Tests of chatroom, one file per module."""
