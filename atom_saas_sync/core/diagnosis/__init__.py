"""The checks of `doctor` that need no I/O: what each finds, and what to do about it."""
