"""A realistic lake for the console's tests: an hour of three workloads, made from a seed.

`triage` is at step 3 of a rollout (canary 5 %), `routing` in shadow, `chat` has no student yet.
"""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from understudy import documents, triage
from understudy.exchange import SCHEMA
from understudy.lake import Lake
from understudy.policy import Policy, PolicyStore, Student, WorkloadPolicy

HOUR = 3600
CONFIG = """
teacher: {base_url: "http://127.0.0.1:1/v1"}
lake: %s
workloads:
  triage:
    match: {metadata: {task: triage}}
    student: {base_url: "http://127.0.0.1:2/v1", model: candidate}
    mode: shadow
    rollout:
      steps:
        - {shadow: 0.5, min_pairs: 300}
        - {setWeight: 1, min_pairs: 300}
        - {setWeight: 5, min_pairs: 800}
        - {setWeight: 25, min_pairs: 800}
        - {student: true}
  routing:
    match: {metadata: {task: routing}}
    student: {base_url: "http://127.0.0.1:2/v1", model: candidate}
    mode: shadow
  chat: {match: {model: gpt-5}}
"""
_STUDENT = Student(base_url="http://127.0.0.1:2/v1", model="triage-0004")
_STEPS = [
    ("shadow", 0.0, 3500, "gate passed: 0.981 against 0.984 on 1,204 tests"),
    ("canary", 1.0, 2600, "monitor PASS on 412 pairs"),
    ("canary", 5.0, 1300, "monitor PASS on 655 pairs, no guardrail exceeded"),
]


def seed(root: Path, now: float, exchanges: int = 2000) -> Lake:
    """Fill `root` with a lake as of `now`; the config lies beside it as understudy.yaml."""
    lake = Lake(root)
    root.mkdir(parents=True, exist_ok=True)
    (root.parent / "understudy.yaml").write_text(CONFIG % root)
    rng = random.Random(7)
    _log(lake, rng, now, exchanges)
    _control(lake, rng, now)
    return lake


def write_rows(lake: Lake, name: str, rows: list[dict[str, Any]]) -> None:
    """A Parquet file of the log; `name` is `<partition>/<offset>`."""
    partition, offset = name.split("/")
    path = lake.path(f"log/part={partition}/{int(offset):020d}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp-1")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)
    temporary.rename(path)


def row(exchange_id: str, at: float, arm: str, **columns: Any) -> dict[str, Any]:
    """An attempt that completed; `question` and `answer` are its texts."""
    question, answer = columns.pop("question", "Hello?"), columns.pop("answer", "Hello.")
    complete = columns.get("outcome", "complete") == "complete"
    return {
        "kind": "attempt", "exchange_id": exchange_id, "attempt_id": f"{exchange_id}-{arm}",
        "arm": arm, "role": "served", "served": True, "workload": "triage",
        "requested_at": round(at * 1000), "endpoint": "chat.completions", "method": "POST",
        "path": "/v1/chat/completions", "stream": False, "status": 200, "outcome": "complete",
        "model_requested": "gpt-5", "policy_version": 6, "train_ok": True, "schema_version": 1,
        "messages": [
            {"role": "system", "content": triage.SYSTEM_PROMPT},
            {"role": "user", "content": question},
        ],
        "choices": [{"index": 0, "role": "assistant", "content": answer, "finish_reason": "stop"}]
        if complete else [],
        "params_json": '{"temperature":0,"max_tokens":96}',
        **columns,
    }  # fmt: skip


def uuid7(rng: random.Random, at: float) -> str:
    """A UUIDv7 of a given time."""
    value = (round(at * 1000) << 80) | rng.getrandbits(76) | (0x7 << 76)
    value = value & ~(0xF << 76) | (0x7 << 76)
    text = f"{value & ~(0x3 << 62) | (0x2 << 62):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _log(lake: Lake, rng: random.Random, now: float, exchanges: int) -> None:
    moments = sorted(now - HOUR * rng.random() ** 1.15 for _ in range(exchanges))
    rows: list[dict[str, Any]] = []
    for at in moments:
        workload = rng.choices(("triage", "routing", "chat", None), (70, 20, 9, 1))[0]
        rows += _exchange(rng, workload, at, now)
    half = len(rows) // 2
    write_rows(lake, "spool-0198b7c0-4f1e/0", rows[:half])
    write_rows(lake, f"spool-0198b7c0-4f1e/{half}", rows[half:])


