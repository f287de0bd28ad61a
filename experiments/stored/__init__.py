"""Runs as they lie on disk, looked at from outside: listed, compared, exported."""
