"""Dashboard, alerts and scrape examples match our metrics, the deployment guide and the documentation.
tests/soak/test_monitoring_real.py tries them in a real Prometheus.
"""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest
from monitoring_support import (
    ALERT_TESTS,
    ALERTS,
    PROMETHEUS,
    PROMETHEUS_TEXTFILE,
    ROOT,
    Json,
    alerts,
    dashboard,
    grouping_labels,
    load_yaml,
    panel_expressions,
    panels,
    selectors,
    watched,
)
from prometheus_client.parser import text_string_to_metric_families

from atom_saas_sync.metrics import render
from atom_saas_sync.model import Status

# The deployment guide's dashboard, row by row, and a row of ours: each panel and what draws it.
ROWS = {
    "Overview": {
        "Sync Success Rate (last 24h)": "stat",
        "Average Sync Duration": "stat",
        "Cache Size (Skills, Categories)": "stat",
        "WebSocket Connection Status": "stat",
    },
    "Sync Metrics": {
        "Skill Sync Success Rate": "gauge",
        "Rating Sync Success Rate": "gauge",
        "Sync Duration Histogram": "heatmap",
        "Sync Errors by Type": "barchart",
    },
    "Cache Metrics": {
        "Skills Cached Over Time": "timeseries",
        "Categories Cached Over Time": "timeseries",
        "Cache Hit Rate": "gauge",
    },
    "WebSocket": {
        "WebSocket Connection Status": "state-timeline",
        "Reconnection Attempts": "gauge",
        "Messages Received": "stat",
        "Fallback Mode Duration": "gauge",
    },
    "Conflict Resolution": {
        "Conflicts Detected": "stat",
        "Conflicts Auto-Resolved": "gauge",
        "Conflicts Manual Review": "gauge",
        "Conflict Types": "piechart",
    },
    "Trust": {
        "Tampered Skills": "stat",
        "Updates Waiting": "stat",
        "Oldest Waiting Update": "stat",
        "Skills in Quarantine": "stat",
        "Admissions": "stat",
        "Revocations File": "stat",
    },
}
SEVERITIES = {
    "SyncStale": "critical",
    "WebSocketDisconnected": "critical",
    "HighErrorRate": "critical",
    "SyncSlow": "warning",
    "CacheLow": "warning",
    "ConflictHigh": "warning",
    "SkillsTampered": "critical",
    "RevocationsFailed": "critical",
    "UpdatesTripped": "warning",
    "UpdatesWaitingLong": "warning",
}
# Labels that the scrape adds to every series.
SCRAPE_LABELS = {"job", "instance"}

Exposition = dict[str, dict[str, set[str]]]


@pytest.fixture(scope="module")
def exposition() -> Exposition:
    """Return the labels of each metric, and their values, as they are before anything has happened."""
    found: Exposition = defaultdict(lambda: defaultdict(set))
    now = datetime(2026, 2, 19, tzinfo=UTC)
    text = render(Status(read_at=now, database_path=""), now)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].update({})
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)
    return dict(found)


def expressions() -> list[Any]:
    shown = [
        pytest.param(target["expr"], id=f"{panel['id']}-{panel['title']}-{target['refId']}")
        for panel, target in panel_expressions()
    ]
    return [*shown, *(pytest.param(rule["expr"], id=name) for name, rule in alerts().items())]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_label_and_value_that_is_asked_for_is_exposed(expression: str, exposition: Exposition) -> None:
    asked = list(selectors(expression))
    assert asked
    known: set[str] = set(SCRAPE_LABELS)
    for selector in asked:
        assert selector.metric in exposition, selector.metric
        labels = exposition[selector.metric]
        known |= labels.keys()
        for label, how, value in selector.matchers:
            if label in SCRAPE_LABELS:
                continue
            assert label in labels, f"{selector.metric} has no label {label}"
            if how in {"=", "!="}:
                assert value in labels[label], f"{selector.metric} has no {label}={value}"
            elif how == "!~":
                assert set(value.split("|")) <= labels[label], f"{selector.metric}: {value}"
            else:
                assert any(re.fullmatch(value, each) for each in labels[label]), f"{selector.metric}: {value}"
    assert grouping_labels(expression) <= known


def test_the_regular_expressions_see_what_is_asked_for() -> None:
    expression = 'sum by (a, b) (rate(atom_saas_x_total{c="d", e=~"f|{g}"}[1h])) / atom_saas_y > 0.1'
    found = list(selectors(expression))
    assert [each.metric for each in found] == ["atom_saas_x_total", "atom_saas_y"]
    assert found[0].matchers == (("c", "=", "d"), ("e", "=~", "f|{g}"))
    assert grouping_labels(expression) == {"a", "b"}
    assert watched('a >= 2 and b{c=~"d"} == 1 or c != 0.5') == 'a and b{c=~"d"} or c'


