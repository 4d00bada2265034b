"""From cells to lines and bars: medians over the rounds, ratios within each round."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from retally.bench.dispatch.records import Action, Line, Mode, Spec
from retally.bench.logs import how_many
from retally.bench.records import Bar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from retally.bench.dispatch.records import Cell
    from retally.bench.records import Rated

_HOT = 64  # clients of the bars that compare modes
_FEWEST, _MOST = 16, 256  # between them throughput may not fall
_BATCH = 100
_JOURNAL = 1.25  # the price of the journal on a booking


def lines(cells: Sequence[Cell]) -> tuple[Line, ...]:
    """One line for each kind of cell, by action, clients and mode."""
    return tuple(_line(cells, spec) for spec in sorted({cell.spec for cell in cells}, key=_place))


def bars(cells: Sequence[Cell]) -> tuple[Bar, ...]:
    """The promises of the dispatch path, each with what these cells say of it."""
    on = [cell for cell in cells if cell.spec.mode is Mode.FLAG_ON]
    beside = [cell for cell in cells if cell.spec.recompute]
    clients = sorted({cell.spec.clients for cell in cells if cell.spec == _single(cell.spec)})
    return (
        _times(cells, Mode.FLAG_OFF, [_HOT], 5, "one call of book_proc each"),
        _times(cells, Mode.INLINE, [_HOT], 8, "one round trip a statement"),
        _steady(cells),
        _times(cells, Mode.BARE, clients, 1.2, "at every number of clients"),
        _batches(cells),
        _journaled(cells),
        _count("deadlocks, flag on", on, lambda cell: cell.deadlocks),
        _count("deadlocks, flag off beside a recompute", beside, lambda cell: cell.deadlocks),
        _count("errors of any kind", cells, lambda cell: how_many(cell.errors)),
        _count(
            "totals and idle amounts that are wrong after a cell",
            cells,
            lambda cell: (cell.rows_adrift or 0) + cell.slots_adrift,
        ),
    )


def ratio(cells: Sequence[Rated], above: Hashable, below: Hashable) -> float | None:
    """How many times the throughput of ``below`` that of ``above`` is.

    The median of the ratios within each round; None where one of them was not measured.
    """
    rates = {(cell.spec, cell.round): cell.per_second for cell in cells}
    ratios = [
        rates[above, number] / rates[below, number]
        for number in {cell.round for cell in cells}
        if (above, number) in rates and rates.get((below, number))
    ]
    return median(ratios) if ratios else None


def _line(cells: Sequence[Cell], spec: Spec) -> Line:
    own = [cell for cell in cells if cell.spec == spec]
    plain = Spec(mode=Mode.FLAG_ON, clients=spec.clients, action=spec.action, batch=spec.batch)
    return Line(
        spec=spec,
        per_second=median(cell.per_second for cell in own),
        p50_ms=median(cell.p50_ms for cell in own),
        p99_ms=median(cell.p99_ms for cell in own),
        deadlocks=sum(cell.deadlocks for cell in own),
        errors=sum(how_many(cell.errors) for cell in own),
        flag_on_times=None if spec == plain else ratio(cells, plain, spec),
    )


def _place(spec: Spec) -> tuple[object, ...]:
    return (
        [*Action].index(spec.action),
        spec.batch,
        spec.recompute,
        not spec.prepared,
        spec.own_hosts,
        spec.clients,
        [*Mode].index(spec.mode),
        spec.notify,
        spec.journaled,
    )


def _single(spec: Spec) -> Spec:
    return Spec(mode=spec.mode, clients=spec.clients)


def _times(
    cells: Sequence[Cell], mode: Mode, clients: Sequence[int], least: float, how: str
) -> Bar:
    """Flag on has at least so many times the throughput of this mode, with so many clients."""
    found = [
        ratio(cells, Spec(mode=Mode.FLAG_ON, clients=n), Spec(mode=mode, clients=n))
        for n in clients
    ]
    known = [times for times in found if times is not None]
    where = f" at {clients[0]} clients" if list(clients) == [_HOT] else ""
    promise = f"flag on at least {least:g} times {mode}{where} ({how})"
    if not known:
        return Bar(promise, "not measured", None)
    return Bar(promise, ", ".join(f"{times:.2f}" for times in known), min(known) >= least)


def _steady(cells: Sequence[Cell]) -> Bar:
    promise = f"flag on: no fall by more than 20 % from {_FEWEST} to {_MOST} clients"
    first = Spec(mode=Mode.FLAG_ON, clients=_FEWEST)
    others = {
        cell.spec
        for cell in cells
        if cell.spec == Spec(mode=Mode.FLAG_ON, clients=cell.spec.clients)
        and _FEWEST < cell.spec.clients <= _MOST
    }
    kept = [times for spec in others if (times := ratio(cells, spec, first)) is not None]
    if not kept or _MOST not in {spec.clients for spec in others}:
        return Bar(promise, "not measured", None)
    return Bar(promise, f"lowest is {100 * min(kept):.0f} % of {_FEWEST} clients", min(kept) >= 0.8)


def _batches(cells: Sequence[Cell]) -> Bar:
    promise = f"batches of {_BATCH}, 8 clients: at least 12,000 procs a second"
    rates = [
        cell.per_second
        for cell in cells
        if cell.spec == Spec(mode=Mode.FLAG_ON, clients=8, batch=_BATCH)
    ]
    if not rates:
        return Bar(promise, "not measured", None)
    return Bar(promise, f"{median(rates):,.0f}", median(rates) >= 12_000)


def _journaled(cells: Sequence[Cell]) -> Bar:
    promise = (
        f"flag on, journaled at most {_JOURNAL:g} times the cost of flag on"
        " (at every number of clients)"
    )
    found = {
        spec.clients: times
        for spec in sorted({cell.spec for cell in cells}, key=_place)
        if spec == Spec(mode=Mode.FLAG_ON, clients=spec.clients, journaled=True)
        and (times := ratio(cells, Spec(mode=Mode.FLAG_ON, clients=spec.clients), spec))
    }
    if not found:
        return Bar(promise, "not measured", None)
    said = ", ".join(f"{times:.2f} at {clients} clients" for clients, times in found.items())
    return Bar(promise, said, max(found.values()) <= _JOURNAL)


def _count(what: str, cells: Sequence[Cell], count: Callable[[Cell], int]) -> Bar:
    if not cells:
        return Bar(f"no {what}", "not measured", None)
    found = sum(map(count, cells))
    return Bar(f"no {what}", f"{found:,} in {len(cells)} cells", found == 0)
