"""The gate: which versions from the marketplace are served (docs/TRUST.md). Pure decisions, no I/O."""
