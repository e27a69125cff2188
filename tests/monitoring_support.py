"""The shipped dashboard, alerts and manifests as values, and the metrics in PromQL expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DASHBOARD = ROOT / "monitoring" / "grafana" / "sync-dashboard.json"
ALERTS = ROOT / "monitoring" / "alerts" / "prometheus-alerts.yml"
ALERT_TESTS = ROOT / "monitoring" / "alerts" / "prometheus-alerts.test.yml"
PROMETHEUS = ROOT / "monitoring" / "prometheus" / "prometheus.yml"
PROMETHEUS_TEXTFILE = ROOT / "monitoring" / "prometheus" / "prometheus-textfile.yml"
DEPLOYMENT = ROOT / "kubernetes" / "deployment.yaml"

Json = dict[str, Any]

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(rf"(atom_saas_\w+)(?:\{{((?:[^{{}}\"]|{_STRING})*)\}})?")
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
# The comparison of an alert's value with a number.
_THRESHOLD = re.compile(r"\s*(?:[<>=!]=|[<>])\s*[\d.]+")


@dataclass(frozen=True)
class Selector:
    """A metric in an expression, and its matchers: label, operator, value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def dashboard() -> Json:
    document: Json = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return document


def panels() -> list[Json]:
    """Return the panels, without the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_expressions() -> list[tuple[Json, Json]]:
    """Return each panel with each of its targets."""
    return [(panel, target) for panel in panels() for target in panel["targets"]]


def alerts() -> dict[str, Json]:
    return {rule["alert"]: rule for group in load_yaml(ALERTS)["groups"] for rule in group["rules"]}


def selectors(expression: str) -> Iterator[Selector]:
    for metric, matchers in _SELECTOR.findall(expression):
        yield Selector(
            metric, tuple((label, how, json.loads(value)) for label, how, value in _MATCHER.findall(matchers))
        )


def grouping_labels(expression: str) -> set[str]:
    return {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",")}


def watched(expression: str) -> str:
    """Return the expression of an alert without its thresholds."""
    return _THRESHOLD.sub("", expression)
