"""Validating data from a marketplace: lists, skills, categories, ratings, messages (marketplace-api.md).

Lenient where nothing is lost: unknown fields are kept, and an invalid item becomes an InvalidItem that never stops the
rest. Strict where it matters: ids, types, sizes. A body that violates the contract as a whole raises BadResponse.
Data sent is in core/outgoing.py, formats of timestamps in times.py.
"""
