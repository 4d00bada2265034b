"""Every routine called once by itself, on one show with one proc whose every total is wrong."""

from __future__ import annotations

from decimal import Decimal
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from dispatch_calls import DISPATCH_CALLS
from small_farm import Rows, Work, corrupt, make_work
from worker_calls import WORKER_CALLS

from retally.procedures import TOTALS

# What each call answers; {show} {alloc} {layer} {job} {folder} {dept} are the keys of the one show
# "comet" with 300 core units and 2 GPUs booked, and -7 and -1 (-3 and -2 local) stored.
SUMS = {
    total: (f"{{{key}}}", 300, 2, *((0, 0) if total == "job" else (None, None)))
    for total, key in zip(TOTALS, ("alloc", "layer", "job", "folder", "dept"), strict=True)
}
BOOKED = [(total, *SUMS[total]) for total in TOTALS]
STORED = [
    (total, SUMS[total][0], -7, -1, *((-3, -2) if total == "job" else (None, None)))
    for total in TOTALS
]


def comparisons(total: str, key: str) -> str:
    """Three of them: of a row, of one that is not there, and of the row when it held other sums."""
    return (
        f"ARRAY[ROW('{{show}}', '{total}', '{key}', 'row', -7, -1, NULL, NULL, 40, 1, 0, 0),"
        f" ROW('{{show}}', '{total}', 'gone', 'row', -7, -1, NULL, NULL, 40, 1, 0, 0),"
        f" ROW('{{show}}', '{total}', '{key}', 'row', -8, -1, NULL, NULL, 50, 1, 0, 0)"
        "]::retally.comparison[]"
    )


ROW = "(ARRAY['{show}'], retally.totals()"
FOUND = f"ARRAY(SELECT f FROM retally.findings{ROW}) AS f)"

