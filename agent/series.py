"""Reading measurements back, down-sampled in SQL: a chart of a million steps costs what one of a thousand does."""

from typing import Any

from torchvitals.agent.schema import AXIS_TABLES
from torchvitals.agent.store import Store
from torchvitals.signals.catalog import BY_NAME

DEFAULT_POINTS = 600
MAX_POINTS = 5000

_SERIES = """
WITH parts AS (
  SELECT rank, optimizer, signal, step, max(time) AS time, arg_max(value, time) AS value FROM scalars
  WHERE run = $run AND signal IN (SELECT unnest($signals) || '_shard') GROUP BY ALL),
wholes AS (
  SELECT min(rank) AS rank, optimizer, regexp_replace(signal, '_shard$', '') AS signal, step, max(time) AS time,
    sqrt(sum(value * value)) AS value
  FROM parts GROUP BY optimizer, signal, step
  HAVING count(*) = (SELECT max(world_size) FROM runs WHERE run = $run)),
chosen AS (
  SELECT rank, optimizer, signal, step, time, value FROM (
    SELECT rank, optimizer, signal, step, time, value FROM scalars
    WHERE run = $run AND signal IN (SELECT unnest($signals))
    UNION ALL SELECT rank, optimizer, signal, step, time, value FROM wholes)
  WHERE ($rank IS NULL OR rank = $rank)
    AND step >= coalesce($first, step) AND step <= coalesce($last, step)),
bounds AS (SELECT min(step) AS low, max(step) - min(step) + 1 AS width FROM chosen)
SELECT signal, rank, optimizer, (step - low) * least($points, width) // width AS bucket,
  max(step) AS step, max(time) AS time,
  min(value) FILTER (WHERE isfinite(value)) AS min, max(value) FILTER (WHERE isfinite(value)) AS max,
  arg_max(value, step) AS last, count(*) FILTER (WHERE NOT isfinite(value)) AS nonfinite
FROM chosen, bounds GROUP BY signal, rank, optimizer, bucket ORDER BY signal, rank, optimizer, bucket
"""
# Norms of shards are put together where every rank sent its part (agent/shards.py), and stand with the first rank.
# NaN > 5 is true in DuckDB, hence the filters. Buckets share one step range, so ranks line up.

_PROFILE = """
WITH chosen AS (
  SELECT optimizer, axis, step, entry, value FROM {table} WHERE run = $run AND signal = $signal AND rank = $rank),
steps AS (SELECT DISTINCT step FROM chosen),
numbered AS (SELECT step, row_number() OVER (ORDER BY step DESC) - 1 AS n, count(*) OVER () AS total FROM steps),
kept AS (SELECT step FROM numbered WHERE n % greatest(1, (total + $points - 1) // $points) = 0)
SELECT axis, step, entry, value FROM chosen WHERE step IN (SELECT step FROM kept)
ORDER BY step, optimizer, axis, entry
"""
# Thinned from the newest backwards, so that the latest profile is always there; values are never averaged.


def series(
    store: Store,
    run: str,
    signals: list[str],
    rank: int | None = None,
    *,
    points: int = DEFAULT_POINTS,
    start: int | None = None,
    end: int | None = None,
) -> list[dict[str, Any]]:
    """Down-sampled scalars, one item per signal, rank and optimizer.

    ``min`` and ``max`` are over the finite values of a bucket (``None`` where there is none), ``last`` is the
    newest value whatever it is, ``nonfinite`` counts the others.
    """
    parameters = {"run": run, "signals": signals, "rank": rank, "first": start, "last": end, "points": points}
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for row in store.named_query(_SERIES, parameters):
        key = (row["signal"], row["rank"], row["optimizer"])
        item = found.setdefault(key, _empty(*key))
        for column in ("step", "time", "min", "max", "last", "nonfinite"):
            item[column].append(row[column])
    return list(found.values())


def _empty(signal: str, rank: int, optimizer: int) -> dict[str, Any]:
    lists: dict[str, Any] = {name: [] for name in ("step", "time", "min", "max", "last", "nonfinite")}
    return {"signal": signal, "rank": rank, "optimizer": optimizer, **lists}


def profiles(store: Store, run: str, signal: str, rank: int = 0, *, points: int = 200) -> dict[str, Any]:
    """The sampled steps of one signal along its axis, at most ``points`` of them, one row of values a step.

    Several models or optimizers lie side by side; an entry absent at a step is ``None``.
    """
    sql = _PROFILE.format(table=_table_of(store, run, signal))
    rows = store.named_query(sql, {"run": run, "signal": signal, "rank": rank, "points": points})
    axes = sorted({row["axis"] for row in rows})
    names = _entry_names(store, run, rank, axes)
    last = {axis: max(row["entry"] for row in rows if row["axis"] == axis) for axis in axes}
    columns = {key: n for n, key in enumerate((axis, e) for axis in axes for e in range(last[axis] + 1))}
    by_step: dict[int, list[float | None]] = {}
    for row in rows:
        by_step.setdefault(row["step"], [None] * len(columns))[columns[row["axis"], row["entry"]]] = row["value"]
    entries = [names.get(key, f"{key[0]}[{key[1]}]") for key in columns]
    return {"signal": signal, "rank": rank, "entries": entries, "step": list(by_step), "values": list(by_step.values())}


def _table_of(store: Store, run: str, signal: str) -> str:
    known = BY_NAME.get(signal)
    if known is not None and f"{known.axis}_values" in AXIS_TABLES:
        return f"{known.axis}_values"
    return next((table for table in AXIS_TABLES if signal in _signals_in(store, run, table)), "other_values")


def _entry_names(store: Store, run: str, rank: int, axes: list[str]) -> dict[tuple[str, int], str]:
    sql = "SELECT axis, entry, name FROM axis_entries WHERE run = ? AND rank = ? AND axis IN (SELECT unnest(?))"
    return {(row["axis"], row["entry"]): row["name"] for row in store.query(sql, [run, rank, axes])}


def _signals_in(store: Store, run: str, table: str) -> list[str]:
    sql = f"SELECT DISTINCT signal FROM {table} WHERE run = ? ORDER BY signal"  # noqa: S608  our own names
    return [row["signal"] for row in store.query(sql, [run])]


def signal_list(store: Store, run: str) -> list[dict[str, Any]]:
    """The scalar signals a run has sent, with the catalogue's unit and meaning and the ranks that sent them."""
    sql = "SELECT signal, list_sort(list(DISTINCT rank)) AS ranks FROM scalars WHERE run = ? GROUP BY signal ORDER BY 1"
    return [
        {
            "name": row["signal"],
            "unit": known.unit if (known := BY_NAME.get(row["signal"])) else "1",
            "tells": known.tells if known else "Logged by the job.",
            "ranks": row["ranks"],
        }
        for row in store.query(sql, [run])
    ]


def profile_names(store: Store, run: str) -> list[str]:
    """The signals a run has sent along an axis."""
    return sorted({signal for table in AXIS_TABLES for signal in _signals_in(store, run, table)})
