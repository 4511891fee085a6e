"""One exchange as its page shows it: messages, attempts with answers and facts, feedback. Pure."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from deploy.console import numerals
from deploy.console.contents import Exchange
from understudy.diff import Piece, side_by_side

_WRITTEN: dict[str, Callable[[Any], str]] = {
    "duration_ms": numerals.milliseconds,
    "ttft_ms": numerals.milliseconds,
    "cost_usd": numerals.usd,
    "router_score": lambda value: f"{value:.3f}",
    "bucket": lambda value: f"{value:.2f}",
    "overhead_us": lambda value: f"{value:.0f} \N{MICRO SIGN}s",
}
_FACTS = (
    "role",
    "route_reason",
    "status",
    "error_type",
    "duration_ms",
    "ttft_ms",
    "overhead_us",
    "cost_usd",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "model_requested",
    "model_sent",
    "model_reported",
    "adapter",
    "provider",
    "system_fingerprint",
    "response_id",
    "upstream_request_id",
    "client_left_at_event",
    "policy_version",
    "router_score",
    "bucket",
    "attempt_id",
    "spool_id",
    "seq",
    "config_hash",
)
_REQUEST_FACTS = (
    "endpoint",
    "method",
    "path",
    "stream",
    "tenant",
    "conversation_key",
    "user_hash",
    "key_hash",
    "prompt_hash",
    "store",
    "train_ok",
    "redactions",
)
_NAMES = {
    "duration_ms": "duration",
    "ttft_ms": "first byte",
    "overhead_us": "our overhead",
    "cost_usd": "cost",
    "seq": "sequence number",
    "client_left_at_event": "client left at event",
}


class Fact(NamedTuple):
    """A column's name and its value as people read it."""

    name: str
    value: str


class Message(NamedTuple):
    """A message of the request: who said what, and the irregular rest as JSON."""

    role: str
    content: str
    extra: list[Fact]


class Attempt(NamedTuple):
    """One upstream call. `standing` says what it was for; `answer` is marked where it differs
    from the first attempt's.
    """

    arm: str
    standing: str
    served: bool
    outcome: str
    answer: list[Piece]
    finish_reason: str
    facts: list[Fact]


class Page(NamedTuple):
    """Everything that the exchange's page shows."""

    exchange_id: str
    workload: str | None
    at: float
    messages: list[Message]
    attempts: list[Attempt]
    request: list[Fact]
    parameters: list[Fact]
    feedback: list[list[Fact]]


def shown(exchange: Exchange) -> Page:
    """The page's content from the rows of the log."""
    first = exchange.attempts[0]
    reference = _answer(first)
    said = ("params_json", "tools_json", "response_format_json")
    return Page(
        exchange_id=exchange.exchange_id,
        workload=first["workload"],
        at=first["requested_s"],
        messages=[_message(message) for message in first["messages"] or []],
        attempts=[_attempt(row, reference) for row in exchange.attempts],
        request=_facts(first, _REQUEST_FACTS),
        parameters=[Fact(name, _pretty(first[name])) for name in said if first[name]],
        feedback=[
            _facts(row, ("score", "label", "comment", "correction")) for row in exchange.feedback
        ],
    )


def _message(message: dict[str, Any]) -> Message:
    extra = ("name", "tool_call_id", "tool_calls_json", "extra_json")
    facts = [Fact(name, str(message[name])) for name in extra if message.get(name)]
    return Message(message.get("role") or "?", message.get("content") or "", facts)


def _attempt(row: dict[str, Any], reference: str) -> Attempt:
    answer = _answer(row)
    reasons = {choice.get("finish_reason") for choice in row["choices"] or []} - {None}
    return Attempt(
        arm=row["arm"] or "?",
        standing=_standing(row),
        served=bool(row["served"]),
        outcome=row["outcome"] or "?",
        answer=side_by_side(reference, answer).right if answer else [],
        finish_reason=", ".join(sorted(map(str, reasons))),
        facts=_facts(row, _FACTS),
    )


def _standing(row: dict[str, Any]) -> str:
    """'served', the role, or 'not served' where it was meant to be."""
    if row["served"]:
        return "served"
    return "not served" if row["role"] == "served" else row["role"] or "?"


def _answer(row: dict[str, Any]) -> str:
    """All choices' texts, reasoning, refusals and tool calls."""
    fields = ("reasoning", "content", "refusal", "tool_calls_json")
    pieces = [
        str(choice[name]) for choice in row["choices"] or [] for name in fields if choice.get(name)
    ]
    return "\n\n".join(pieces)


def _facts(row: dict[str, Any], names: tuple[str, ...]) -> list[Fact]:
    found = []
    for name in names:
        value = row.get(name)
        if value is not None and value != "":
            write = _WRITTEN.get(name)
            text = write(value) if write else _plain(value)
            found.append(Fact(_NAMES.get(name, name.replace("_", " ")), text))
    return found


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):  # damaged or hostile: shown as it is
        return text
