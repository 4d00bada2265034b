"""The calls of test_routines.py for the routines of the flag and of the dispatch path.

Placeholders and the show are those described there; proc p1 is made by each call that needs one.
"""

from __future__ import annotations

from typing import Any

_ARGS = "'{host}', '{job}', '{layer}', NULL, 100, 10, 0, 0, false"
_ARRAYS = (
    "ARRAY['{host}', '{host}'], ARRAY['{job}', 'gone'], ARRAY['{layer}', '{layer}'],"
    " ARRAY[NULL, NULL], ARRAY[100, 100], ARRAY[10, 10]"
)
# one entry as a retally.booking
_ONE = (
    "ARRAY[(1, 'p1', '{show}', '{alloc}', '{host}', '{job}', '{layer}', NULL, 100, 10, 1, 0,"
    " false)::retally.booking]"
)
_LEASE = (
    "INSERT INTO retally.lease (scope, token, holder, expires_at)"
    " VALUES ('{show}', 7, 'me', now() + '1 min'::interval)"
)
_TOO_BIG = _ONE.replace("(1,", "(2,").replace("100", "5000000")

DISPATCH_CALLS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "flag_lock": (
        "SELECT retally.flag_lock('a') = retally.flag_lock('a'),"
        " retally.flag_lock('a') = retally.flag_lock('b')",
        [(True, False)],
    ),
    "is_managed": ("SELECT retally.is_managed('{show}')", [(False,)]),
    "overridden": (
        "SELECT retally.overridden(asked, override) FROM (VALUES (true, 'none'), (false, 'all'),"
        " (true, 'per-show'), (false, 'per-show')) AS t (asked, override)",
        [(False,), (True,), (True,), (False,)],
    ),
    "pin_flag": ("SELECT retally.pin_flag('{show}')", [(False,)]),
    "pin_flags": ("SELECT retally.pin_flags(ARRAY['{show}', 'other'])", [([],)]),
    "hold_flag": ("SELECT retally.hold_flag('{show}', 'comet')", [("",)]),
    "flip": ("SELECT * FROM retally.flip('{show}', true)", [(5, 5, 0, 0, 1538, 17, [])]),
    "set_override": ("CALL retally.set_override('all')", [(1, 0, [])]),
    "book_proc": (f"SELECT retally.book_proc({_ARGS}) ~ '^[0-9a-f-]{{{{36}}}}$'", [(True,)]),
    "book_procs": (
        f"SELECT nr, proc IS NOT NULL, problem, message FROM retally.book_procs({_ARRAYS})",
        [(1, True, None, None), (2, False, "RT009", 'there is no job "gone"')],
    ),
    "asked_for": (
        f"SELECT nr, show, alloc, cores, gpus, local"
        f" FROM retally.asked_for({_ARRAYS}, NULL, NULL, NULL)",
        [(1, "{show}", None, 100, 0, False), (2, None, None, 100, 0, False)],
    ),
    "insert_procs": (f"SELECT retally.insert_procs({_ONE})", [(["p1"],)]),
    "lock_hosts": (
        f"SELECT nr, alloc, host, cores FROM retally.lock_hosts({_ONE})",
        [(1, "{alloc}", "{host}", 100)],
    ),
    "lock_totals": (f"SELECT retally.lock_totals({_ONE}, '{{{{}}}}')", [("",)]),
    "count_in": (f"SELECT retally.count_in({_ONE}, ARRAY['{{show}}'], 1)", [("",)]),
    "release_proc": ("SELECT retally.release_proc('gone')", [(False,)]),
    "release_procs": (
        "SELECT r.nr, r.released FROM public.proc AS p,"
        " retally.release_procs(ARRAY[p.pk_proc, 'gone', p.pk_proc]) AS r",
        [(1, True), (2, False), (3, False)],
    ),
    "delete_procs": (
        "SELECT d.show, d.alloc, d.host, d.cores, d.mem_kb, d.gpus FROM public.proc AS p,"
        " retally.delete_procs(ARRAY[p.pk_proc, 'gone'], ARRAY['{show}']) AS d",
        [("{show}", None, "{host}", 300, 1000, 2)],
    ),
    "add_to_totals": (
        "SELECT retally.add_to_totals('{show}', '{alloc}', '{layer}', '{job}', 5, 1, false)",
        [("",)],
    ),
    "take_local_share": (
        "SELECT retally.take_local_share('{host}', '{job}', c, c, 0, 0)"
        " FROM unnest(ARRAY[5, -5]) AS c",
        [(False,), (True,)],
    ),
    "refusal": (
        f"SELECT problem FROM retally.refusal({_ARGS.replace('100', '0')}) UNION ALL"
        f" SELECT problem FROM retally.refusal({_ARGS})",
        [("RT008",), (None,)],
    ),
    "refuse": (
        f"SELECT retally.refuse({_ARGS.replace('{layer}', 'gone')})",
        [("RT009",)],
    ),
    "require_read_committed": ("SELECT retally.require_read_committed('no')", [("",)]),
    "set_flag": ("SELECT retally.set_flag('{show}', true, true)", [("",)]),
    "change_override": ("SELECT retally.change_override('none', ARRAY['{show}'])", [("",)]),
    "add_batch_to_totals": (
        f"SELECT retally.add_batch_to_totals({_ONE}, '{{{{}}}}', 1)",
        [("",)],
    ),
    "refuse_with": (
        "SELECT retally.refuse_with('RT012', 'full', 'wait')",
        [("RT012",)],
    ),
    "over_burst": (
        "SELECT problem, message FROM retally.over_burst('{show}', '{alloc}', 5000000)",
        [
            (
                "RT012",
                'subscription of show "comet" to "{alloc}": 5000000 core units more would pass its'
                " burst of 1000000, -7 are in use",
            )
        ],
    ),
    "over_job_max": (
        "SELECT problem, message FROM retally.over_job_max('{job}', 5, 2000000)",
        [
            (
                "RT012",
                'job "{job}": 2000000 GPUs more would pass its maximum of 1000000, -1 are in use',
            )
        ],
    ),
    "first_come": (
        f"SELECT * FROM retally.first_come({_ONE} || {_TOO_BIG}, '{{{{}}}}')",
        [(1, None), (2, "host")],
    ),
    "why_not": (
        f"SELECT problem FROM retally.why_not(({_TOO_BIG})[1], '{{alloc}}', 'subscription', NULL)",
        [("RT012",)],
    ),
    "kept_out": (
        f"SELECT * FROM retally.kept_out({_ONE}, ARRAY['{{show}}'], ARRAY[7], NULL, '{{{{}}}}')"
        " UNION ALL SELECT *"
        f" FROM retally.kept_out({_ONE}, '{{{{}}}}', NULL, ARRAY['x'], '{{{{}}}}')",
        [(1, "lease"), (1, "move")],
    ),
    "unleased": (
        "SELECT problem, message FROM retally.unleased('{show}', 7)",
        [("RT019", 'show "comet" is managed, and nobody serves it')],
    ),
    "moved": ("SELECT problem FROM retally.moved('{host}', '{job}')", [("RT020",)]),
    "lease_stands": (
        "SELECT retally.lease_stands(NULL, token) FROM unnest(ARRAY[NULL, 7]::bigint[]) AS token",
        [(True,), (False,)],
    ),
    "is_wanted": (
        "SELECT retally.is_wanted(now()), retally.is_wanted(now() - interval '1 min'),"
        " retally.is_wanted(NULL)",
        [(True, False, False)],
    ),
    "want_lease": (
        f"{_LEASE}; SELECT retally.want_lease('{{show}}', who)"
        " FROM unnest(ARRAY['you', 'me']) AS who",
        [(True,), (False,)],
    ),
    "drop_lease": (
        f"{_LEASE}; SELECT retally.drop_lease('{{show}}'); SELECT holder, token FROM retally.lease",
        [(None, 8)],
    ),
    "require_lengths": (
        "SELECT retally.require_lengths(ARRAY[2, 2], ARRAY[NULL, 3])",
        [("RT008",)],
    ),
    "lease_wish": ("SELECT retally.lease_wish() > interval '0'", [(True,)]),
    "take_lease": (
        "INSERT INTO retally.scope_flag VALUES ('{show}', now(), 'me', true, true);"
        " SELECT token > 0, managed, served_by, expires_in"
        " FROM retally.take_lease('{show}', 'comet', 'me', '1 min')",
        [(True, True, None, None)],
    ),
    "keep_leases": (
        f"{_LEASE}; SELECT *"
        " FROM retally.keep_leases('me', ARRAY['{show}', 'x'], ARRAY[7, 7], '1 s')",
        [("{show}", False)],
    ),
    "end_leases": (
        f"{_LEASE}; SELECT retally.end_leases('me', ARRAY['{{show}}'], ARRAY[7]);"
        " SELECT holder FROM retally.lease",
        [(None,)],
    ),
    "end_lease": (
        f"{_LEASE}; CALL retally.end_lease('comet'); SELECT holder, token FROM retally.lease",
        [(None, 8)],
    ),
    "leases": (
        f"{_LEASE}; SELECT name, holder, token, live, wanted_by FROM retally.leases()",
        [("comet", "me", 7, True, None)],
    ),
    "vertices": (
        "SELECT * FROM retally.vertices('{show}')",
        [
            ("subscription", "{alloc}", "{alloc}", None, 1_000_000, -1, 300, 2),
            ("folder", "{folder}", "{folder}", None, -1, -1, 300, 2),
            ("job", "{job}", "{job}", "{folder}", 1_000_000, 1_000_000, 300, 2),
        ],
    ),
    "job_vertex": (
        "SELECT * FROM retally.job_vertex('{job}')",
        [("{show}", "comet", False, "{job}", "{folder}", 1_000_000, 1_000_000, 300, 2)],
    ),
    "set_burst": (
        "CALL retally.set_burst('comet', '{alloc}', 250);"
        " SELECT int_burst FROM public.subscription",
        [(250,)],
    ),
    "set_folder_max": (
        "CALL retally.set_folder_max('{folder}', 250);"
        " SELECT int_max_cores, int_max_gpus FROM public.folder_resource",
        [(250, -1)],
    ),
    "set_job_max": (
        "CALL retally.set_job_max('{job}', NULL, 5);"
        " SELECT int_max_cores, int_max_gpus FROM public.job_resource",
        [(1_000_000, 5)],
    ),
    "require_cap": ("SELECT retally.require_cap(-2, -1)", [("22003",)]),
    "notify_limit": (
        "SELECT retally.notify_limit(jsonb_build_object('vertex', 'job'), 'max_cores', 250, 1)",
        [(None,)],
    ),
    "shortage": (
        "SELECT retally.shortage(1, 1, 1, 1, 2, 1, 1, 1) UNION ALL"
        " SELECT retally.shortage(1, 1, 1, 1, 1, 1, 1, 1)",
        [("1 core units idle, not 2",), (None,)],
    ),
    "notify_release": (
        "SELECT retally.notify_release('{show}', '{alloc}', '{layer}', '{job}', 250, 1, '{{}}')",
        [(None,)],
    ),
    "host_drift": (
        "SELECT * FROM retally.host_drift() WHERE slot = 'cores'",
        [("{host}", "{host}", "cores", 100_000, 99_700)],
    ),
}
