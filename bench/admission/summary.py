"""From cells to lines and bars: medians over the rounds, ratios within each round."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from retally.bench.admission.records import Call, Line, Part
from retally.bench.dispatch.records import Action
from retally.bench.dispatch.summary import ratio
from retally.bench.logs import how_many
from retally.bench.records import Bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retally.bench.admission.records import (
        CapsCell,
        Cell,
        Cells,
        RecountCell,
        Spec,
        StoreCell,
    )

_PAIRS = 300_000  # of Store.book and confirm, a second
_KEYS, _HOLD_MS = 100_000, 20.0
_HOT, _LEAST = 64, 0.90  # clients; of the throughput without admission
_LOOKS = 10
_NOT_MEASURED = "not measured"


def lines(cells: Cells) -> tuple[Line, ...]:
    """One line for each kind of cell."""
    return (
        *_store_lines(cells.store),
        *_recount_lines(cells.recounts),
        *_served_lines(cells.served),
        *map(_caps_line, cells.caps),
    )


def bars(cells: Cells) -> tuple[Bar, ...]:
    """The promises of admission, each with what these cells say of it."""
    served: list[Cell | CapsCell] = [*cells.served, *cells.caps]
    return (
        _pairs(cells.store),
        _holds(cells.recounts),
        _kept(cells.served),
        _no_over_booking(cells.caps),
        _none("deadlocks", [cell.deadlocks for cell in served]),
        _none("errors of any kind", [how_many(cell.errors) for cell in served]),
        _none("idle amounts wrong after a cell", [cell.slots_adrift for cell in served]),
    )


def costs(found: Sequence[Line]) -> tuple[str, ...]:
    """What notifications cost, in words."""
    return tuple(
        f"notify on costs: {line.what.partition(':')[0]} takes {1 / line.times:.2f} times as long"
        for line in found
        if line.part is Part.RELEASE and line.times
    )


def what(spec: Spec) -> str:
    """The kind of cell, in words."""
    many = f" {spec.batch} a call" if spec.batch > 1 else ""
    if spec.action is Action.RELEASE:
        return f"release{many}: notify {'on' if spec.notify else 'off'}"
    return f"book{many}: {'with' if spec.admission else 'without'} admission"


def _store_lines(cells: Sequence[StoreCell]) -> Iterator[Line]:
    for call in Call:
        own = [cell.per_second for cell in cells if cell.call is call]
        if own:
            yield Line(part=Part.STORE, what=call, per_second=median(own))


def _recount_lines(cells: Sequence[RecountCell]) -> Iterator[Line]:
    kinds = dict.fromkeys((cell.vertices, cell.wait_ms is not None) for cell in cells)
    for vertices, beside in kinds:
        own = [c for c in cells if (c.vertices, c.wait_ms is not None) == (vertices, beside)]
        waits = [cell.wait_ms for cell in own if cell.wait_ms is not None]
        yield Line(
            part=Part.RECOUNT,
            what=f"recount of {vertices:,} vertices{', booked beside it' if beside else ''}",
            seconds=median(cell.seconds for cell in own),
            hold_ms=max(cell.hold_ms for cell in own),
            hold_but_gc_ms=max(cell.hold_but_gc_ms for cell in own),
            gc_ms=max(cell.gc_ms for cell in own),
            wait_ms=max(waits) if waits else None,
        )


def _served_lines(cells: Sequence[Cell]) -> Iterator[Line]:
    for spec in sorted({cell.spec for cell in cells}, key=_place):
        own = [cell for cell in cells if cell.spec == spec]
        without = _without(spec)
        yield Line(
            part=Part.BOOK if spec.action is Action.BOOK else Part.RELEASE,
            what=what(spec),
            clients=spec.clients,
            per_second=median(cell.per_second for cell in own),
            times=None if spec == without else ratio(cells, spec, without),
            p50_ms=median(cell.p50_ms for cell in own),
            p99_ms=median(cell.p99_ms for cell in own),
            deadlocks=sum(cell.deadlocks for cell in own),
            errors=sum(how_many(cell.errors) for cell in own),
        )


def _caps_line(cell: CapsCell) -> Line:
    return Line(
        part=Part.CAPS,
        what=f"{cell.shows} shows at their caps",
        clients=cell.clients,
        per_second=cell.per_second,
        bookings=cell.bookings,
        refusals=cell.refusals,
        looks=cell.looks,
        over_bookings=cell.over_bookings,
        deadlocks=cell.deadlocks,
        errors=how_many(cell.errors),
    )


def _without(spec: Spec) -> Spec:
    """What the cell is held against: itself where there is nothing less."""
    booked = spec.action is Action.BOOK
    return replace(spec, admission=False) if booked else replace(spec, notify=False)


def _place(spec: Spec) -> tuple[object, ...]:
    action = [*Action].index(spec.action)
    return action, spec.batch, spec.clients, spec.admission, spec.notify


def _pairs(cells: Sequence[StoreCell]) -> Bar:
    promise = f"Store.book and confirm at least {_PAIRS:,} times a second, with GPUs and without"
    found = {line.what: line.per_second or 0.0 for line in _store_lines(cells)}
    rates = [found[call] for call in (Call.PAIR, Call.GPU_PAIR) if call in found]
    if len(rates) < 2:
        return Bar(promise, _NOT_MEASURED, None)
    return Bar(promise, f"{rates[0]:,.0f}, with GPUs {rates[1]:,.0f}", min(rates) >= _PAIRS)


def _holds(cells: Sequence[RecountCell]) -> Bar:
    promise = (
        f"a recount of {_KEYS:,} vertices holds the store's lock for less than {_HOLD_MS:g} ms"
    )
    big = [cell for cell in cells if cell.vertices >= _KEYS]
    if not big:
        return Bar(promise, _NOT_MEASURED, None)
    held, but_gc = max(c.hold_ms for c in big), max(c.hold_but_gc_ms for c in big)
    return Bar(promise, f"{held:.1f} ms; but for gc {but_gc:.1f} ms", held < _HOLD_MS)


def _kept(cells: Sequence[Cell]) -> Bar:
    promise = f"with admission at least {_LEAST:.2f} times without, at {_HOT} clients"
    hot = [c.spec for c in cells if c.spec.clients == _HOT and c.spec.action is Action.BOOK]
    times = [ratio(cells, spec, _without(spec)) for spec in dict.fromkeys(hot) if spec.admission]
    if not times or times[0] is None:
        return Bar(promise, _NOT_MEASURED, None)
    return Bar(promise, f"{times[0]:.2f}", times[0] >= _LEAST)


def _no_over_booking(cells: Sequence[CapsCell]) -> Bar:
    promise = f"no over-booking while shows are at their caps, in at least {_LOOKS} looks"
    if not cells:
        return Bar(promise, _NOT_MEASURED, None)
    over, looks = sum(c.over_bookings for c in cells), sum(c.looks for c in cells)
    bookings = sum(cell.bookings for cell in cells)
    enough = looks >= _LOOKS and bookings >= sum(cell.asked for cell in cells)
    said = f"{over:,} in {looks:,} looks and {bookings:,} bookings"
    if over or enough:
        return Bar(promise, said, over == 0)
    return Bar(promise, f"{said}: too few", None)


def _none(what_of: str, counts: Sequence[int]) -> Bar:
    if not counts:
        return Bar(f"no {what_of}", _NOT_MEASURED, None)
    return Bar(f"no {what_of}", f"{sum(counts):,} in {len(counts)} cells", sum(counts) == 0)
