"""The field-level merge, for any base, local and remote (data-model.md, rule 3)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.canonical import VOLATILE_FIELDS, canonical, same
from atom_saas_sync.core.merge import follow_volatile, merge

Json = dict[str, Any]

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
EARLIER, LATER = (datetime(2026, month, 15, tzinfo=UTC) for month in (1, 2))

texts = st.text(max_size=3)
values = st.one_of(
    st.none(), st.booleans(), st.integers(0, 3), texts, st.lists(texts, max_size=3), st.dictionaries(texts, texts)
)
lists = st.lists(st.sampled_from("abc"), max_size=3)


def fields(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {"skill_id": st.just("s"), "name": texts},
        optional={
            "description": texts,
            "version": st.sampled_from(["1", "2", "3", "1+merged+2"]),
            "code": texts,
            "tags": lists,
            "python_packages": lists,
            "npm_packages": st.one_of(st.none(), lists),
            "metadata": st.dictionaries(texts, texts, max_size=2),
            "examples": values,
            "anything": values,
            "updated_at": st.sampled_from([EARLY, LATE, "no time"]),
            "average_rating": st.integers(1, 5),
            **more,
        },
    )


times = st.sampled_from([None, EARLIER, LATER])
versions = fields()


@given(versions, versions, versions, times)
def test_it_is_deterministic_and_changes_nothing_that_goes_in(
    base: Json, local: Json, remote: Json, time: datetime | None
) -> None:
    before = canonical([base, local, remote])
    assert same(merge(base, local, remote, local_time=time), merge(base, local, remote, local_time=time))
    assert canonical([base, local, remote]) == before


@given(versions, versions, versions, times)
def test_what_only_one_side_changed_is_taken(base: Json, local: Json, remote: Json, time: datetime | None) -> None:
    merged = merge(base, local, remote, local_time=time)
    for name in {*base, *local, *remote} - VOLATILE_FIELDS:
        ours, theirs, before = (_value(side, name) for side in (local, remote, base))
        if theirs == before:
            assert _value(merged, name) == ours
        elif ours == before:
            assert _value(merged, name) == theirs


@given(versions, versions, versions, times)
def test_merging_what_was_merged_changes_nothing(base: Json, local: Json, remote: Json, time: datetime | None) -> None:
    merged = merge(base, local, remote, local_time=time)
    # The base has become the remote version that was looked at.
    assert same(merge(remote, merged, remote, local_time=time), merged)


@given(versions, versions, times)
def test_equal_sides_stay_as_they_are(base: Json, side: Json, time: datetime | None) -> None:
    assert same(merge(base, side, side, local_time=time), side)


@given(versions, versions, versions, times)
def test_volatile_fields_are_those_of_the_marketplace(
    base: Json, local: Json, remote: Json, time: datetime | None
) -> None:
    for result in (merge(base, local, remote, local_time=time), follow_volatile(local, remote)):
        for name in VOLATILE_FIELDS:
            assert _value(result, name) == _value(remote, name)


@given(versions, versions, versions, times)
def test_no_entry_of_a_list_that_both_changed_is_lost(
    base: Json, local: Json, remote: Json, time: datetime | None
) -> None:
    merged = merge(base, local, remote, local_time=time)
    for name in ("tags", "python_packages", "npm_packages"):
        before, ours, theirs = (_value(side, name) for side in (base, local, remote))
        if ours not in (before, theirs) and theirs != before:
            entries = {*(local.get(name) or []), *(remote.get(name) or [])}
            if entries:
                assert set(merged[name]) == entries


@pytest.mark.parametrize(
    ("name", "base", "local", "remote", "local_is_newer", "merged"),
    [
        ("version", "1.0", "1.1", "1.2", False, "1.1+merged+1.2"),
        ("version", "1.0", "1.1", "1.0", False, "1.1"),
        ("version", "1.2", "1.1+merged+1.2", "1.3", False, "1.1+merged+1.3"),
        ("code", "a", "b", "c", False, "b"),
        ("command", "a", "b", "c", False, "b"),
        ("local_files", ["a"], ["b"], ["c"], False, ["b"]),
        ("description", "a", "a longer one", "c", False, "c"),
        ("description", "a", "b", "a longer one", True, "b"),
        ("metadata", {"a": 1}, {"a": 2}, {"b": 3}, True, {"a": 2}),
        ("tags", ["a"], ["a", "b"], ["c"], True, ["a", "b", "c"]),
        ("examples", ["a"], ["b"], ["c"], False, ["b", "c"]),
        ("python_packages", ["a"], None, ["a", "c"], True, ["a", "c"]),
        ("npm_packages", [], ["b"], ["c"], False, ["b", "c"]),
    ],
)
def test_what_both_changed(name: str, base: Any, local: Any, remote: Any, local_is_newer: bool, merged: Any) -> None:
    sides = [{name: value, "updated_at": EARLY} for value in (base, local, remote)]
    time = LATER if local_is_newer else None
    assert merge(sides[0], sides[1], sides[2], local_time=time)[name] == merged


def _value(side: Json, name: str) -> bytes | None:
    return canonical(side[name]) if name in side else None
