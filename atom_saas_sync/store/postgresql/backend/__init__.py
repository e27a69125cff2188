"""Sharing a server with the Atom backend: its own tables in `public` are written in place."""
