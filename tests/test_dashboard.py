"""The dashboard, the alert rules and their page name only what a worker really exports."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from metrics_scene import exercised

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads((ROOT / "deploy/grafana/retally.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((ROOT / "deploy/prometheus/retally-alerts.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")

PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel.get("targets", ())]
VARIABLES: dict[str, dict[str, Any]] = {
    each["name"]: each for each in DASHBOARD["templating"]["list"]
}
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]

# Prometheus adds them when it scrapes.
SCRAPED = frozenset({"job", "instance"})


def exported() -> dict[str, frozenset[str]]:
    """The labels of every series that a worker can export, by name, as Prometheus stores it."""
    labels = {"up": SCRAPED}
    for family in exercised().registry.collect():
        for sample in family.samples:
            labels[sample.name] = SCRAPED | set(sample.labels)
    return labels


LABELS = exported()


def result_labels(expr: Any) -> frozenset[str]:
    """The labels of what the expression yields; fails where it names what nobody exports."""
    match expr:
        case promql.VectorSelector():
            assert expr.name in LABELS, f"nobody exports {expr.name}"
            asked = {matcher.name for matcher in expr.matchers.matchers}
            assert asked <= LABELS[expr.name], f"{expr.name} has no {asked}"
            return LABELS[expr.name]
        case promql.MatrixSelector():
            return result_labels(expr.vector_selector)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return result_labels(expr.expr)
        case promql.AggregateExpr():
            return _aggregated(expr)
        case promql.BinaryExpr():
            return _combined(expr)
        case promql.Call():
            return _called(expr)
    return frozenset()  # a number


def _aggregated(expr: promql.AggregateExpr) -> frozenset[str]:
    inner = result_labels(expr.expr)
    if str(expr.op) in {"topk", "bottomk"}:
        return inner
    if expr.modifier is None:
        return frozenset()
    assert expr.modifier.type == promql.AggModifierType.By
    kept = frozenset(expr.modifier.labels)
    assert kept <= inner, f"{expr.prettify()} has no {kept - inner}"
    return kept


def _combined(expr: promql.BinaryExpr) -> frozenset[str]:
    left, right = result_labels(expr.lhs), result_labels(expr.rhs)
    scalar = any(isinstance(side, promql.NumberLiteral) for side in (expr.lhs, expr.rhs))
    if scalar or _is_time(expr.lhs) or _is_time(expr.rhs) or str(expr.op) == "or":
        return left | right
    matching = expr.modifier.matching if expr.modifier else None
    if matching is None:
        assert left == right, f"{expr.prettify()} matches {left} with {right}"
        return left
    on = frozenset(matching.labels)
    assert on <= left & right, f"{expr.prettify()} has no {on - (left & right)}"
    one_to_one = expr.modifier is not None and (
        expr.modifier.card == promql.VectorMatchCardinality.OneToOne
    )
    return on if one_to_one else left


def _is_time(expr: Any) -> bool:
    return isinstance(expr, promql.Call) and expr.func.name == "time"


def _called(expr: promql.Call) -> frozenset[str]:
    inner = frozenset[str]().union(*(result_labels(each) for each in expr.args))
    if expr.func.name == "histogram_quantile":
        assert "le" in inner
        return inner - {"le"}
    return frozenset() if expr.func.name == "absent" else inner


def without_variables(query: str) -> str:
    """The query as Grafana sends it, near enough."""
    for name, value in (("__rate_interval", "1m"), ("__interval", "15s")):
        query = query.replace(f"${name}", value)
    used = set(re.findall(r"\$\{?(\w+)", query))
    assert used <= set(VARIABLES), query
    return re.sub(r"\$\{?\w+\}?", "value", query)


def named_labels(text: str) -> frozenset[str]:
    """Those of a legend, {{show}}, and those of an alert, {{ $labels.show }}."""
    return frozenset(re.findall(r"{{(\w+)}}", text) + re.findall(r"\$labels\.(\w+)", text))


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("sum(rate(retally_no_such_total[5m]))", "nobody exports"),
        ('retally_drift_rows{layer="x"}', "has no"),
        ("sum by (worker) (retally_drift_rows)", "has no"),
        ("retally_drift_rows / retally_database_up", "matches"),
        ("sum by (show) (retally_drift_rows) * on (tick) retally_shows_due", "has no"),
    ],
)
def test_the_check_finds_names_that_do_not_exist(query: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        result_labels(promql.parse(query))


@pytest.mark.parametrize(
    ("title", "target"), TARGETS, ids=[f"{t}-{x['refId']}" for t, x in TARGETS]
)
def test_a_panel_asks_for_what_is_exported_and_names_labels_that_it_gets(
    title: str, target: dict[str, Any]
) -> None:
    labels = result_labels(promql.parse(without_variables(target["expr"])))
    assert named_labels(target["legendFormat"]) <= labels, title
    assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_variables_and_the_annotations_ask_for_what_is_exported() -> None:
    assert set(VARIABLES) == {"datasource", "job", "show"}
    for name in ("job", "show"):
        query = VARIABLES[name]["query"]["query"]
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert asked is not None
        assert asked[2] in result_labels(promql.parse(without_variables(asked[1])))
    for each in DASHBOARD["annotations"]["list"]:
        labels = result_labels(promql.parse(without_variables(each["expr"])))
        assert named_labels(each["titleFormat"]) <= labels


def test_the_panels_have_ids_of_their_own_and_none_covers_another() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    boxes = [panel["gridPos"] for panel in PANELS]
    for box in boxes:
        assert 0 <= box["x"] < box["x"] + box["w"] <= 24
        assert box["h"] > 0 <= box["y"]
    for one, other in itertools.combinations(boxes, 2):
        apart = [one[at] + one[size] <= other[at] for at, size in (("x", "w"), ("y", "h"))]
        apart += [other[at] + other[size] <= one[at] for at, size in (("x", "w"), ("y", "h"))]
        assert any(apart), (one, other)


def test_each_panel_says_what_it_shows() -> None:
    shown = [panel for panel in PANELS if panel["type"] != "row"]
    assert all(panel["title"] and panel["description"].endswith(".") for panel in shown)
    assert all(panel["targets"] for panel in shown)
    for panel in shown:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_asks_for_what_is_exported_and_says_what_to_do(alert: dict[str, Any]) -> None:
    labels = result_labels(promql.parse(alert["expr"]))
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert set(alert["annotations"]) == {"summary", "description"}
    for text in alert["annotations"].values():
        assert named_labels(text) <= labels
    assert len(alert["annotations"]["description"]) > 60


def test_the_alerts_have_names_of_their_own_and_the_page_lists_them() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert set(re.findall(r"^\| `(Retally\w+)`", PAGE, re.MULTILINE)) == set(names)


def test_the_page_lists_each_metric_and_none_else() -> None:
    listed = re.findall(r"^\| `((?:retally|process)_\w+)` \| (\w+) \|([^|]*)\|", PAGE, re.MULTILINE)
    told = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in listed
    }
    assert len(told) == len(listed)
    there = {}
    for family in exercised().registry.collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = {"info": "gauge"}.get(family.type, family.type)
        labels = frozenset().union(*(sample.labels for sample in family.samples)) - {"le"}
        there[name] = (kind, labels)
    assert told == there
