"""DuckDB over the lake: the views through which trainer, evaluator, console and analysts read.

`connect` is cheap (about 30 ms) and gives an in-memory database of views: nothing is loaded, and
files that appear later are seen by the next query. An empty lake has the same typed columns. Files
of older and newer schemas mix; what one lacks is null. `pairs` holds only complete answers of both
arms: failures are counted on `exchanges`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from understudy.errors import LakeError
from understudy.exchange import COLUMNS
from understudy.lake import Lake

_FEEDBACK_ONLY = ("feedback_id", "score", "label", "comment", "correction")


class _Documents(NamedTuple):
    """JSON documents as a view: where they lie, and their fields with types."""

    pattern: str
    fields: dict[str, str]


_TEXT, _NUMBER, _COUNT = "VARCHAR", "DOUBLE", "BIGINT"
_DOCUMENTS = {
    "verdicts": _Documents(
        "control/verdicts/*/*.json",
        dict.fromkeys(("id", "workload", "student", "kind", "signal", "verdict"), _TEXT)
        | {"evidence": "JSON", "at": _NUMBER, "report": _TEXT},
    ),
    "rollouts": _Documents(
        "control/rollouts/*/*.json",
        dict.fromkeys(("workload", "student", "state", "action", "reason"), _TEXT)
        | dict.fromkeys(("previous_champion", "verdict_id"), _TEXT)
        | {"n": _COUNT, "step": _COUNT, "at": _NUMBER, "evidence": "JSON"},
    ),
    "audit": _Documents(
        "audit/*.json",
        {"partition": _TEXT, "at": _NUMBER, "next_offset": _COUNT, "lag_seconds": _NUMBER}
        | {
            "spools": "STRUCT(spool_id VARCHAR, offered BIGINT, stored BIGINT, attempts BIGINT, "
            "feedback BIGINT, gap BIGINT, lost BIGINT, lost_ranges BIGINT[][], "
            "open BIGINT, closed BOOLEAN)[]"
        },
    ),
}


def connect(lake: Path | Lake, files: Iterable[Path] | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the lake's views; times are UTC. LakeError for a missing folder.

    With `files` no other Parquet file is opened (see `narrow`).
    """
    root = lake.root if isinstance(lake, Lake) else lake
    if not root.is_dir():
        raise LakeError(f"no lake at {root}; set `lake:` in the config, or start the collector")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # Not from an Arrow table: DuckDB would import pandas for it, which takes a second or more.
    columns = ", ".join(f'"{column.name}" {_sql_type(column.type)}' for column in COLUMNS)
    connection.execute(f"CREATE TABLE _record ({columns})")
    everything = _quoted(root / "log/*/*.parquet")
    connection.execute(_log_view(everything if files is None else _listed(files)))
    connection.execute(_EXCHANGES + _FEEDBACK + _PAIRS)
    for name, documents in _DOCUMENTS.items():
        connection.execute(_document_view(root, name, documents))
    return connection


def narrow(connection: duckdb.DuckDBPyConnection, files: Iterable[Path]) -> None:
    """Let the views of the log see these Parquet files only: for readers of a big lake's end."""
    connection.execute(_log_view(_listed(files)))


def _log_view(source: str) -> str:
    # UNION BY NAME with the typed, empty table: a lake of old files, or of none, has every column.
    return f"""
    CREATE OR REPLACE VIEW _log AS FROM _record UNION ALL BY NAME
    FROM read_parquet({source},
      union_by_name = true, hive_partitioning = false, allow_empty = true)"""


def _document_view(root: Path, name: str, documents: _Documents) -> str:
    typed = ", ".join(f"'{field}': '{kind}'" for field, kind in documents.fields.items())
    none = ", ".join(f'NULL::{kind} AS "{field}"' for field, kind in documents.fields.items())
    return f"""
    CREATE VIEW {name} AS SELECT {", ".join(map(_selected, documents.fields))}
    FROM ((SELECT {none} WHERE false) UNION ALL BY NAME FROM read_json(
      {_quoted(root / documents.pattern)}, columns = {{{typed}}},
      format = 'unstructured', hive_partitioning = false, allow_empty = true))"""  # noqa: S608


