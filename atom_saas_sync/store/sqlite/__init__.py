"""The SQLite engine: the one database file, and all SQL that is written for it."""
