"""Data extracted from a skill's text when it is written: for the view, for sorting and filters, and for search.

If another program writes a text, a trigger puts the skill on a list of due ones, and our next search or write extracts
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.scripts import folded
from atom_saas_sync.model import BEST_RATING, LARGEST_COUNT
from atom_saas_sync.store.counting import labels_text
from atom_saas_sync.store.names import WORDS_MERGED
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.words import SEARCHED, head, texts_of, words
from atom_saas_sync.times import parse_time

_AT_ONCE = 500

# Arrays of arrays must have equal lengths, so each list of tags or words is passed as one text.
_LIST = "\x1f"
_WRITE = f"""
    INSERT INTO skill_text (skill_id, name, version, category, name_key, category_key, tag_keys, average_rating,
        rating_count, sent_moment, head, words)
    SELECT skill_id, name, version, category, name_key, category_key, string_to_array(tag_keys, E'{_LIST}'),
        average_rating, rating_count, sent_moment, head::tsvector, array_to_tsvector(string_to_array(words, ' '))
    FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
        %b::double precision[], %b::double precision[], %b::double precision[], %b::text[], %b::text[])
        AS new (skill_id, name, version, category, name_key, category_key, tag_keys, average_rating, rating_count,
            sent_moment, head, words)
    ON CONFLICT (skill_id) DO UPDATE SET (name, version, category, name_key, category_key, tag_keys, average_rating,
            rating_count, sent_moment, head, words)
        = (excluded.name, excluded.version, excluded.category, excluded.name_key, excluded.category_key,
            excluded.tag_keys, excluded.average_rating, excluded.rating_count, excluded.sent_moment, excluded.head,
            excluded.words)
"""  # noqa: S608 - a constant

# New words wait in lists, which searches read through. Merging them writes every entry of the index that they are in:
# 210 KB of log for one skill, 7 KB each for a hundred. Only an owner may do that; an account without DDL rights leaves
# it to autovacuum, or to the writer whose words exceed the list.
_MERGED_TOGETHER = 100
_WORDS_CHANGED = """
    SELECT (SELECT coalesce(sum(value), 0) FROM counter WHERE name = %s AND labels = ANY(%s)),
        (SELECT value FROM fact WHERE name = %s)
