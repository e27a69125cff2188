"""A local marketplace that speaks the contract, for trying out, tests and demos.

It is a real server over real sockets, deterministic, and says in its health answer and on its start that it is not
the real marketplace.
"""

from __future__ import annotations

from atom_saas_sync.sandbox.faults import Fault
from atom_saas_sync.sandbox.server import DEFAULT_RATE_LIMIT, DEFAULT_TOKEN, Sandbox

__all__ = ["DEFAULT_RATE_LIMIT", "DEFAULT_TOKEN", "Fault", "Sandbox"]
