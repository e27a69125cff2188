"""atom-sync: a local, trustworthy copy of the Atom marketplace."""

__version__ = "0.1.0"
