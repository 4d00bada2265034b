"""Calls of the routines that the worker, repairs and the ledger are made of; see test_routines.py.

They are made in a farm whose only show "comet" has all five totals wrong.
"""

from __future__ import annotations

from typing import Any

from retally.procedures import TOTALS

_FOUND = "ARRAY(SELECT f FROM retally.findings(ARRAY['{show}'], ARRAY['layer', 'point']) AS f)"
_AMOUNT = (
    "ARRAY[ROW('{layer}', 40, 1, NULL, NULL), ROW('gone', 1, 1, NULL, NULL)]::retally.amount[]"
)
_CHANGES = "ARRAY[ROW('layer', '{layer}', 'cores', 9, 0)]::retally.change[]"
_RUN = (
    "retally.note_run(NULL, 'me', 'by hand', FALSE, NULL, '{show}',"
    " ARRAY[ROW('layer', '{layer}', 'cores', 9, -7)]::retally.change[], '{{}}')"
)

_JOURNALED = "CALL retally.set_managed('comet', TRUE); CALL retally.set_journal('comet', TRUE)"

WORKER_CALLS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "claim_due": (
        "SELECT c.claimed, c.failures, c.due FROM generate_series(1, 2) AS n, LATERAL"
        " retally.claim_due('tick', n * '10 s'::interval, ARRAY['{show}'], 'me', '2026-01-01Z')"
        " AS c",
        [(["{show}"], [0], 0), ([], [], 0)],
    ),
    "is_due": (
        "SELECT retally.is_due(t, '10 s', '2026-01-01', '2026-01-01') FROM"
        " unnest(ARRAY['2025-01-01', '2026-01-01 00:00:01', '2027-01-01']::timestamptz[]) AS t",
        [(True,), (False,), (True,)],
    ),
    "is_alive": (
        "SELECT retally.is_alive(t, '1 h', '2026-01-01') FROM"
        " unnest(ARRAY['2025-12-31 22:00', '2025-12-31 21:00']::timestamptz[]) AS t",
        [(True,), (False,)],
    ),
    "forget_worker": ("SELECT retally.forget_worker('me')", [(None,)]),
    "note_failure": (
        "SELECT retally.note_failure('tick', '{show}', '5 s', 'out of paper')",
        [(None,)],
    ),
    "note_recovery": ("SELECT retally.note_recovery('tick', ARRAY['{show}'])", [(None,)]),
    "note_deferred": ("SELECT retally.note_deferred('{show}', 'job', '{{a}}')", [("",)]),
    "note_findings": (
        f"SELECT retally.note_findings({_FOUND}, 'watched', 'tick', 'me', 0.5)",
        [("",)],
    ),
    "note_passes": (
        "SELECT retally.note_passes(ARRAY[ROW('{show}', 'tick', 'job', 'rebuilt', 'me', now(),"
        " 0.5, 3, 2, 1, 0, 5, 6, '{{}}', NULL, NULL, NULL)]::retally.pass[])",
        [(None,)],
    ),
    "prune": ("CALL retally.prune()", [(0, 0)]),
    "set_mode": ("CALL retally.set_mode('comet', 'repair')", []),
    "amounts_in": (
        "SELECT * FROM retally.amounts_in('{show}', 'layer', ARRAY['{layer}', 'gone'])",
        [("{layer}", -7, -1, None, None)],
    ),
    "changes_between": (
        "SELECT * FROM retally.changes_between('layer',"
        " ARRAY(SELECT a FROM retally.amounts_in('{show}', 'layer', ARRAY['{layer}']) AS a),"
        f" {_AMOUNT})",
        [("layer", "{layer}", "cores", -7, 40), ("layer", "{layer}", "gpus", -1, 1)],
    ),
    "write_what_fits": (
        f"SELECT * FROM retally.write_what_fits('{{show}}', 'layer', {_AMOUNT})",
        [(["{layer}"], [], [])],
    ),
    "refuse_large_repair": (
        "SELECT retally.refuse_large_repair('{show}', retally.totals(), NULL)",
        [("RT015",)],
    ),
    "repair": (
        "SELECT run, total, rows_changed, rows_deferred, rows_failed"
        f" FROM retally.repair({_FOUND}, FALSE, 'tick', 'me', 'by hand', TRUE, NULL)",
        [(1, "layer", 1, 0, 0), (1, "point", 1, 0, 0)],
    ),
    "repair_show": (
        "CALL retally.repair_show('comet', p_force => TRUE)",
        [(1, 5, 5, 0, 0, [])],
    ),
    "likely_causes": (
        f"SELECT retally.likely_causes({_CHANGES})",
        [(["a release was not counted: no proc is left"],)],
    ),
    "keep_quiet": (
        "SELECT retally.keep_quiet(ARRAY(SELECT f FROM retally.findings(ARRAY['{show}'],"
        " ARRAY['point']) AS f)); SELECT tick, action, total FROM retally.pass",
        [("by hand", "rebuilt", "point")],
    ),
    "keep_passes": (
        "SELECT retally.keep_passes(ARRAY[ROW('{show}', 'tick', 'job', 'folded', 'me', now(), 0.1,"
        " 0, 1, 0, 0, 0, 0, '{{}}', NULL, NULL, NULL)]::retally.pass[],"
        " ARRAY[ROW('{show}', 'job', '{{}}', '{{a}}')]::retally.seizure[]);"
        " SELECT tick, action, p.passes, d.key FROM retally.pass AS p, retally.deferred AS d",
        [("tick", "folded", 1, "a")],
    ),
    "set_journal": (f"{_JOURNALED}; SELECT journaled FROM retally.shows()", [(True,)]),
    "set_journal_triggers": (
        "SELECT retally.set_journal_triggers(TRUE);"
        " SELECT count(*) FROM retally.journal_triggers() AS t WHERE t.works",
        [(3,)],
    ),
    "journal_triggers": (
        f"{_JOURNALED}; ALTER TABLE proc DISABLE TRIGGER retally_released;"
        " SELECT * FROM retally.journal_triggers()",
        [("retally_booked", True), ("retally_changed", True), ("retally_released", False)],
    ),
    "latest_left": (
        f"SELECT retally.note_findings({_FOUND}, 'watched', 'tick', 'me', 0.5);"
        " SELECT * FROM retally.latest_left('{show}', 'layer')",
        [(1, 0, 307, 3, [])],
    ),
    "hold_journal": ("SELECT retally.hold_journal()", [("",)]),
    "take_out": (
        f"{_JOURNALED}; UPDATE proc SET pk_job = 'gone', int_cores_reserved = 500;"
        " SELECT (t.delta).total, (t.delta).cores, t.lost"
        " FROM retally.take_out(ARRAY['{show}']) AS t",
        [
            ("subscription", 200, False),
            ("layer", 200, False),
            ("job", -300, False),
            ("folder", -300, False),
            ("point", -300, False),
            ("folder", 500, True),
            ("point", 500, True),
        ],
    ),
    "hold_deltas": (
        "SELECT retally.hold_deltas("
        "ARRAY[ROW('{show}', 'layer', '{layer}', 5, 1, NULL, NULL),"
        " ROW('{show}', 'point', 'gone', 5, 1, NULL, NULL)]::retally.delta[])",
        [(True,)],
    ),
    "count_deltas": (
        "SELECT retally.count_deltas("
        "ARRAY[ROW('{show}', 'layer', '{layer}', 5, 1, NULL, NULL),"
        " ROW('{show}', 'layer', 'gone', 5, 1, NULL, NULL)]::retally.delta[], 'layer', l)"
        " FROM unnest(ARRAY[true, false]) AS l",
        [(1,), (1,)],
    ),
    "end_journal": (
        f"{_JOURNALED}; CALL retally.end_journal();"
        " SELECT s.journaled, t.name FROM retally.shows() AS s"
        " LEFT JOIN retally.journal_triggers() AS t ON TRUE",
        [(False, None)],
    ),
    "journal_procs": (
        f"{_JOURNALED}; UPDATE public.proc SET int_cores_reserved = 500;"
        " SELECT scope, layer_id, cores FROM retally.journal ORDER BY cores",
        [("{show}", "{layer}", -300), ("{show}", "{layer}", 500)],
    ),
    "fold": (
        f"{_JOURNALED}; DELETE FROM public.proc;"
        " SELECT total, rows_changed, rows_failed, problems"
        " FROM retally.fold(ARRAY['{show}'], FALSE)",
        [(total, 1, 0, []) for total in TOTALS],
    ),
    "add_deltas": (
        "SELECT total, key FROM retally.add_deltas("
        "ARRAY[ROW('{show}', 'layer', '{layer}', 5, 1, NULL, NULL)]::retally.delta[])",
        [("layer", "{layer}")],
    ),
    "add_what_fits": (
        "ALTER TABLE layer_resource ADD CHECK (int_gpus <= 0);"
        "SELECT total, key FROM retally.add_what_fits("
        "ARRAY[ROW('{show}', 'layer', '{layer}', 5, 1, NULL, NULL),"
        " ROW('{show}', 'layer', '{layer}', 5, 0, NULL, NULL),"
        " ROW('{show}', 'folder', '{folder}', 5, 1, NULL, NULL)]::retally.delta[])",
        [("layer", "{layer}"), ("folder", "{folder}")],
    ),
    "note_run": (f"SELECT {_RUN}", [(1,)]),
    "ledger_rows": (
        f"SELECT {_RUN}; SELECT run, total, before"
        " FROM retally.ledger_rows('{{}}', '{{}}', 1, NULL)",
        [(1, "layer", 9)],
    ),
    "former_amounts": (
        f"SELECT {_RUN}; SELECT * FROM retally.former_amounts(1, '{{show}}', 'layer',"
        " ARRAY[ROW('{layer}', -7, -1, NULL, NULL)]::retally.amount[])",
        [("{layer}", 9, -1, None, None)],
    ),
    "restorable": (
        f"SELECT {_RUN}; SELECT key, now, restorable FROM retally.restorable(1)",
        [("{layer}", -7, True)],
    ),
    "undo_scope": (
        f"SELECT {_RUN}; SELECT * FROM retally.undo_scope(1, '{{show}}', 'me', NULL)",
        [(2, 1, 0, 0, [])],
    ),
    "undo": ("CALL retally.undo(7)", [("RT016",)]),
    "rights": (
        "SELECT * FROM retally.rights('worker') WHERE object = 'retally.setting'",
        [
            ("table", "retally.setting", "SELECT", None),
            ("table", "retally.setting", "UPDATE", ["override"]),
        ],
    ),
    "missing_rights": ("SELECT * FROM retally.missing_rights(current_user, 'worker')", []),
    "odd_triggers": ("SELECT * FROM retally.odd_triggers()", []),
    "missing_indexes": ("SELECT * FROM retally.missing_indexes()", []),
    "missing_rows": ("SELECT * FROM retally.missing_rows()", []),
    "long_transactions": ("SELECT * FROM retally.long_transactions('1 h')", []),
    "unserved_shows": ("SELECT * FROM retally.unserved_shows('1 min')", []),
}
