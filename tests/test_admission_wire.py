"""Notifications: what makes sense is taken, anything else is malformed and nothing more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retally.dispatch.admission.wire import (
    LimitChange,
    MalformedPayloadError,
    Release,
    limit_change,
    release,
)

IDS = {"show": "s", "alloc": "a", "folder": "f", "job": "j", "layer": "l", "dept": "d"}
RELEASE = IDS | {"cores": -3, "gpus": -1, "core_units": -350, "xact": "815"}
BURST = {"vertex": "sub", "show": "s", "alloc": "a", "burst": 3, "core_units": 350, "xact": "815"}
JOB = {"vertex": "job", "id": "j", "max_cores": 3, "max_gpus": 1}


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def test_a_release_of_retallys_own_is_exact_and_says_when() -> None:
    assert release(json.dumps(RELEASE)) == Release("s", "a", "f", "j", 350, 1, 815)


def test_a_release_of_others_is_of_whole_cores_and_does_not_say_when() -> None:
    foreign = without(RELEASE, "core_units", "xact")
    assert release(json.dumps(foreign)) == Release("s", "a", "f", "j", 300, 1, None)


def test_a_release_may_lack_what_is_gone() -> None:
    gone = RELEASE | {"folder": None, "layer": None, "dept": None}
    assert release(json.dumps(gone)).folder is None
    assert release(json.dumps(without(RELEASE, "alloc", "layer", "dept"))).alloc is None


def test_limits_are_core_units_however_they_are_told() -> None:
    assert limit_change(json.dumps(BURST)) == LimitChange("subscription", "a", "s", 350, None, 815)
    foreign = without(BURST, "core_units", "xact")
    assert limit_change(json.dumps(foreign)) == LimitChange(
        "subscription", "a", "s", 300, None, None
    )
    assert limit_change(json.dumps(JOB)) == LimitChange("job", "j", None, 300, 1, None)


def test_what_is_left_out_of_a_limit_stays_as_it_is_and_minus_one_is_none() -> None:
    gpus_only = without(JOB, "max_cores")
    assert limit_change(json.dumps(gpus_only)) == LimitChange("job", "j", None, None, 1, None)
    lifted = {"vertex": "folder", "id": "f", "max_cores": -1}
    assert limit_change(json.dumps(lifted)) == LimitChange("folder", "f", None, -1, None, None)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "release",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        json.dumps(without(RELEASE, "show")),
        json.dumps(without(RELEASE, "cores")),
        json.dumps(without(RELEASE, "gpus")),
        json.dumps(RELEASE | {"show": 5}),
        json.dumps(RELEASE | {"job": ["j"]}),
        json.dumps(RELEASE | {"cores": 3}),
        json.dumps(RELEASE | {"cores": -2.5}),
        json.dumps(RELEASE | {"cores": "-3"}),
        json.dumps(RELEASE | {"cores": True}),
        json.dumps(RELEASE | {"core_units": 1}),
        json.dumps(RELEASE | {"gpus": 1}),
        json.dumps(RELEASE | {"cores": -(2**70)}),
        json.dumps(RELEASE | {"xact": 815}),
        json.dumps(RELEASE | {"xact": "-815"}),
        json.dumps(RELEASE | {"xact": "٣"}),
    ],
)
def test_a_release_that_makes_no_sense_is_malformed(payload: str) -> None:
    with pytest.raises(MalformedPayloadError):
        release(payload)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{}",
        json.dumps(BURST | {"vertex": "star"}),
        json.dumps(BURST | {"vertex": ["sub"]}),
        json.dumps(without(BURST, "vertex")),
        json.dumps(without(BURST, "show")),
        json.dumps(without(BURST, "alloc")),
        json.dumps(without(BURST, "burst")),
        json.dumps(BURST | {"burst": "much"}),
        json.dumps(without(JOB, "id")),
        json.dumps(JOB | {"max_cores": 1.5}),
        json.dumps(JOB | {"max_gpus": {}}),
    ],
)
def test_a_limit_that_makes_no_sense_is_malformed(payload: str) -> None:
    with pytest.raises(MalformedPayloadError):
        limit_change(payload)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.dictionaries(st.sampled_from(sorted({*RELEASE, *BURST, *JOB})), values)


@given(st.text() | fields.map(json.dumps))
def test_whatever_comes_is_sane_or_malformed(payload: str) -> None:
    try:
        found = release(payload)
    except MalformedPayloadError:
        pass
    else:
        assert found.core_units >= 0
        assert found.gpus >= 0
    try:
        change = limit_change(payload)
    except MalformedPayloadError:
        return
    assert change.vertex in {"subscription", "folder", "job"}
    assert (change.show is None) == (change.vertex != "subscription")
