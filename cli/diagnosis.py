"""What `retally doctor` looks at, and what it makes of what it sees: one function per check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.cli.output import cores, counted
from retally.cli.serving import look_at_journal, look_at_shows
from retally.cli.symptoms import Check, Question, Symptom, duration, listed, problem, warning
from retally.procedures import checks, rights, routines

if TYPE_CHECKING:
    import psycopg

    from retally.procedures.checks import OddTrigger

#: The major versions of PostgreSQL that retally is tested with.
_SERVERS = range(14, 19)

_CLOCK_SECONDS = 1.0
_ROWS_LISTED = 5
_DEAD_ROWS = 10_000  # fewer cost nothing, however many live ones there are


def _server(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    facts = checks.server(conn)
    found = []
    if facts.major < _SERVERS.start:
        found.append(problem(f"PostgreSQL {facts.version} is too old", "upgrade to 14 or newer"))
    elif facts.major not in _SERVERS:
        found.append(
            warning(
                f"PostgreSQL {facts.version} is newer than what retally is tested with",
                "look for a newer retally",
            )
        )
    if facts.is_replica:
        found.append(
            problem("the server is a replica, which takes no changes", "connect to the primary")
        )
    elif facts.read_only:
        found.append(
            problem(
                f"transactions of role {facts.role} begin read-only",
                f"ALTER ROLE {facts.role} SET default_transaction_read_only = off, or look where"
                " it is set",
            )
        )
    return found


def _isolation(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    facts = checks.server(conn)
    others = checks.other_isolations(conn)
    if not others and facts.isolation not in {"read committed", "read uncommitted"}:
        others = [("every role", facts.isolation)]
    return [
        warning(
            f"transactions of {role} begin in {level.upper()}: there, calls by hand and bookings"
            " are refused (RT003)",
            f"default_transaction_isolation = 'read committed' for {role}, or BEGIN ISOLATION"
            " LEVEL READ COMMITTED; the worker and the commands see to it themselves",
        )
        for role, level in others
    ]


def _clock(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    ahead = checks.seconds_ahead(conn)
    if abs(ahead) <= _CLOCK_SECONDS:
        return []
    way = "ahead of" if ahead > 0 else "behind"
    return [
        warning(
            f"the server's clock is {abs(ahead):,.1f} s {way} this machine's",
            "let both follow the same time server: times in logs and metrics do not fit together",
        )
    ]


def _farm(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    routines.check_farm(conn)
    return []


def _privileges(conn: psycopg.Connection, question: Question) -> list[Symptom]:
    role = checks.server(conn).role
    missing = rights.missing_rights(conn, role, question.purpose)
    if not missing:
        return []
    lacking = listed([right.text for right in missing])
    return [
        problem(
            f"role {role} lacks what a {question.purpose} needs: {lacking}",
            f"as the owner: retally grants --to {role} --for {question.purpose} --apply",
        )
    ]


_UNKNOWN = (
    "read its function: what it writes to totals is overwritten, what it refuses holds up a pass"
)
# What is not so while they do not run, by OpenCue's function.
_KEPT = {
    "trigger__verify_subscription": "no burst of a subscription is kept",
    "trigger__verify_job_resources": "no maximum of a job is kept",
    "trigger__before_insert_proc": "procs without cores are let in",
    "trigger__update_proc_update_layer": "a proc that goes on with another layer leaves its cores"
    " in the total of the former one",
    "trigger__upgrade_proc_memory_usage": "memory that a proc reserves on the way is not taken from"
    " its host",
}
_TIER = "the tier, by which Cuebot chooses who is next, is not kept"


def _triggers(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    by_table: dict[str, list[OddTrigger]] = {}
    for odd in checks.odd_triggers(conn):
        by_table.setdefault(odd.table_name, []).append(odd)
    return [
        warning(
            f"triggers on {table}: "
            + "; ".join(
                f"{odd.trigger_name} ({odd.function_name}) is {odd.fault}" for odd in found
            ),
            "; ".join(dict.fromkeys(_trigger_advice(odd) for odd in found)),
        )
        for table, found in by_table.items()
    ]


def _trigger_advice(odd: OddTrigger) -> str:
    if odd.fault == "unknown":
        return f"{odd.trigger_name}: {_UNKNOWN}"
    without = _KEPT.get(odd.function_name, _TIER)
    if odd.fault == "missing":
        return f"{odd.trigger_name}: take it from OpenCue's migrations: without it {without}"
    return (
        f"ALTER TABLE public.{odd.table_name} ENABLE TRIGGER {odd.trigger_name}, unless it is off"
        f" on purpose: without it {without}"
    )


def _indexes(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    return [
        warning(
            f"no index leads with {index.table_name}.{index.column_name}: {index.used_by} read the"
            " whole table",
            f"CREATE INDEX CONCURRENTLY ON public.{index.table_name} ({index.column_name});"
            " drop an invalid one first",
        )
        for index in checks.missing_indexes(conn)
    ]


def _transactions(conn: psycopg.Connection, question: Question) -> list[Symptom]:
    found = []
    for each in checks.long_transactions(conn, question.long):
        what = f"open for {duration(each.seconds)}: vacuum passes over what has died since"
        if each.state == "prepared":
            seen = f"prepared transaction {each.name} of role {each.role_name} is {what}"
            advice = f"COMMIT PREPARED or ROLLBACK PREPARED '{each.name}'"
        else:
            of = f"{each.role_name}, {each.application}" if each.application else each.role_name
            seen = f"a transaction of pid {each.name} ({of}; {each.state}) is {what}"
            advice = f"end it there, or SELECT pg_terminate_backend({each.name})"
        found.append(warning(seen, advice))
    if hidden := checks.hidden_sessions(conn):
        role = checks.server(conn).role
        found.append(
            warning(
                f"{counted(hidden, 'session')} of other roles cannot be looked into by {role}",
                f"GRANT pg_read_all_stats TO {role}, or run this as another role",
            )
        )
    return found


def _procs(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    by_reason: dict[str, list[str]] = {}
    for orphan in routines.orphans(conn):
        kinds = ", ".join(part.rpartition(" ")[0] for part in orphan.reason.split(", "))
        by_reason.setdefault(kinds, []).append(orphan.proc_id)
    return [
        warning(
            f"{counted(len(procs), 'proc')} with {kinds} in the farm: {listed(procs)}",
            "Cuebot ends such procs by and by; one that stays and does not run any more is ended by"
            f" SELECT retally.release_proc('{procs[0]}')"
            if "no host" not in kinds
            else "no host runs them: DELETE FROM public.proc WHERE pk_proc IN (…), and retally"
            " recompute",
        )
        for kinds, procs in sorted(by_reason.items())
    ]


# What OpenCue's triggers do when the thing is made; the other two are an admin's to make.
_MAKE_ROW = {
    "layer": "INSERT INTO public.layer_resource (pk_layer_resource, pk_layer, pk_job) SELECT"
    " gen_random_uuid(), pk_layer, pk_job FROM public.layer WHERE pk_layer = '{key}'",
    "job": "INSERT INTO public.job_resource (pk_job_resource, pk_job)"
    " VALUES (gen_random_uuid(), '{key}')",
    "folder": "INSERT INTO public.folder_resource (pk_folder_resource, pk_folder)"
    " VALUES (gen_random_uuid(), '{key}')",
    "subscription": "let an admin subscribe show {show} to this allocation, in CueGUI",
    "point": "let an admin add this department to show {show}, in CueGUI",
}


def _rows(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    missing = checks.missing_rows(conn)
    found = [
        problem(
            f"the {row.total} total of {row.name} in show {row.show_name} is not there; its procs"
            f" hold {cores(row.cores)} cores and {row.gpus} GPUs",
            _MAKE_ROW[row.total].format(key=row.key, show=row.show_name),
        )
        for row in missing[:_ROWS_LISTED]
    ]
    if more := missing[_ROWS_LISTED:]:
        found.append(problem(f"and {counted(len(more), 'row')} more", "retally drift lists them"))
    return found


def _vacuum(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    found = []
    if not checks.server(conn).autovacuum:
        found.append(warning("autovacuum is off for all tables", "turn it and track_counts on"))
    for table in checks.dead_rows(conn):
        if not table.vacuumed:
            found.append(
                warning(
                    f"autovacuum is off for {table.table_name}",
                    f"ALTER TABLE {table.table_name} RESET (autovacuum_enabled)",
                )
            )
        if table.dead > max(table.live, _DEAD_ROWS):
            found.append(
                warning(
                    f"{table.table_name} has {table.dead:,} dead rows beside {table.live:,} live",
                    f"end long transactions, then VACUUM {table.table_name}",
                )
            )
    return found


def _settings(conn: psycopg.Connection, _: Question) -> list[Symptom]:
    found = []
    setting, bound = checks.setting(conn), checks.server(conn).deadlock_timeout / 2
    if setting.longest_wait > bound:
        found.append(
            warning(
                f"setting.longest_wait is {setting.longest_wait:g} s, and {bound:g} s is in force:"
                " half of deadlock_timeout",
                f"set it to {bound:g} s by UPDATE, or raise deadlock_timeout",
            )
        )
    if setting.repair_share == 0:
        found.append(
            warning(
                "setting.repair_share is 0: every repair is refused",
                "UPDATE retally.setting SET repair_share = 0.5, or the modes of shows to watch",
            )
        )
    if setting.history_every == 0:
        found.append(
            warning(
                "setting.history_every is 0: every pass leaves five rows in retally.history",
                "UPDATE retally.setting SET history_every = '1 minute'",
            )
        )
    if setting.longest_flip == 0:
        found.append(
            warning(
                "setting.longest_flip is 0: a flip gives up when any booking is in flight",
                "UPDATE retally.setting SET longest_flip = '5 seconds'",
            )
        )
    return found


#: What needs nothing of retally's own in the database.
BARE = (
    Check("server", "a primary, of a version that is tested", _server),
    Check("isolation", "READ COMMITTED is the default of every role", _isolation),
    Check("clock", "the server's clock and this machine's agree", _clock),
)

# Their rights are on the tables of shows, ticks and passes too.
_LOOKERS = ("worker", "reader")

#: What asks retally's routines.
INSTALLED = (
    Check("farm", "every column that retally uses is there", _farm),
    Check("privileges", "the role has all rights that it needs", _privileges),
    Check("triggers", "as OpenCue leaves them", _triggers),
    Check("indexes", "ticks and bookings find their rows by an index", _indexes),
    Check("transactions", "none is open for long", _transactions),
    Check("shows", "every show that is to be rebuilt is served", look_at_shows, _LOOKERS),
    Check("journal", "its triggers are there while a show is journaled", look_at_journal, _LOOKERS),
    Check("procs", "show, job, layer and host of every proc are known", _procs),
    Check("rows", "every total has its row", _rows, _LOOKERS),
    Check("vacuum", "autovacuum keeps up", _vacuum),
    Check("settings", "retally.setting makes sense", _settings),
)
