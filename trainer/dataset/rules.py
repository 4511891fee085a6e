"""The hard rules: what may never be learnt. Each has a name, under which its drops are counted.

The first rule that a row breaks is its reason. A correction written by a person replaces the
teacher's answer, so the rules about how that answer ended do not apply to it.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from trainer.dataset.rows import Candidate


class Rule(NamedTuple):
    """A reason to drop a row."""

    name: str
    broken: Callable[[Candidate], bool]


# Openings of an answer that declines; deliberately narrow: an apology alone is no refusal.
_REFUSAL = re.compile(
    r"^\W*(?:i(?:'|\u2019)?m sorry|i am sorry|sorry|i apologi[sz]e|unfortunately)?\W*(?:but )?"
    r"(?:as an ai(?: language)? model|i (?:can(?:'|\u2019)t|cannot|am unable to|won(?:'|\u2019)t|"
    r"am not able to) (?:help|assist|comply|provide|fulfil|answer|do that|engage))",
    re.IGNORECASE,
)


def _answered(broken: Callable[[Candidate], bool]) -> Callable[[Candidate], bool]:
    return lambda row: not row.corrected and broken(row)


def _bad_arguments(row: Candidate) -> bool:
    return any(not _is_object(call) for call in row.answer.get("tool_calls", ()))


def _is_object(call: dict[str, Any]) -> bool:
    try:
        return isinstance(json.loads(call["function"]["arguments"]), dict)
    except (KeyError, TypeError, ValueError):
        return False


def _bad_json(row: Candidate) -> bool:
    kind = (row.response_format or {}).get("type", "text")
    return (
        kind != "text" and not row.answer.get("tool_calls") and not is_json(row.answer["content"])
    )


def is_json(text: Any) -> bool:
    """Whether the text is one JSON object or list, with nothing around it."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (TypeError, ValueError):
        return False


RULES: tuple[Rule, ...] = (
    Rule("not_chat", lambda row: row.endpoint != "chat.completions"),
    Rule("train_not_ok", lambda row: not row.train_ok),
    Rule("no_messages", lambda row: not row.messages),
    Rule("incomplete", _answered(lambda row: row.outcome != "complete")),
    Rule("http_error", _answered(lambda row: not 200 <= row.status < 300)),
    Rule("truncated", _answered(lambda row: row.finish_reason == "length")),
    Rule("content_filter", _answered(lambda row: row.finish_reason == "content_filter")),
    Rule("refusal", _answered(lambda row: bool(row.refusal) or _refuses(row.answer["content"]))),
    Rule("empty", lambda row: not row.answer["content"] and not row.answer.get("tool_calls")),
    Rule("bad_tool_arguments", _bad_arguments),
    Rule("invalid_json", _bad_json),
)


def broken_rule(row: Candidate) -> str | None:
    """The name of the first rule that the row breaks, or None."""
    return next((rule.name for rule in RULES if rule.broken(row)), None)


def _refuses(content: Any) -> bool:
    return isinstance(content, str) and bool(_REFUSAL.match(content))