CALLS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "totals": ("SELECT retally.totals()", [(list(TOTALS),)]),
    "nearest_names": (
        "SELECT retally.nearest_names('show12', '{{show1,Show2,show21,other}}')",
        [(["Show2", "show1", "show21"],)],
    ),
    "lock_budget": ("SELECT retally.lock_budget() = '0.5 s'", [(True,)]),
    "set_lock_timeout": ("SELECT retally.set_lock_timeout('1 s')", [("0",)]),
    "hold_scope": ("SELECT retally.hold_scope('{show}', true)", [("",)]),
    "hold_scopes": (
        "SELECT retally.hold_scopes(ARRAY['{show}', 'a'], false)",
        [(["a", "{show}"],)],
    ),
    "scope_lock": ("SELECT retally.scope_lock('a') = retally.scope_lock('b')", [(False,)]),
    "check_farm": ("SELECT retally.check_farm()", [("",)]),
    "shows": (
        "SELECT * FROM retally.shows()",
        [("{show}", "comet", False, False, False, None, False)],
    ),
    "show_id": ("SELECT retally.show_id('comet')", [("{show}",)]),
    "procs_of": (
        f"SELECT * FROM retally.procs_of{ROW}, NULL, 'owed')",
        [("{show}", "{host}", "{layer}", "{job}", False, 300, 2)],
    ),
    "procs": (
        "SELECT * FROM retally.procs()",
        [("{show}", "{host}", "{layer}", "{job}", False, 300, 2)],
    ),
    "read_for": ("SELECT retally.read_for(ARRAY['{show}'])", [(["{show}"],)]),
    "booked_in": (
        f"SELECT total, key, cores, gpus, local_cores, local_gpus"
        f" FROM retally.booked_in{ROW}, NULL, 'procs')",
        BOOKED,
    ),
    "stored_in": (
        f"SELECT total, key, cores, gpus, local_cores, local_gpus"
        f" FROM retally.stored_in{ROW}, TRUE)",
        STORED,
    ),
    "booked": ("SELECT * FROM retally.booked('comet')", BOOKED),
    "stored": ("SELECT * FROM retally.stored('comet')", STORED),
    "home": (
        "SELECT h.* FROM (VALUES ('subscription', '{alloc}'), ('layer', '{layer}'),"
        " ('job', '{job}'), ('folder', '{folder}'), ('point', '{dept}'), ('layer', 'gone'))"
        " AS t (total, key) CROSS JOIN LATERAL retally.home('{show}', t.total, t.key) AS h",
        [("{show}", key in ("layer", "job")) for key in TOTALS],
    ),
    "compared": (
        f"SELECT total, key, kind, was_cores, cores FROM retally.compared{ROW}, 'owed')",
        [(total, SUMS[total][0], "row", -7, 300) for total in TOTALS],
    ),
    "adrift": (
        f"SELECT total, key, kind, was_cores, cores FROM retally.adrift{ROW})",
        [(total, SUMS[total][0], "row", -7, 300) for total in TOTALS],
    ),
    "findings_of": (
        "SELECT total, keys, rows_adrift, core_units, gpus FROM retally.findings_of("
        f"ARRAY(SELECT a FROM retally.adrift{ROW}) AS a), ARRAY['{{show}}'], ARRAY['layer'])",
        [("layer", ["{layer}"], 1, 307, 3)],
    ),
    "drift": (
        "SELECT * FROM retally.drift('comet') WHERE total = 'job'",
        [
            ("job", "{job}", "cores", -7, 300),
            ("job", "{job}", "gpus", -1, 2),
            ("job", "{job}", "local_cores", -3, 0),
            ("job", "{job}", "local_gpus", -2, 0),
        ],
    ),
    "drift_in": (
        "SELECT * FROM retally.drift_in(ARRAY['{show}'], ARRAY['layer'])",
        [
            ("{show}", "layer", "{layer}", "cores", -7, 300),
            ("{show}", "layer", "{layer}", "gpus", -1, 2),
        ],
    ),
    "named_drift": (
        f"SELECT show_name, total, name, slot FROM retally.named_drift{ROW}) WHERE slot = 'cores'",
        [
            ("comet", "subscription", "{alloc}", "cores"),
            ("comet", "layer", "{job}/{layer}", "cores"),
            ("comet", "job", "{job}", "cores"),
            ("comet", "folder", "{folder}", "cores"),
            ("comet", "point", "{dept}", "cores"),
        ],
    ),
    "findings": (
        f"SELECT total, keys, rows_adrift, rows_failed, core_units, gpus, problems"
        f" FROM retally.findings{ROW})",
        [
            (total, [SUMS[total][0]], 1, 0, *((310, 5) if total == "job" else (307, 3)), [])
            for total in TOTALS
        ],
    ),
    "orphans_in": (
        "SELECT * FROM retally.orphans_in("
        "ARRAY['{show}'], ARRAY['layer', 'job'], ARRAY['{layer}', NULL])",
        [("{show}", "layer", "{layer}", 300, 2)],
    ),
    "orphans": ("SELECT * FROM retally.orphans()", []),
    "problem": (
        "SELECT retally.problem('misfit', 'layer', '{layer}', 0, 0)",
        [("layer {job}/{layer} ({layer}): the sum of its procs does not fit the column",)],
    ),
    "row_name": (
        "SELECT retally.row_name(t, 'gone') FROM unnest(retally.totals()) AS t"
        " UNION ALL SELECT retally.row_name('layer', '{layer}')",
        [("gone",)] * 5 + [("{job}/{layer}",)],
    ),
    "column_limit": ("SELECT retally.column_limit('point', 'int_gpus')", [(2**31 - 1,)]),
    "names": (
        "SELECT total, name FROM retally.names()",
        [
            ("subscription", "{alloc}"),
            ("layer", "{job}/{layer}"),
            ("job", "{job}"),
            ("folder", "{folder}"),
            ("point", "{dept}"),
        ],
    ),
    "lock_keys": (
        "SELECT retally.lock_keys('{show}', t.total, ARRAY[t.key, 'gone'], w.wait)"
        " FROM (VALUES ('subscription', '{alloc}'), ('layer', '{layer}'), ('job', '{job}'),"
        " ('folder', '{folder}'), ('point', '{dept}')) AS t (total, key),"
        " (VALUES (true), (false)) AS w (wait)",
        [([SUMS[total][0]],) for total in TOTALS for _ in range(2)],
    ),
    "lock_free_rows": (
        "SELECT * FROM retally.lock_free_rows('{show}', 'job', ARRAY['{job}'], ARRAY['{job}'])",
        [(["{job}"], [])],
    ),
    "wait_for_row": (
        "SELECT retally.wait_for_row('{show}', 'job', '{job}', '1 min')",
        [(True,)],
    ),
    "patient_keys": (
        "SELECT retally.patient_keys('{show}', 'job', ARRAY['{job}'], w)"
        " FROM unnest(ARRAY[true, false]) AS w",
        [(["{job}"],), ([],)],
    ),
    "seize_rows": (
        "SELECT * FROM retally.seize_rows('{show}', 'layer', ARRAY['{layer}', 'gone'], true,"
        " clock_timestamp(), false)",
        [(["{layer}"], [])],
    ),
    "mend": (
        f"SELECT total, rows_changed, rows_deferred, rows_failed "
        f" FROM retally.mend({FOUND}, false, 'rebuilt', 'tick', 'me')",
        [(total, 1, 0, 0) for total in TOTALS],
    ),
    "mend_by_hand": (
        f"SELECT total, rows_changed, core_units_adrift FROM retally.mend_by_hand({FOUND}, true)",
        [(total, 1, 310 if total == "job" else 307) for total in TOTALS],
    ),
    "added_up": (
        "SELECT * FROM retally.added_up(ARRAY(SELECT m FROM retally.mend_by_hand("
        f"{FOUND}, true) AS m))",
        [("{show}", 5, 5, 0, 0, 1538, 17, [])],
    ),
    "rebuild": (
        "SELECT tick, total, action, rows_changed, rows_deferred, rows_failed"
        f" FROM retally.rebuild{ROW}, false, 'tick', 'me')",
        [("tick", total, "rebuilt", 1, 0, 0) for total in TOTALS],
    ),
    "mend_rows": (
        "SELECT rows_changed, busy, problems, (changes[1]).after"
        " FROM retally.mend_rows(ARRAY(SELECT f FROM retally.findings(ARRAY['{show}'],"
        " ARRAY['point']) AS f), true, clock_timestamp(), false, true)",
        [(1, [], [], 300)],
    ),
    "recompute_in_one": (
        "SELECT * FROM retally.recompute_in_one('comet', ARRAY['layer', 'point'], true)",
        [(2, 2, 0, 0, 614, 6, [])],
    ),
    "recompute_all": (
        "CALL retally.recompute_all(p_unmanaged_too => true)",
        [(1, 0, 5, 5, 0, 0, 1538, 17, [])],
    ),
    "recompute_show": ("CALL retally.recompute_show('comet')", [(5, 5, 0, 0, 1538, 17, [])]),
    "recompute_subscription": (
        "CALL retally.recompute_subscription('comet')",
        [(1, 1, 0, 0, 307, 3, [])],
    ),
    "recompute_layer": ("CALL retally.recompute_layer('comet')", [(1, 1, 0, 0, 307, 3, [])]),
    "recompute_job": ("CALL retally.recompute_job('comet')", [(1, 1, 0, 0, 310, 5, [])]),
    "recompute_folder": ("CALL retally.recompute_folder('comet')", [(1, 1, 0, 0, 307, 3, [])]),
    "recompute_point": ("CALL retally.recompute_point('comet')", [(1, 1, 0, 0, 307, 3, [])]),
    "set_managed": (
        "CALL retally.set_managed('comet', true)",
        [(5, 5, 0, 0, 1538, 17, [])],
    ),
}
for _total in TOTALS:
    _name = SUMS[_total][0]
    CALLS |= {
        f"write_{_total}": (
            f"SELECT * FROM retally.write_{_total}({comparisons(_total, _name)})",
            [("{show}", _name, True)],
        ),
    }
