"""The store's tables. Columns, not blobs: one narrow table per kind of axis, so that SQL can aggregate them.

No primary keys and no indexes: DuckDB's zone maps serve rows that arrive in order, and the same statements
must run on DuckLake, which has neither. Upserts are ``MERGE``. Times are seconds since the epoch.
"""

STORE_VERSION = 1

AXIS_KINDS = ("parameter", "module", "feature", "class")
"""Kinds that have a table of their own, named ``<kind>_values``; foreign kinds go to ``other_values``."""
AXIS_TABLES = tuple(f"{kind}_values" for kind in (*AXIS_KINDS, "other"))
ROW_TABLES = ("scalars", *AXIS_TABLES, "axis_entries", "events", "processes")
"""Everything that retention deletes by run, apart from the run and its incidents."""

_AXIS_TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
  run VARCHAR, rank INTEGER, optimizer INTEGER, signal VARCHAR, step BIGINT, time DOUBLE,
  axis VARCHAR, entry INTEGER, value FLOAT)
"""

TABLES: tuple[str, ...] = (
    "CREATE TABLE IF NOT EXISTS meta (key VARCHAR, value VARCHAR)",
    """
    CREATE TABLE IF NOT EXISTS runs (
      run VARCHAR, name VARCHAR, state VARCHAR, role VARCHAR, host VARCHAR, command VARCHAR,
      world_size INTEGER, ranks INTEGER, steps BIGINT, started DOUBLE, last_seen DOUBLE, ended DOUBLE,
      loss DOUBLE, steps_per_second DOUBLE, first_read DOUBLE, facts VARCHAR, checked VARCHAR, not_checked VARCHAR)
    """,
    """
    CREATE TABLE IF NOT EXISTS processes (
      run VARCHAR, process VARCHAR, rank INTEGER, pid BIGINT, host VARCHAR, segment BIGINT, position BIGINT,
      last_step BIGINT, last_seen DOUBLE, state VARCHAR, dropped BIGINT, corrupt BIGINT)
    """,
    """
    CREATE TABLE IF NOT EXISTS scalars (
      run VARCHAR, rank INTEGER, optimizer INTEGER, signal VARCHAR, step BIGINT, time DOUBLE, value DOUBLE)
    """,
    *(_AXIS_TABLE.format(table=table) for table in AXIS_TABLES),
    """
    CREATE TABLE IF NOT EXISTS axis_entries (
      run VARCHAR, rank INTEGER, axis VARCHAR, kind VARCHAR, entry INTEGER, name VARCHAR)
    """,
    """
    CREATE TABLE IF NOT EXISTS events (
      run VARCHAR, rank INTEGER, time DOUBLE, step BIGINT, kind VARCHAR, details VARCHAR)
    """,
    """
    CREATE TABLE IF NOT EXISTS incidents (
      id VARCHAR, run VARCHAR, kind VARCHAR, severity VARCHAR, first_step BIGINT, detected_step BIGINT, rank INTEGER,
      place VARCHAR, cause VARCHAR, confidence DOUBLE, title VARCHAR, body VARCHAR,
      status VARCHAR, opened_at DOUBLE, updated_at DOUBLE, resolved_at DOUBLE, acknowledged_by VARCHAR,
      silenced_until DOUBLE)
    """,
    """
    CREATE TABLE IF NOT EXISTS deliveries (
      sink VARCHAR, incident VARCHAR, state VARCHAR, content VARCHAR, last_sent DOUBLE)
    """,
    """
    CREATE TABLE IF NOT EXISTS external_alerts (
      fingerprint VARCHAR, status VARCHAR, labels VARCHAR, annotations VARCHAR, starts_at VARCHAR, ends_at VARCHAR,
      generator VARCHAR, received_at DOUBLE)
    """,
)

COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": (
        *("run", "name", "state", "role", "host", "command", "world_size", "ranks", "steps", "started", "last_seen"),
        *("ended", "loss", "steps_per_second", "first_read", "facts", "checked", "not_checked"),
    ),
    "processes": (
        *("run", "process", "rank", "pid", "host", "segment", "position"),
        *("last_step", "last_seen", "state", "dropped", "corrupt"),
    ),
    "deliveries": ("sink", "incident", "state", "content", "last_sent"),
    "external_alerts": (
        *("fingerprint", "status", "labels", "annotations", "starts_at", "ends_at", "generator", "received_at"),
    ),
}


def merge(table: str, keys: tuple[str, ...]) -> str:
    """The statement that puts one row into ``table``: an update where ``keys`` match, else an insert.

    >>> print(merge("deliveries", ("sink", "incident")).split(" WHEN ")[1])
    MATCHED THEN UPDATE SET state=new.state, content=new.content, last_sent=new.last_sent
    """
    columns = COLUMNS[table]
    match = " AND ".join(f"old.{key}=new.{key}" for key in keys)
    update = ", ".join(f"{column}=new.{column}" for column in columns if column not in keys)
    return (  # our own names, never a user's text
        f"MERGE INTO {table} AS old USING (SELECT {', '.join(f'? AS {column}' for column in columns)}) AS new "  # noqa: S608
        f"ON ({match}) WHEN MATCHED THEN UPDATE SET {update} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(columns)}) VALUES ({', '.join(f'new.{c}' for c in columns)})"
    )


MERGE_RUN = merge("runs", ("run",))
MERGE_PROCESS = merge("processes", ("run", "process"))
MERGE_DELIVERY = merge("deliveries", ("sink", "incident"))
MERGE_EXTERNAL = merge("external_alerts", ("fingerprint",))

MERGE_INCIDENT = """
MERGE INTO incidents AS old USING (SELECT ? AS id, ? AS run, ? AS kind, ? AS severity, ? AS first_step,
  ? AS detected_step, ? AS rank, ? AS place, ? AS cause, ? AS confidence, ? AS title, ? AS body, ? AS now) AS new
ON (old.id = new.id)
WHEN MATCHED AND old.body <> new.body THEN UPDATE SET severity=new.severity, first_step=new.first_step,
  detected_step=new.detected_step, rank=new.rank, place=new.place, cause=new.cause, confidence=new.confidence,
  title=new.title, body=new.body, updated_at=new.now
WHEN NOT MATCHED THEN INSERT (id, run, kind, severity, first_step, detected_step, rank, place, cause, confidence,
  title, body, status, opened_at, updated_at) VALUES (new.id, new.run, new.kind, new.severity, new.first_step,
  new.detected_step, new.rank, new.place, new.cause, new.confidence, new.title, new.body, 'open', new.now, new.now)
"""
"""An incident that grew keeps its life-cycle: status, who acknowledged it, until when it is silenced."""

WITHDRAW = """
UPDATE incidents SET status = 'absorbed', resolved_at = coalesce(resolved_at, ?)
WHERE status <> 'absorbed' AND id IN (SELECT unnest(?))
"""
"""Not deleted: whoever was alerted must be told that it is over."""