def _exchange(
    rng: random.Random, workload: str | None, at: float, now: float
) -> list[dict[str, Any]]:
    written, id_ = triage.ticket(rng), uuid7(rng, at)
    weight = next((w for _, w, ago, _ in reversed(_STEPS) if at >= now - ago), 0.0)
    to_student = workload == "triage" and rng.random() < weight / 100
    sampled = workload in ("triage", "routing") and rng.random() < 0.35
    shared = {"workload": workload, "question": written.text, "stream": rng.random() < 0.33}
    rows = []
    if not to_student or sampled:
        rows.append(_teacher(rng, id_, at, written, served=not to_student, **shared))
    if to_student or sampled:
        rows.append(_student(rng, id_, at, written, served=to_student, **shared))
    return rows


def _teacher(
    rng: random.Random, id_: str, at: float, written: triage.Ticket, **columns: Any
) -> dict[str, Any]:
    failed = rng.random() < 0.004
    duration = rng.lognormvariate(6.75, 0.35)
    outcome = {"outcome": "error", "status": 529, "error_type": "http_529"} if failed else {}
    return row(
        id_, at, "teacher", answer=written.answer, duration_ms=duration, ttft_ms=duration * 0.4,
        cost_usd=None if failed else rng.gauss(0.0021, 0.0002), prompt_tokens=118,
        completion_tokens=31, model_sent="gpt-5", model_reported="gpt-5-2026-08-01",
        provider="api.openai.com", overhead_us=rng.gauss(62, 9), route_reason="policy",
        role="served" if columns["served"] else "holdout", **outcome, **columns,
    )  # fmt: skip


def _student(
    rng: random.Random, id_: str, at: float, written: triage.Ticket, **columns: Any
) -> dict[str, Any]:
    answer = json.loads(written.answer)
    if rng.random() < 0.035:
        answer["priority"] = rng.choice(("low", "normal", "high", "urgent"))
        answer["intent"] = rng.choice(tuple(triage.INTENTS))
    duration = rng.lognormvariate(4.9, 0.3)
    name = "triage-0004" if columns["workload"] == "triage" else "routing-0001"
    return row(
        id_, at + 0.001, "student", answer=json.dumps(answer, separators=(",", ":")),
        duration_ms=duration, ttft_ms=duration * 0.3, cost_usd=rng.gauss(0.00009, 0.00001),
        prompt_tokens=118, completion_tokens=31, model_sent=name, model_reported=name, adapter=name,
        provider="127.0.0.1:2", bucket=rng.random() * 100, route_reason="sample",
        role="served" if columns["served"] else "shadow", **columns,
    )  # fmt: skip


def _control(lake: Lake, rng: random.Random, now: float) -> None:
    documents.write_aliases(
        lake, "triage", documents.Aliases(candidate="triage-0004", previous="triage-0002")
    )
    documents.write_aliases(lake, "routing", documents.Aliases(candidate="routing-0001"))
    _policies(lake, now)
    _judgements(lake, now)
    steps = ((3500, 2600, 0.976), (2600, 1300, 0.973), (1300, 0, 0.971))
    walked = [point for step in steps for point in series(rng, now, *step, "triage-0004")]
    put_series(lake, "triage", walked)
    put_series(lake, "routing", series(rng, now, 900, 0, 0.934, "routing-0001"))
    for name, age in (("monitor", 1.2), ("controller", 0.4)):
        beat = documents.Heartbeat(name=name, at=now - age)
        lake.put(f"control/heartbeats/{name}.json", msgspec.json.encode(beat))
    for name, offered in (("spool-0198b7c0-4f1e", 4310), ("spool-0198b7c1-99ab", 812)):
        counts = {
            "spool_id": name[6:],
            "offered": offered,
            "stored": offered - 6,
            "attempts": offered // 2 - 3,
            "feedback": 12,
            "gap": 0,
            "lost": 0,
            "open": 3,
        }
        document = {
            "partition": name,
            "at": now - 2,
            "next_offset": offered,
            "lag_seconds": 2.1,
            "spools": [counts],
        }
        lake.put_json(f"audit/{name}.json", document)
    lake.put(
        "reports/triage/triage-0004-20261120T0954/report.html",
        b"<!doctype html><title>Report</title><script>document.title='ran'</script><h1>R</h1>",
    )
    lake.put_json("reports/triage/triage-0004-20261120T0954/report.json", {"verdict": "PASS"})


