"""Any order of calls does what a plain Python model says: refusals, hosts, shares and totals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dispatch_model import (
    BURST,
    FRAMES,
    HOSTS,
    JOBS,
    LAYERS,
    MAX_CORES,
    MAX_GPUS,
    SHARES,
    SLOTS,
    SUBSCRIPTIONS,
    Model,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_farm import Rows, drift, idle, share_idle

from retally.procedures.booking import Booking, book, book_many, release, release_many
from retally.sql.errors import BookingRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypothesis.strategies import SearchStrategy

RESET = f"""
DELETE FROM proc;
DELETE FROM retally.scope_flag;
UPDATE retally.setting SET override = 'per-show';
UPDATE host SET int_cores_idle = int_cores, int_mem_idle = int_mem, int_gpus_idle = int_gpus,
    int_gpu_mem_idle = int_gpu_mem;
UPDATE host_local SET int_cores_idle = int_cores_max, int_mem_idle = int_mem_max,
    int_gpus_idle = int_gpus_max;
UPDATE subscription SET int_cores = 0, int_gpus = 0, int_burst = {BURST};
UPDATE layer_resource SET int_cores = 0, int_gpus = 0;
UPDATE job_resource SET int_cores = 0, int_gpus = 0, int_local_cores = 0, int_local_gpus = 0,
    int_max_cores = {MAX_CORES}, int_max_gpus = {MAX_GPUS};
UPDATE folder_resource SET int_cores = 0, int_gpus = 0;
UPDATE point SET int_cores = 0, int_gpus = 0;
"""

STORED = """
SELECT 'subscription', pk_show, pk_alloc, int_cores, int_gpus FROM subscription
UNION ALL SELECT 'layer', pk_layer, NULL, int_cores, int_gpus FROM layer_resource
UNION ALL SELECT 'job', pk_job, NULL, int_cores, int_gpus FROM job_resource
UNION ALL SELECT 'local', pk_job, NULL, int_local_cores, int_local_gpus FROM job_resource
UNION ALL SELECT 'folder', f.pk_show, NULL, int_cores, int_gpus
FROM folder_resource INNER JOIN folder AS f USING (pk_folder)
UNION ALL SELECT 'point', pk_show, NULL, int_cores, int_gpus FROM point
"""


class Farm:
    """The model's farm in a database, and the model beside it."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn, self.rows = conn, Rows(conn)
        rows, ids = self.rows, dict[str, str]()
        for name in ("s0", "s1"):
            ids[name], ids[f"dept {name}"] = rows.show(), rows.dept()
            rows.point(ids[name], ids[f"dept {name}"])
            ids[f"folder {name}"] = rows.folder(ids[name], ids[f"dept {name}"])
        ids |= {name: rows.alloc() for name in ("a0", "a1")}
        for show, alloc in SUBSCRIPTIONS:
            rows.subscription(ids[show], ids[alloc])
        ids |= {name: rows.host(ids[alloc], *has) for name, (alloc, *has) in HOSTS.items()}
        for job, show in JOBS.items():
            ids[job] = rows.job(ids[show], ids[f"folder {show}"], ids[f"dept {show}"])
        ids |= {layer: rows.layer(ids[job]) for layer, job in LAYERS.items()}
        ids |= {frame: rows.frame(ids[layer]) for frame, layer in FRAMES.items()}
        for (host, job), has in SHARES.items():
            rows.local_share(ids[host], ids[job], *has)
        self.ids, self.names = ids, {key: name for name, key in ids.items()}
        self.reset()

    def reset(self) -> None:
        """Nothing runs, all caps and flags are as at first."""
        self.conn.execute(RESET)
        self.model = Model.new()
        self.ever: list[str] = []

    def real(self, asked: Booking) -> Booking:
        names = {name: getattr(asked, name) for name in ("host", "job", "layer", "frame")}
        return replace(asked, **{name: self.ids.get(key, key) for name, key in names.items()})

    def expect(self, asked: Booking, proc: str | None, error: str | None) -> None:
        assert error == self.model.refusal(asked)
        if proc is not None:
            self.model.count(asked, 1)
            self.model.procs[proc] = asked
            self.ever.append(proc)

    def book(self, asked: Booking) -> None:
        try:
            proc = book(self.conn, self.real(asked))
        except BookingRefusedError as refused:
            self.expect(asked, None, type(refused).__name__)
        else:
            self.expect(asked, proc, None)

    def book_many(self, many: list[Booking]) -> None:
        # as one by one: the model takes the entries in their order
        answers = book_many(self.conn, [self.real(asked) for asked in many])
        for asked, answer in zip(many, answers, strict=True):
            error = None if answer.error is None else type(answer.error).__name__
            assert (answer.proc is None) == (error is not None)
            self.expect(asked, answer.proc, error)

    def proc(self, place: int) -> str:
        return [*self.ever, "gone"][place % (len(self.ever) + 1)]

    def ended(self, procs: Iterable[str]) -> list[bool]:
        """What releasing them one by one should answer."""
        answers = []
        for proc in procs:
            was = self.model.procs.pop(proc, None)
            if was is not None:
                self.model.count(was, -1)
            answers.append(was is not None)
        return answers

    def release(self, place: int) -> None:
        proc = self.proc(place)
        assert [release(self.conn, proc)] == self.ended([proc])

    def release_many(self, places: list[int]) -> None:
        procs = [self.proc(place) for place in places]
        assert release_many(self.conn, procs) == self.ended(procs)

    def memory(self, change: tuple[int, int]) -> None:
        proc, mem_kb = self.proc(change[0]), change[1]
        was = self.model.procs.get(proc)
        statement = "UPDATE proc SET int_mem_reserved = %s WHERE pk_proc = %s"
        if was and self.model.hosts[was.host]["mem"] + was.mem_kb < mem_kb:
            with pytest.raises(psycopg.errors.RaiseException, match="not enough idle"):
                self.conn.execute(statement, (mem_kb, proc))
            return
        self.conn.execute(statement, (mem_kb, proc))
        if was:
            self.model.hosts[was.host]["mem"] += was.mem_kb - mem_kb
            self.model.procs[proc] = replace(was, mem_kb=mem_kb)

    def manage(self, wish: tuple[str, bool]) -> None:
        self.conn.execute("CALL retally.set_managed(%s, %s)", (self.ids[wish[0]], wish[1]))
        self.model.asked[wish[0]] = wish[1]
        self.model.flipped(wish[0])

    def override(self, override: str) -> None:
        before = {show: self.model.managed(show) for show in ("s0", "s1")}
        self.model.override = override
        flipped = [show for show, was in before.items() if self.model.managed(show) != was]
        answer = self.conn.execute("CALL retally.set_override(%s)", (override,)).fetchone()
        assert answer is not None
        assert answer[:2] == (len(flipped), 0)
        # a managed show books without a subscription too, and the flip says so
        assert all("its row is missing" in problem for problem in answer[2])
        for show in flipped:
            self.model.flipped(show)

    def burst(self, change: tuple[tuple[str, str], int]) -> None:
        self.model.bursts[change[0]] = change[1]
        self.conn.execute(
            "UPDATE subscription SET int_burst = %s WHERE pk_show = %s AND pk_alloc = %s",
            (change[1], *(self.ids[name] for name in change[0])),
        )

    def maxima(self, change: tuple[str, tuple[int, int]]) -> None:
        self.model.maxima[change[0]] = change[1]
        self.conn.execute(
            "UPDATE job_resource SET int_max_cores = %s, int_max_gpus = %s WHERE pk_job = %s",
            (*change[1], self.ids[change[0]]),
        )

    def compare(self) -> None:
        for host, row in self.model.hosts.items():
            assert idle(self.conn, self.ids[host]) == tuple(row[slot] for slot in SLOTS)
        for (host, job), row in self.model.shares.items():
            left = share_idle(self.conn, self.ids[host], self.ids[job])
            assert left == tuple(row[slot] for slot in SLOTS[:3])
        found = {
            (kind, *(self.names[key] for key in keys if key)): [cores, gpus]
            for kind, *keys, cores, gpus in self.conn.execute(STORED)
        }
        assert found == self.model.totals
        running = self.conn.execute("SELECT pk_proc FROM proc").fetchall()
        assert {proc for (proc,) in running} == set(self.model.procs)