def test_the_dashboard_has_the_rows_and_panels_of_the_guide() -> None:
    found: dict[str, dict[str, str]] = {}
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            found[panel["title"]] = {}
        else:
            next(reversed(found.values()))[panel["title"]] = panel["type"]
    assert found == ROWS


def test_the_dashboard_can_be_imported_anywhere() -> None:
    document = dashboard()
    assert document["id"] is None
    assert re.fullmatch(r"[\w-]{1,40}", document["uid"])
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    anywhere = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["instance"]["datasource"] == anywhere
    for panel, target in panel_expressions():
        assert panel["datasource"] == target["datasource"] == anywhere
    assert "__inputs" not in document  # only an import by hand would resolve them


def test_every_panel_has_a_title_an_installation_and_a_unit(exposition: Exposition) -> None:
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        if panel["type"] == "gauge":
            assert {"min", "max", "thresholds"} <= panel["fieldConfig"]["defaults"].keys(), panel["title"]
    for panel, target in panel_expressions():
        for selector in selectors(target["expr"]):
            assert ("instance", "=~", "$instance") in selector.matchers, panel["title"]
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert any(label in exposition[each.metric] for each in selectors(target["expr"])), panel["title"]


def test_no_panel_covers_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_the_alerts_and_their_severities_are_those_of_the_guide_and_ours() -> None:
    assert {name: rule["labels"]["severity"] for name, rule in alerts().items()} == SEVERITIES
    for name, rule in alerts().items():
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["description"], name
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert label in {*SCRAPE_LABELS, "type"}, name


@pytest.mark.parametrize("name", SEVERITIES)
def test_the_runbook_of_every_alert_is_there(name: str) -> None:
    file, _, anchor = alerts()[name]["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    assert anchor == name.lower()
    assert anchors.count(anchor) == 1, f"{file} has no heading {name}"


@pytest.mark.parametrize("name", SEVERITIES)
def test_every_alert_has_a_test_that_it_fires_and_that_it_keeps_still(name: str) -> None:
    document = load_yaml(ALERT_TESTS)
    assert [ALERT_TESTS.parent / file for file in document["rule_files"]] == [ALERTS]
    expected = [
        len(case["exp_alerts"])
        for test in document["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert 0 in expected
    assert any(expected)


def test_the_tests_of_the_alerts_feed_them_metrics_that_exist(exposition: Exposition) -> None:
    for test in load_yaml(ALERT_TESTS)["tests"]:
        for series in test["input_series"]:
            (selector,) = selectors(series["series"])
            labels = exposition[selector.metric]
            assert {label for label, _, _ in selector.matchers} == {*labels, *SCRAPE_LABELS}
            for label, _, value in selector.matchers:
                # le is written in two ways: by Python as 60.0, by node_exporter as 60.
                assert label in SCRAPE_LABELS or {value, f"{value}.0"} & labels[label], series["series"]


@pytest.mark.parametrize(("path", "port"), [(PROMETHEUS, 8000), (PROMETHEUS_TEXTFILE, 9100)])
def test_the_scrape_examples_load_the_alerts_and_scrape_what_serves_the_metrics(path: Any, port: int) -> None:
    document: Json = load_yaml(path)
    assert [(path.parent / file).resolve() for file in document["rule_files"]] == [ALERTS]
    (job,) = document["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{port}"]}]
    assert job.get("metrics_path") == ("/metrics/sync" if path == PROMETHEUS else None)


def test_the_monitoring_guide_names_every_metric_and_alert(exposition: Exposition) -> None:
    text = (ROOT / "docs" / "MONITORING_SETUP.md").read_text(encoding="utf-8")
    told = {}
    for names, labels in re.findall(r"^\| (`atom_saas_[^|]*) \| \w+ \|([^|]*)\|", text, re.MULTILINE):
        for name in re.findall(r"\w+", names):
            told[name] = set(re.findall(r"\w+", labels))
    exposed = {name: set(labels) - {"le"} for name, labels in exposition.items() if not name.endswith("_bucket")}
    histogram = "atom_saas_sync_duration_seconds"
    assert exposed.pop(f"{histogram}_count") == exposed.pop(f"{histogram}_sum")
    assert told == {**exposed, histogram: {"type"}}
    severities = dict(re.findall(r"^\| \[(\w+)\]\(TROUBLESHOOTING\.md#\w+\) \| (\w+) \|", text, re.MULTILINE))
    assert severities == SEVERITIES