def series(
    rng: random.Random, now: float, begin: float, end: float, final: float, student: str
) -> list[dict[str, Any]]:
    """A step's estimates, one every 15 s, whose interval shrinks; the last one is `final`."""
    points, n = [], 8
    steps = int((begin - end) // 15)
    for index in range(steps):
        n += rng.randrange(1, 12)
        wide = 0.46 / n**0.5
        value = min(0.995, final + rng.gauss(0, 0.3 * wide) * (1 - (index + 1) / steps))
        points.append({
            "at": now - begin + index * 15, "n": n, "agreement": value, "low": value - wide,
            "high": min(1.0, value + wide * 0.7), "recent": value, "student": student,
        })  # fmt: skip
    return points


def put_series(lake: Lake, workload: str, points: list[dict[str, Any]]) -> None:
    """Write the monitor's series as the monitor does."""
    lake.put_json(f"control/monitor/{workload}.json", points)


def put_policy(lake: Lake, version: int, at: float, reason: str, **triage_policy: Any) -> None:
    """Put a version in force whose workload triage is as given."""
    shadow = WorkloadPolicy(mode="shadow", student=_STUDENT, shadow_sample=0.2)
    workloads = {
        "triage": WorkloadPolicy(student=_STUDENT, holdout=0.02, **triage_policy),
        "routing": msgspec.structs.replace(
            shadow, student=msgspec.structs.replace(_STUDENT, model="routing-0001")
        ),
        "chat": WorkloadPolicy(match_model="gpt-5"),
    }
    author = "file" if version == 1 else "controller"
    document = Policy(version=version, workloads=workloads, at=at, author=author, reason=reason)
    lake.put(f"control/policy/{version:010d}.json", msgspec.json.encode(document))
    assert (PolicyStore(lake).latest() or document).version >= version


def _policies(lake: Lake, now: float) -> None:
    put_policy(lake, 1, now - 7200, "understudy.yaml changed", mode="teacher")
    for version, (mode, weight, ago, reason) in enumerate(_STEPS, 2):
        put_policy(
            lake, version, now - ago, f"triage: {reason}", mode=mode, weight=weight,
            owner="controller", shadow_sample=0.35, note=f"rollout step {version - 1}/5: {reason}",
        )  # fmt: skip


def _judgements(lake: Lake, now: float) -> None:
    gate = {"n": 1204, "agreement": 0.981, "low": 0.972, "high": 0.988, "margin": 0.05,
            "alpha": 0.05, "p_pass": 0.0004, "scorer": "json", "loses_to": []}  # fmt: skip
    verdict(lake, now - 3600, "gate", "PASS", "agreement", gate)
    verdict(lake, now - 2600, "monitor", "PASS", "agreement", _evidence(412, 412, 0.976))
    verdict(lake, now - 1300, "monitor", "PASS", "agreement", _evidence(655, 1067, 0.973))
    calls = {"n": 71, "rate": 0.0, "low": 0.0, "high": 0.051, "limit": 0.01, "pairs": 71}
    verdict(lake, now - 600, "guardrail", "UNDERPOWERED", "error_rate", calls)
    verdict(lake, now - 30, "monitor", "UNDERPOWERED", "agreement", _evidence(488, 1555, 0.971))
    for step, (mode, weight, ago, reason) in enumerate(_STEPS):
        event = documents.RolloutEvent(
            workload="triage", n=step + 1, student="triage-0004", state="running", step=step,
            action="promote" if step else "start", reason=reason, at=now - ago,
            evidence={"mode": mode, "weight": weight},
        )  # fmt: skip
        assert documents.add_rollout_event(lake, event)


def _evidence(n: int, pairs: int, agreement: float) -> dict[str, Any]:
    """As the monitor writes it: `n` of this step, `pairs` over all steps."""
    return {
        "n": n, "pairs": pairs, "agreement": agreement, "low": agreement - 0.021,
        "high": agreement + 0.014, "margin": 0.05, "limit": 0.05, "alpha": 0.05, "e_pass": 6.3,
    }  # fmt: skip


def verdict(
    lake: Lake, at: float, kind: Any, word: Any, signal: str, evidence: dict[str, Any]
) -> None:
    """A verdict on triage-0004; its id says when, as the writers' ids do."""
    documents.write_verdict(
        lake,
        documents.Verdict(
            workload="triage", student="triage-0004", kind=kind, signal=signal, verdict=word,
            evidence=evidence, at=at, id=uuid7(random.Random(at), at),
        ),
    )  # fmt: skip