def _selected(field: str) -> str:
    # `at` is a reserved word of DuckDB 2, so the views call it otherwise.
    unnested = "unnest(spools, recursive := true)"
    special = {"at": 'to_timestamp("at") AS created_at', "spools": unnested}
    return special.get(field, f'"{field}"')


def _listed(files: Iterable[Path]) -> str:
    return f"[{', '.join(map(_quoted, files))}]"


def _sql_type(kind: Any) -> str:
    """DuckDB's name of an Arrow type of the record."""
    if hasattr(kind, "value_type"):
        return f"{_sql_type(kind.value_type)}[]"
    if kind.num_fields:
        fields = (kind.field(at) for at in range(kind.num_fields))
        return "STRUCT(" + ", ".join(f'"{f.name}" {_sql_type(f.type)}' for f in fields) + ")"
    return _SQL_TYPES[str(kind)]


_SQL_TYPES = {
    "string": "VARCHAR",
    "binary": "BLOB",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "timestamp[ms, tz=UTC]": "TIMESTAMPTZ",
}


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


_ATTEMPT = ", ".join(c.name for c in COLUMNS if c.name not in ("kind", *_FEEDBACK_ONLY))
_EXCHANGES = f"CREATE VIEW exchanges AS SELECT {_ATTEMPT} FROM _log WHERE kind = 'attempt';"  # noqa: S608
_FEEDBACK = """
    CREATE VIEW feedback AS
    SELECT f.feedback_id, coalesce(f.exchange_id, answer.exchange_id) AS exchange_id,
      f.response_id, f.requested_at AS created_at, f.score, f.label, f.comment, f.correction
    FROM _log f LEFT JOIN (
      SELECT response_id, max(exchange_id) AS exchange_id FROM exchanges
      WHERE response_id IS NOT NULL GROUP BY response_id) answer
      ON f.exchange_id IS NULL AND f.response_id = answer.response_id
    WHERE f.kind = 'feedback';
"""
_PAIRS = """
    CREATE VIEW pairs AS SELECT
      t.exchange_id, t.workload, t.tenant, t.conversation_key, t.user_hash, t.prompt_hash,
      least(t.requested_at, s.requested_at) AS requested_at, t.endpoint, t.stream,
      t.messages, t.params_json, t.tools_json, t.response_format_json, t.train_ok,
      t.choices AS teacher_choices, s.choices AS student_choices,
      t.choices[1].content AS teacher_text, s.choices[1].content AS student_text,
      t.attempt_id AS teacher_attempt_id, s.attempt_id AS student_attempt_id,
      t.role AS teacher_role, s.role AS student_role,
      CASE WHEN s.served THEN 'student' ELSE 'teacher' END AS served_arm,
      t.model_reported AS teacher_model, s.model_reported AS student_model, s.adapter AS student,
      t.ttft_ms AS teacher_ttft_ms, s.ttft_ms AS student_ttft_ms,
      t.duration_ms AS teacher_duration_ms, s.duration_ms AS student_duration_ms,
      t.prompt_tokens AS teacher_prompt_tokens, s.prompt_tokens AS student_prompt_tokens,
      t.completion_tokens AS teacher_completion_tokens,
      s.completion_tokens AS student_completion_tokens,
      t.cost_usd AS teacher_cost_usd, s.cost_usd AS student_cost_usd,
      coalesce(s.router_score, t.router_score) AS router_score,
      coalesce(s.bucket, t.bucket) AS bucket, s.policy_version
    FROM exchanges t JOIN exchanges s ON t.exchange_id = s.exchange_id
    WHERE t.arm = 'teacher' AND s.arm = 'student'
      AND t.outcome = 'complete' AND t.status BETWEEN 200 AND 299
      AND s.outcome = 'complete' AND s.status BETWEEN 200 AND 299;
"""
