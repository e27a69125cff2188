"""The gate's tables: offers, decisions, pins, revocations, quarantine, scans (docs/TRUST.md)."""
