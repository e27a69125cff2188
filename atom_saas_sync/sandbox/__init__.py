"""A local marketplace that speaks the contract, for trying out, tests and demos."""
