"""Queries of admin requests: their meaning, and which are refused."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import ConflictFilter
from atom_saas_sync.web.requests import FILTERS, PAGING, conflicts_of, page_of, refuse_unknown, with_strategy


@pytest.mark.parametrize(
    ("query", "size", "offset", "document"),
    [
        ("", 100, 0, {}),
        ("limit=7", 7, 0, {}),
        ("page=1", 100, 0, {"page": 1, "page_size": 100}),
        ("page=3&page_size=20", 20, 40, {"page": 3, "page_size": 20}),
        ("page_size=1000", 1000, 0, {"page": 1, "page_size": 1000}),
        ("page=1000000000&page_size=1000", 1000, 999_999_999_000, {"page": 10**9, "page_size": 1000}),
    ],
)
def test_a_part_of_a_list(query: str, size: int, offset: int, document: dict[str, int]) -> None:
    page = page_of(QueryParams(query))
    assert (page.size, page.offset, page.document()) == (size, offset, document)


@pytest.mark.parametrize("name", ["limit", "page", "page_size"])
@pytest.mark.parametrize("text", ["0", "-1", "1000000001", "x", "٣", "", "1.0", "+1", " 1"])
def test_invalid_numbers(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"invalid {name} .*: expected a whole number from 1 to"):
        page_of(QueryParams({name: text}))


@pytest.mark.parametrize("query", ["limit=5&page=2", "limit=5&page_size=2"])
def test_a_limit_and_a_page_exclude_each_other(query: str) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        page_of(QueryParams(query))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", ConflictFilter()),
        ("status=unresolved&resolved=false", ConflictFilter()),
        ("status=resolved", ConflictFilter(resolved=True)),
        ("resolved=True", ConflictFilter(resolved=True)),
        ("severity=high&type=other", ConflictFilter(severity="HIGH", type="OTHER")),
        ("conflict_type=DELETION_CONFLICT&skill_id=a", ConflictFilter(type="DELETION_CONFLICT", skill_id="a")),
    ],
)
def test_which_conflicts(query: str, wanted: ConflictFilter) -> None:
    assert conflicts_of(QueryParams(query)) == wanted


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("severity=URGENT", "invalid severity 'URGENT': expected CRITICAL, HIGH, MEDIUM, LOW"),
        ("severity=", "invalid severity ''"),
        ("type=x", "invalid type 'x'"),
        ("conflict_type=x", "invalid conflict_type 'x'"),
        ("type=OTHER&conflict_type=OTHER", "the same filter"),
        ("status=open", "invalid status 'open': expected unresolved, resolved"),
        ("resolved=1", "invalid resolved '1'"),
        ("status=resolved&resolved=false", "contradict each other"),
    ],
)
def test_filters_that_are_refused(query: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        conflicts_of(QueryParams(query))


def test_unknown_and_repeated_parameters_are_refused() -> None:
    refuse_unknown(QueryParams("page=1&severity=LOW"), (*FILTERS, *PAGING))
    with pytest.raises(UsageError, match="unknown query parameter 'pages'") as caught:
        refuse_unknown(QueryParams("pages=1"), PAGING)
    assert caught.value.hint == "this route takes limit, page, page_size"
    with pytest.raises(UsageError, match="unknown query parameter 'x'") as caught:
        refuse_unknown(QueryParams("x"), ())
    assert caught.value.hint == "this route takes no query parameters"
    with pytest.raises(UsageError, match="page is given more than once"):
        refuse_unknown(QueryParams("page=1&page=2"), PAGING)


def test_a_strategy_in_the_query_and_one_in_the_body() -> None:
    assert with_strategy({"all": True}, QueryParams("strategy=merge")) == {"all": True, "strategy": "merge"}
    assert with_strategy({"strategy": "merge"}, QueryParams("")) == {"strategy": "merge"}
    assert with_strategy({"strategy": "merge"}, QueryParams("strategy=merge")) == {"strategy": "merge"}
    with pytest.raises(UsageError, match="different strategies"):
        with_strategy({"strategy": ["merge"]}, QueryParams("strategy=merge"))
