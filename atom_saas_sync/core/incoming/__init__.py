"""What we accept from a marketplace: lists, skills, categories, ratings, messages (marketplace-api.md).

Forgiving where nothing is lost: unknown fields are kept, and an unusable item is an InvalidItem that never stops the
rest. Exact where it matters: ids, types, sizes. A body that breaks the contract as a whole raises BadResponse.
What we send is in core/outgoing.py, the forms of a time in times.py.
"""
