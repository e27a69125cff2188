"""A mock marketplace that implements the API contract, for experiments, tests and demos.

A deterministic server on real sockets. Its health response and its start-up message say that it is not the real
marketplace.
"""

from __future__ import annotations

from atom_saas_sync.sandbox.faults import Fault
from atom_saas_sync.sandbox.server import DEFAULT_RATE_LIMIT, DEFAULT_TOKEN, Sandbox

__all__ = ["DEFAULT_RATE_LIMIT", "DEFAULT_TOKEN", "Fault", "Sandbox"]
