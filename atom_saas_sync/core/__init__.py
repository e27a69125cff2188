"""Pure decisions: no clock, no randomness, no environment, no logging, no I/O."""
