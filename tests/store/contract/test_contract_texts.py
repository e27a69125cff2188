"""Arbitrary text: it is stored byte for byte as received, and no text makes a statement fail."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from store_rooms import NOW, Rooms, skill

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.model import (
    CatalogueCounts,
    Category,
    Delivery,
    ErrorInfo,
    RatingFailure,
    ReportedConnection,
    RunReport,
    SkillFilter,
)

ODD = "a\0b 'quoted' \\ %s {}"
TEXTS = [
    r'{"skill_id":"a","name":"\u0000 \u0041","version":"1"}',
    '{ "version" : "1", "name":"x",  "skill_id":"a", "figure":1e2, "other":1.0 }',
    '{"skill_id":"a","name":"é","version":"1","code":"\\\\u0000 \\"%s\\" \\n"}',
]


@pytest.mark.parametrize("text", TEXTS, ids=["escapes", "layout", "quotes"])
def test_a_text_is_stored_byte_for_byte(store: Rooms, text: str) -> None:
    version = stored_version("a", text)
    assert version is not None
    store.show(version)
    newer = skill("a", version="2", code="new")
    found = store.reading().skill("a")
    assert found is not None
    assert found.text == text
    store.show(newer)
    assert [each.text for each in store.history.versions("a")] == [newer.text, text]
    assert store.catalogue.tampered(everything=True) == []
    assert store.catalogue.respelled() == []


def test_no_text_of_a_stranger_makes_a_statement_fail(store: Rooms) -> None:
    store.show(skill("a", name=ODD, category=ODD, tags=[ODD], version="1"))
    assert store.reading().count(SkillFilter(category=ODD)) <= 1
    store.reading().search(ODD, SkillFilter(tag=ODD))
    run = store.runs.begin("skills", started_by=ODD, now=NOW)
    failed = RunReport(run, "skills", "failed", 0, CatalogueCounts(), error=ErrorInfo("timeout", ODD))
    store.runs.finish(failed, now=NOW, requests={("skills", "500"): 1})
    rating = store.own_ratings.add("a", ODD, 5, ODD, now=NOW)
    (stored,) = store.ratings.load([rating.id])
    failure = RatingFailure("api_error", ODD, 1, None)
    store.ratings.record_deliveries([Delivery(stored, "failed", failure=failure)], now=NOW, requests={})
    store.catalogue.apply_categories([Category(ODD, "{}")], whole=True, resource=ODD, etag=ODD, now=NOW)
    store.state.begin(ODD, NOW)
    store.state.note(replace(ReportedConnection(connected=False, ws_url=ODD), reason=ODD), NOW)
    store.state.end(ODD, NOW)
    assert store.status().skills == 1
    assert store.ids.skills_from(ODD, limit=3) == ({}, {})
    assert store.engine.suggestions("skill", ODD) == []