CALLS |= {
    "lock_rows": (
        "SELECT * FROM retally.lock_rows('{show}', 'job', ARRAY['{job}', 'gone'])",
        [("{job}", True)],
    ),
    "write_rows": (
        f"SELECT * FROM retally.write_rows('job', {comparisons('job', '{job}')})",
        [("{show}", "{job}", True)],
    ),
    "write_found": (
        f"SELECT key FROM unnest(retally.write_found('layer', {comparisons('layer', '{layer}')}))",
        [("gone",)],
    ),
    "sum_again": (
        "SELECT s.show_id, s.total, (s.amount).*"
        " FROM retally.sum_again(ARRAY[ROW('{show}', 'job', '{{{job},gone}}', '{{}}'),"
        " ROW('{show}', 'layer', '{{{layer}}}', '{{}}')]::retally.seizure[]) AS s",
        [
            ("{show}", "job", "{job}", 300, 2, 0, 0),
            ("{show}", "job", "gone", 0, 0, 0, 0),
            ("{show}", "layer", "{layer}", 300, 2, 0, 0),
        ],
    ),
}
CALLS |= DISPATCH_CALLS | WORKER_CALLS


def test_every_routine_is_among_these_calls() -> None:
    rooms = [files("retally.procedures").joinpath(room) for room in ("core", "opencue")]
    names = {file.name.removesuffix(".sql") for room in rooms for file in room.iterdir()}
    assert names == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_answers_as_expected(farm_db: psycopg.Connection, name: str) -> None:
    rows = Rows(farm_db)
    work = make_work(rows, "comet")
    rows.proc(work.host, work.show, work.job, work.layer, cores=300, gpus=2)
    corrupt(farm_db)
    statement, expected = CALLS[name]

    try:
        cursor = farm_db.execute(filled(statement, work))
        while cursor.nextset():
            pass  # the last statement is the call
        found = cursor.fetchall() if cursor.description else []
    except psycopg.Error as error:
        found = [(error.sqlstate,)]  # of the routines that only raise
    assert sorted(map(plain, found), key=str) == sorted(
        (filled(row, work) for row in expected), key=str
    )


def filled(thing: Any, work: Work) -> Any:
    """The same with the keys of the show filled in, in strings however deep."""
    if isinstance(thing, str):
        return thing.format(**vars(work))
    if isinstance(thing, list | tuple):
        return type(thing)(filled(part, work) for part in thing)
    return thing


def plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(int(value) if isinstance(value, Decimal) else value for value in row)
