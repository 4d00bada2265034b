"""The farm's five tables of totals, and the statements that are alike for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

_SLOTS = ("int_cores", "int_gpus")


@dataclass(frozen=True)
class Table:
    """A table of totals: the columns that name a row, and those that are summed.

    Beside it stand bench.truth_… with what its rows have to be, bench.stale_… with what they are
    before a cell, and the materialized view bench.view_…. ``guard``: the farm's trigger that
    refuses a rise above a cap.
    """

    name: str
    keys: tuple[str, ...]
    slots: tuple[str, ...] = _SLOTS
    guard: str | None = None

    def refresh(self, *, concurrently: bool = False) -> sql.Composed:
        """Refresh the view."""
        how = sql.SQL("CONCURRENTLY " if concurrently else "")
        view = sql.Identifier("bench", f"view_{self.name}")
        return sql.SQL("REFRESH MATERIALIZED VIEW {}{}").format(how, view)

    def stale_as_truth(self) -> sql.Composed:
        """Make bench.stale_… alike to bench.truth_…."""
        return self._with(
            "DROP TABLE IF EXISTS {stale};"
            " CREATE TABLE {stale} AS SELECT t.* FROM {truth} AS t; ANALYZE {stale}"
        )

    def every_row_off(self) -> sql.Composed:
        """Make every amount in bench.stale_… wrong: up to 50 above or below the truth, not 0."""
        wrong = sql.SQL(", ").join(
            sql.SQL(
                "{slot} = {slot} + CASE WHEN hashtext({key}) % 2 = 0 THEN 1 ELSE -1 END"
                " * (1 + abs(hashtext({key})::bigint) % 50)"
            ).format(slot=sql.Identifier(slot), key=sql.Identifier(self.keys[-1]))
            for slot in self.slots
        )
        return self._with("UPDATE {stale} SET {wrong}; ANALYZE {stale}", wrong=wrong)

    def put_back(self) -> sql.Composed:
        """Write the farm's rows that are not as bench.stale_… says, above their caps too."""
        update = (
            "UPDATE {farm} AS t SET {copied} FROM {stale} AS w"
            " WHERE {same_row} AND ROW({own}) <> ROW({others})"
        )
        if self.guard is None:
            return self._with(update)
        return self._with(
            f"ALTER TABLE {{farm}} DISABLE TRIGGER {{guard}}; {update};"
            " ALTER TABLE {farm} ENABLE TRIGGER {guard}",
            guard=sql.Identifier(self.guard),
        )

    def wrong(self) -> sql.Composed:
        """Count the farm's rows that are not as bench.truth_… says."""
        return self._with(
            "SELECT count(*) FROM {farm} AS t INNER JOIN {truth} AS w ON {same_row}"
            " WHERE ROW({own}) <> ROW({others})"
        )

    def wrong_in_view(self) -> sql.Composed:
        """Count the view's rows that are wrong, superfluous or missing; no row stands for zeros."""
        own, others = (
            sql.SQL(", ").join(
                sql.SQL("coalesce({}, 0)").format(sql.Identifier(side, slot)) for slot in self.slots
            )
            for side in ("t", "w")
        )
        return self._with(
            "SELECT count(*) FROM {view} AS t FULL JOIN {truth} AS w ON {same_row}"
            " WHERE ROW({zeroed}) <> ROW({true})",
            zeroed=own,
            true=others,
        )

    def _with(self, text: str, **more: sql.Composable) -> sql.Composed:
        def each(pattern: str, names: tuple[str, ...], between: str) -> sql.Composed:
            parts = [sql.SQL(pattern).format(sql.Identifier(name)) for name in names]
            return sql.SQL(between).join(parts)

        return sql.SQL(text).format(
            farm=sql.Identifier("public", self.name),
            truth=sql.Identifier("bench", f"truth_{self.name}"),
            stale=sql.Identifier("bench", f"stale_{self.name}"),
            view=sql.Identifier("bench", f"view_{self.name}"),
            same_row=each("t.{0} = w.{0}", self.keys, " AND "),
            copied=each("{0} = w.{0}", self.slots, ", "),
            own=each("t.{}", self.slots, ", "),
            others=each("w.{}", self.slots, ", "),
            **more,
        )


TABLES = (
    Table("subscription", ("pk_show", "pk_alloc"), guard="verify_subscription"),
    Table("layer_resource", ("pk_layer",)),
    Table(
        "job_resource",
        ("pk_job",),
        (*_SLOTS, "int_local_cores", "int_local_gpus"),
        guard="verify_job_resources",
    ),
    Table("folder_resource", ("pk_folder",)),
    Table("point", ("pk_show", "pk_dept")),
)