"""
MERGE_WORDS = """
    SELECT gin_clean_pending_list(i.indexrelid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_am AS a ON a.oid = c.relam
    WHERE i.indrelid = 'skill_text'::regclass AND a.amname = 'gin' AND pg_has_role(c.relowner, 'USAGE')
"""


class Entry(NamedTuple):
    """The extracted data of one skill."""

    skill_id: str
    name: str | None
    version: str | None
    category: str | None
    name_key: str | None
    category_key: str | None
    tag_keys: str
    average_rating: float | None
    rating_count: float | None
    sent_moment: float | None
    head: str
    words: str


def entry_of(skill_id: str, text: str, fields: Mapping[str, Any] | None = None) -> Entry:
    """Return the entry of a skill; `fields` is its decoded text, if the caller has it.

    The entry is empty for a text that is not a JSON object.
    """
    known = (decode_object(text) or {}) if fields is None else fields
    texts = texts_of(known)
    name, category = _string(known.get("name")), _string(known.get("category"))
    return Entry(
        skill_id=skill_id,
        name=name,
        version=_string(known.get("version")),
        category=category,
        name_key=None if name is None else folded(name),
        category_key=None if category is None else folded(category),
        tag_keys=_LIST.join(folded(each.replace(_LIST, " ")) for each in _tags(known.get("tags"))),
        average_rating=_figure(known.get("average_rating"), BEST_RATING),
        rating_count=_figure(known.get("rating_count"), LARGEST_COUNT),
        sent_moment=_moment(known.get("updated_at")),
        head=head(texts),
        words=" ".join(words(texts)),
    )


def write_entries(connection: psycopg.Connection[Row], entries: Sequence[Entry]) -> None:
    """Write these entries, one per skill, replacing earlier ones."""
    for start in range(0, len(entries), _AT_ONCE):
        columns = [list(column) for column in zip(*entries[start : start + _AT_ONCE], strict=True)]
        connection.execute(_WRITE, columns)
    connection.execute("DELETE FROM skill_due WHERE skill_id = ANY(%b)", ([each.skill_id for each in entries],))


def has_same_words(fields: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Tell whether two versions of a skill are found by the same words: only what `write_rest` writes may differ."""
    return all(_same(fields.get(name), others.get(name)) for name in SEARCHED)


def _same(one: object, other: object) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    return repr(one) == repr(other)  # otherwise True would be 1, whose word is another


def write_rest(connection: psycopg.Connection[Row], skills: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what is not searched, by skill: version, figures and time. The index stays as it is."""
    connection.execute(
        "UPDATE skill_text AS t SET (version, average_rating, rating_count, sent_moment) "
        "= (new.version, new.average, new.count, new.moment) "
        "FROM unnest(%b::text[], %b::text[], %b::double precision[], %b::double precision[], %b::double precision[]) "
        "AS new (skill_id, version, average, count, moment) WHERE t.skill_id = new.skill_id",
        (
            list(skills),
            [_string(fields.get("version")) for fields in skills.values()],
            [_figure(fields.get("average_rating"), BEST_RATING) for fields in skills.values()],
            [_figure(fields.get("rating_count"), LARGEST_COUNT) for fields in skills.values()],
            [_moment(fields.get("updated_at")) for fields in skills.values()],
        ),
    )


def drop_entries(connection: psycopg.Connection[Row], skill_ids: Collection[str]) -> None:
    """Delete the entries of skills that no longer exist."""
    ids = list(skill_ids)
    connection.execute("DELETE FROM skill_text WHERE skill_id = ANY(%b)", (ids,))
    connection.execute("DELETE FROM skill_due WHERE skill_id = ANY(%b)", (ids,))


def ask_words_changed(connection: psycopg.Connection[Row]) -> psycopg.Cursor[Row]:
    """Ask for the number of changes of skills so far, and for that when new words were last merged, as it is stored."""
    counted = "atom_saas_sync_items_total"
    labels = [labels_text(counted, {"type": "skill", "action": each}) for each in ("added", "updated")]
    return connection.execute(_WORDS_CHANGED, (counted, labels, WORDS_MERGED))


def is_merging_due(changed: float, merged: str | None) -> bool:
    """Tell whether enough skills have changed since new words were merged; the values are of `ask_words_changed`."""
    try:
        return merged is None or not abs(changed - float(merged)) < _MERGED_TOGETHER  # NaN, too: another program's
    except ValueError:
        return True


def forget_merging(connection: psycopg.Connection[Row]) -> None:
    """Forget when new words were last merged, because all rows were written: the next run merges them."""
    connection.execute("DELETE FROM fact WHERE name = %s", (WORDS_MERGED,))


def is_due(connection: psycopg.Connection[Row]) -> bool:
    """Tell whether texts of other programs have not been extracted yet."""
    row = connection.execute("SELECT EXISTS (SELECT FROM skill_due)").fetchone()
    return bool(row and row[0])


def read_due(connection: psycopg.Connection[Row]) -> None:
    """Extract the texts that other programs have written."""
    while rows := connection.execute(
        "SELECT d.skill_id, c.skill_data FROM skill_due AS d LEFT JOIN skill_cache AS c ON c.skill_id = d.skill_id "
        "LIMIT %s",
        (_AT_ONCE,),
    ).fetchall():
        write_entries(connection, [entry_of(skill_id, text) for skill_id, text in rows if text is not None])
        drop = [skill_id for skill_id, text in rows if text is None]
        if drop:
            drop_entries(connection, drop)


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _tags(value: object) -> Iterator[str]:
    """Yield the tags, in any of their forms."""
    if isinstance(value, Mapping):
        value = list(value.values())
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str | int | float):
            yield str(each)


def _moment(value: object) -> float | None:
    moment = parse_time(value)
    return None if moment is None else moment.timestamp()


def _figure(value: object, largest: int) -> float | None:
    """Return a number from 0 to `largest`; None for anything else."""
    if isinstance(value, int | float) and 0 <= value <= largest:
        return float(value)
    return None
