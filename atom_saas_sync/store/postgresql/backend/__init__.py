"""Living beside the Atom backend: its own tables in `public` are written in place."""
