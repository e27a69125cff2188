"""atom-sync: two-way sync between the Atom skills marketplace and a local database."""

__version__ = "0.1.0"