@pytest.fixture
def farm(farm_db: psycopg.Connection) -> Farm:
    return Farm(farm_db)


def amounts(*usual: int) -> SearchStrategy[int]:
    return st.sampled_from([*usual, *usual, -1])


def named(names: Any) -> SearchStrategy[str]:
    return st.sampled_from([*names, *names, *names, "it's 5%"])


@st.composite
def bookings(draw: st.DrawFn) -> Booking:
    """Mostly what belongs together, now and then what does not."""
    frame = draw(st.one_of(st.none(), named(FRAMES)))
    layer = FRAMES.get(frame or "", "") or draw(named(LAYERS))
    job = LAYERS.get(layer, "j0")
    if draw(st.integers(0, 9)) == 0:
        layer, job = draw(named(LAYERS)), draw(named(JOBS))
    return Booking(
        draw(named(HOSTS)),
        job,
        layer,
        frame,
        draw(amounts(1, 100, 150, 200, 350, 800, 0)),
        draw(amounts(0, 10, 1000, 2500)),
        draw(amounts(0, 0, 0, 1, 2)),
        draw(amounts(0, 0, 0, 0, 30)),
        draw(st.sampled_from([False, False, False, True])),
    )


place = st.integers(0, 30)
show_names = st.sampled_from(["s0", "s1"])
steps = st.one_of(
    st.tuples(st.just("book"), bookings()),
    st.tuples(st.just("book_many"), st.lists(bookings(), max_size=8)),
    st.tuples(st.just("release"), place),
    st.tuples(st.just("release_many"), st.lists(place, max_size=6)),
    st.tuples(st.just("memory"), st.tuples(place, st.sampled_from([0, 500, 4000]))),
    st.tuples(st.just("manage"), st.tuples(show_names, st.booleans())),
    st.tuples(st.just("override"), st.sampled_from(["per-show", "all", "none"])),
    st.tuples(
        st.just("burst"), st.tuples(st.sampled_from(SUBSCRIPTIONS), st.sampled_from([0, 300, 9999]))
    ),
    st.tuples(
        st.just("maxima"),
        st.tuples(
            st.sampled_from([*JOBS]), st.sampled_from([(-1, 9), (300, 9), (9999, 0), (999, 3)])
        ),
    ),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=st.lists(steps, min_size=5, max_size=30))
def test_every_call_does_what_the_model_says(farm: Farm, plan: list[tuple[str, Any]]) -> None:
    farm.reset()
    for name, argument in plan:
        getattr(farm, name)(argument)
        farm.compare()
    for show in ("s0", "s1"):
        farm.manage((show, False))
    farm.override("none")
    farm.compare()
    wrong = drift(farm.conn, farm.ids["s0"], farm.ids["s1"])
    # but for what is on hosts where the show has no subscription, so no row to count in
    assert [row for row in wrong if row[3] is not None] == []
