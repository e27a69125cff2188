"""The field-level merge, for any base, local and remote (docs/CONFLICTS.md)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atom_saas_sync.core.canonical import DESCRIPTIVE_FIELDS, VOLATILE_FIELDS, canonical, executable_part, same
from atom_saas_sync.core.merge import follow_volatile, loses_edit, merge

Json = dict[str, Any]

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"

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
            "metadata": st.one_of(
                st.none(),
                st.dictionaries(st.sampled_from(["author", "keywords", "entrypoint", "x"]), st.one_of(texts, lists)),
            ),
            "examples": values,
            "anything": values,
            "updated_at": st.sampled_from([EARLY, LATE, "no time"]),
            "average_rating": st.integers(1, 5),
            **more,
        },
    )


sides = st.booleans()
versions = fields()


@given(versions, versions, versions, sides)
def test_it_is_deterministic_and_does_not_modify_its_input(base: Json, local: Json, remote: Json, newer: bool) -> None:
    before = canonical([base, local, remote])
    assert same(merge(base, local, remote, remote_is_newer=newer), merge(base, local, remote, remote_is_newer=newer))
    assert canonical([base, local, remote]) == before


@given(versions, versions, versions, sides)
def test_a_change_on_one_side_is_taken(base: Json, local: Json, remote: Json, newer: bool) -> None:
    merged = merge(base, local, remote, remote_is_newer=newer)
    for name in DESCRIPTIVE_FIELDS & {*base, *local, *remote}:
        ours, theirs, before = (_value(side, name) for side in (local, remote, base))
        if theirs == before:
            assert _value(merged, name) == ours
        elif ours == before:
            assert _value(merged, name) == theirs


@example(
    base={"metadata": None},
    local={"metadata": None, "code": "0"},
    remote={"metadata": {"entrypoint": ""}},
    newer=False,
)
@given(versions, versions, versions, sides)
def test_executable_fields_come_from_one_side(base: Json, local: Json, remote: Json, newer: bool) -> None:
    merged, before, ours, theirs = (
        executable_part(side) for side in (merge(base, local, remote, remote_is_newer=newer), base, local, remote)
    )
    assert same(merged, theirs if same(ours, before) else ours)


@given(versions, versions, versions, sides)
def test_merging_what_was_merged_changes_nothing(base: Json, local: Json, remote: Json, newer: bool) -> None:
    merged = merge(base, local, remote, remote_is_newer=newer)
    # The base has become the remote version of the decision.
    assert same(merge(remote, merged, remote, remote_is_newer=newer), merged)


@given(versions, versions, sides)
def test_equal_sides_stay_as_they_are(base: Json, side: Json, newer: bool) -> None:
    assert same(merge(base, side, side, remote_is_newer=newer), side)


@given(versions, versions, versions, sides)
def test_volatile_fields_are_those_of_the_marketplace(base: Json, local: Json, remote: Json, newer: bool) -> None:
    for result in (merge(base, local, remote, remote_is_newer=newer), follow_volatile(local, remote)):
        for name in VOLATILE_FIELDS:
            assert _value(result, name) == _value(remote, name)


@given(lists, lists, lists, st.sampled_from(["tags", "examples"]))
def test_an_entry_stays_where_neither_side_removed_it(
    base: list[str], local: list[str], remote: list[str], name: str
) -> None:
    merged = merge({name: base}, {name: local}, {name: remote}, remote_is_newer=False)[name]
    if canonical(local) not in (canonical(base), canonical(remote)) and canonical(remote) != canonical(base):
        assert set(merged) == (set(local) & set(remote)) | ((set(local) ^ set(remote)) - set(base))
        assert len(merged) == len(set(merged))


@pytest.mark.parametrize(
    ("name", "base", "local", "remote", "remote_is_newer", "merged"),
    [
        ("version", "1.0", "1.1", "1.2", True, "1.1+merged+1.2"),
        ("version", "1.0", "1.1", "1.0", True, "1.1"),
        ("version", "1.2", "1.1+merged+1.2", "1.3", True, "1.1+merged+1.3"),
        ("code", "a", "b", "c", True, "b"),
        ("command", "a", "b", "c", True, "b"),
        ("local_files", ["a"], ["b"], ["c"], True, ["b"]),
        ("python_packages", ["r==2.0"], ["r==2.0", "mine"], ["r==2.1"], True, ["r==2.0", "mine"]),
        ("npm_packages", ["a"], ["a"], ["b"], False, ["b"]),
        ("unknown", {"run": 1}, {"run": 2}, {"run": 3}, True, {"run": 2}),
        ("description", "a", "a longer one", "c", True, "c"),
        ("description", "a", "b", "a longer one", False, "b"),
        ("tags", ["a"], ["a", "b"], ["a", "c"], False, ["a", "b", "c"]),
        ("tags", ["a", "b"], ["a", "mine"], ["a", "b", "theirs"], True, ["a", "mine", "theirs"]),
        ("tags", ["a"], None, ["a", "c"], False, ["c"]),
        ("tags", ["a"], ["a", "b"], None, True, ["b"]),
        ("tags", None, ["b"], ["c"], True, ["b", "c"]),
        ("examples", ["a"], ["b"], ["c"], True, ["b", "c"]),
        ("examples", [{"q": 1}, {"q": 2}], [{"q": 2}], [{"q": 1}, {"q": 2}, {"q": 3}], True, [{"q": 2}, {"q": 3}]),
        ("examples", "a", "b", ["c"], False, "b"),
        ("metadata", {"author": 1}, {"author": 2}, {"author": 1, "icon": 3}, True, {"author": 2, "icon": 3}),
        ("metadata", {"author": 1}, {"author": 2}, {"author": 3}, True, {"author": 3}),
        ("metadata", {"author": 1}, {"author": 2}, {"author": 3}, False, {"author": 2}),
        ("metadata", {"keywords": ["a", "b"]}, {"keywords": ["a"]}, {"keywords": ["a", "b", "c"]}, True,
         {"keywords": ["a", "c"]}),
        ("metadata", {"author": 1, "run": 1}, {"author": 1, "run": 2}, {"author": 2, "run": 3}, True,
         {"author": 2, "run": 2}),
        ("metadata", {"author": 1, "run": 1}, {"author": 2, "run": 1}, {"author": 1, "run": 3, "x": 4}, False,
         {"author": 2, "run": 3, "x": 4}),
        ("metadata", {"author": 1}, None, {"author": 1, "icon": 2}, True, {"icon": 2}),
        ("metadata", None, {"run": "a"}, {"author": 2}, True, {"run": "a", "author": 2}),
    ],
)  # fmt: skip
def test_fields_changed_on_both_sides(
    name: str, base: Any, local: Any, remote: Any, remote_is_newer: bool, merged: Any
) -> None:
    sides = [{name: value, "updated_at": EARLY} for value in (base, local, remote)]
    assert merge(sides[0], sides[1], sides[2], remote_is_newer=remote_is_newer)[name] == merged


def test_executable_fields_are_never_mixed() -> None:
    base = {"code": "a", "version": "1", "metadata": {"entrypoint": "a"}}
    remote = {
        "code": "a",
        "version": "2",
        "command": "sh -c evil",
        "python_packages": ["evil"],
        "env_vars": {"LD_PRELOAD": "x"},
        "hook": "x",
        "metadata": {"entrypoint": "evil", "author": "x"},
    }
    local = {**base, "code": "reviewed()"}
    merged = merge(base, local, remote, remote_is_newer=True)
    assert merged == {"code": "reviewed()", "version": "2", "metadata": {"entrypoint": "a", "author": "x"}}


def _value(side: Json, name: str) -> bytes | None:
    return canonical(side[name]) if name in side else None


@pytest.mark.parametrize("remote_is_newer", [True, False])
def test_counters_of_metadata_follow_the_marketplace(remote_is_newer: bool) -> None:
    base: Json = {"metadata": {"author": "a", "downloads": 1, "likes": 1, "stars": "few"}}
    local: Json = {"metadata": {"author": "me", "downloads": 99, "likes": 1, "views": 5, "stars": "few"}}
    remote: Json = {"metadata": {"author": "a", "downloads": 2, "installs": 3, "stars": "few"}}
    wanted = {"author": "me", "downloads": 2, "installs": 3, "stars": "few"}
    assert follow_volatile(local, remote)["metadata"] == wanted
    assert merge(base, local, remote, remote_is_newer=remote_is_newer)["metadata"] == wanted
    assert follow_volatile({"name": "no metadata here"}, remote) == {"name": "no metadata here"}


@pytest.mark.parametrize(
    ("base", "local", "result", "lost"),
    [
        ({"code": "a"}, {"code": "a"}, {"code": "b"}, False),
        ({"code": "a"}, {"code": "b"}, {"code": "c"}, True),
        ({"code": "a"}, {}, {"code": "a"}, True),
        ({"rating_count": 1}, {"rating_count": 2}, {"rating_count": 3}, False),
        ({"version": "1"}, {"version": "2"}, {"version": "2+merged+3"}, False),
        ({"version": "1"}, {"version": "2"}, {"version": "3"}, True),
        ({"tags": ["a"]}, {"tags": ["a", "b"]}, {"tags": ["b", "c"]}, True),
        ({"tags": ["a"]}, {"tags": ["b"]}, {"tags": ["c", "b"]}, False),
        ({"metadata": {"license": "a"}}, {"metadata": {"license": "b"}}, {"metadata": {"license": "c"}}, True),
        ({"metadata": {"stars": 1}}, {"metadata": {"stars": 2, "x": 1}}, {"metadata": {"stars": 3, "x": 1}}, False),
        ({}, {"metadata": 1}, {"metadata": {}}, True),
    ],
)
def test_an_edit_is_lost_if_it_is_not_in_the_result(base: Json, local: Json, result: Json, lost: bool) -> None:
    assert loses_edit(base, local, result) is lost
