"""The checks of `doctor` that need no I/O: their findings and hints."""
