"""Make a dataset of the log: rules, dedup, split, contamination check, manifest, in that order.

Every selected row ends in one of the three files or in one counted drop:
`selected == train + validation + test + sum(dropped)`. The folder's name is a hash of the recipe
and the ordered rows, so the same log gives the same dataset and a rebuild changes nothing.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from trainer.dataset.rows import Candidate
from trainer.dataset.rules import broken_rule, is_json
from trainer.dataset.select import Window
from trainer.dataset.split import SIDES, Shares, Side, side_of
from understudy.errors import DatasetError
from understudy.lake import Lake

# A workload whose answers are JSON in so many cases has a broken answer in the others.
_JSON_WORKLOAD = 0.9


@dataclass
class Selection:
    """The rows by side, and how many were dropped for which reason."""

    sides: dict[Side, list[Candidate]] = field(default_factory=lambda: {side: [] for side in SIDES})
    dropped: Counter[str] = field(default_factory=Counter)
    selected: int = 0


@dataclass(frozen=True)
class Built:
    """Where the dataset lies, and its manifest."""

    folder: Path
    manifest: dict[str, Any]


def curate(candidates: Iterable[Candidate], workload: str, shares: Shares) -> Selection:
    """Pure: from candidates to sides. Nothing is dropped without being counted."""
    result = Selection()
    shares.checked()
    kept: list[Candidate] = []
    for row in candidates:
        result.selected += 1
        if reason := broken_rule(row):
            result.dropped[reason] += 1
        else:
            kept.append(row)
    kept = _without_broken_json(kept, result.dropped)
    for row in _deduplicated(kept, result.dropped):
        result.sides[side_of(workload, row.group, shares)].append(row)
    _drop_contaminated(result)
    return result


def build(
    lake: Lake,
    window: Window,
    shares: Shares,
    candidates: Iterable[Candidate],
    template_hash: str | None = None,
) -> Built:
    """Curate and write `datasets/<workload>/<hash>/`; DatasetError when nothing is left.

    With a template's hash only bases with that template may be trained on it.
    """
    chosen = curate(candidates, window.workload, shares)
    _require_rows(chosen, window)
    recipe = _recipe(window, shares) | {"template_hash": template_hash}
    files = {side: _jsonl(rows) for side, rows in chosen.sides.items()}
    digest = _content_hash(recipe, files)
    manifest = {"hash": digest, "recipe": recipe, **_describe(chosen)}
    key = f"datasets/{window.workload}/{digest[:16]}"
    for side, data in files.items():
        lake.put_if_absent(f"{key}/{side}.jsonl", data)
    manifest["created_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    # The manifest comes last: a folder without it is no dataset.
    lake.put_if_absent(f"{key}/manifest.json", json.dumps(manifest, indent=1).encode())
    return Built(lake.path(key), lake.get_json(f"{key}/manifest.json"))


def _without_broken_json(rows: list[Candidate], dropped: Counter[str]) -> list[Candidate]:
    """Where nearly all answers are JSON, the others are faults of the teacher."""
    texts = [row for row in rows if not row.answer.get("tool_calls")]
    broken = {row.attempt_id for row in texts if not is_json(row.answer["content"])}
    if not broken or len(broken) > (1 - _JSON_WORKLOAD) * len(texts):
        return rows
    dropped["invalid_json"] += len(broken)
    return [row for row in rows if row.attempt_id not in broken]


def _deduplicated(rows: list[Candidate], dropped: Counter[str]) -> list[Candidate]:
    """One row per question: a corrected one if there is one, else the first, whose group stays."""
    best: dict[str, Candidate] = {}
    for row in rows:
        known = best.setdefault(row.question(), row)
        if known is not row:
            dropped["duplicate"] += 1
            if row.corrected and not known.corrected:
                best[row.question()] = row
    return list(best.values())


def _drop_contaminated(result: Selection) -> None:
    """The held-out sides stay as they are; rows with the same text leave the training side."""
    held_out: set[str] = set()
    for side in reversed(SIDES):
        rows = result.sides[side]
        clean = [row for row in rows if row.text() not in held_out]
        result.dropped["contamination"] += len(rows) - len(clean)
        result.sides[side] = clean
        held_out |= {row.text() for row in clean}


def _require_rows(chosen: Selection, window: Window) -> None:
    if not chosen.selected:
        raise DatasetError(
            f"the log has no teacher answers for workload {window.workload!r} "
            f"from {window.since or 'its beginning'} to {window.until or 'now'}; check the "
            "workload's name and the window (`understudy logs tail` shows what arrives)"
        )
    if not chosen.sides["train"]:
        held_out = len(chosen.sides["validation"]) + len(chosen.sides["test"])
        counts = ", ".join(f"{name} {n}" for name, n in chosen.dropped.most_common() if n)
        raise DatasetError(
            f"no training rows are left of {chosen.selected} selected "
            f"(dropped: {counts or 'none'}; held out: {held_out}); "
            "collect more traffic, widen the window, or lower --validation and --test"
        )


def _recipe(window: Window, shares: Shares) -> dict[str, Any]:
    return {
        "workload": window.workload,
        "since": window.since.isoformat() if window.since else None,
        "until": window.until.isoformat() if window.until else None,
        "validation": shares.validation,
        "test": shares.test,
        "rules_version": 1,
    }


def _jsonl(rows: list[Candidate]) -> bytes:
    return "".join(json.dumps(row.row(), ensure_ascii=False) + "\n" for row in rows).encode()


def _content_hash(recipe: dict[str, Any], files: dict[Side, bytes]) -> str:
    total = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for side in SIDES:
        total.update(f"\0{side}\0".encode() + files[side])
    return total.hexdigest()


def _describe(chosen: Selection) -> dict[str, Any]:
    rows = [row for side in SIDES for row in chosen.sides[side]]
    times = sorted(row.requested_at for row in rows)
    return {
        "selected": chosen.selected,
        "rows": {side: len(chosen.sides[side]) for side in SIDES},
        "dropped": {name: n for name, n in sorted(chosen.dropped.items()) if n},
        "groups": len({row.group for row in rows}),
        "corrected": sum(row.corrected for row in rows),
        "window": {"first": times[0], "last": times[-1]},
        "teachers": dict(Counter(row.teacher for row in rows)),
        "tokens": {
            "prompt": _statistics([row.prompt_tokens for row in rows]),
            "completion": _statistics([row.completion_tokens for row in rows]),
        },
    }


@dataclass(frozen=True)
class _Statistics:
    reported: int
    total: int
    p50: float
    p95: float
    max: int


def _statistics(reported: list[int | None]) -> dict[str, Any] | None:
    """Tokens as the provider reported them; None where it never did."""
    known = [n for n in reported if n is not None]
    if not known:
        return None
    p50, p95 = (float(q) for q in np.quantile(known, (0.5, 0.95)))
    return asdict(_Statistics(len(known), sum(known), p50, p95, max(known)))
