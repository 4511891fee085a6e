"""What shadow work may cost a day (UTC), per workload and worker."""

import re
import time

import msgspec

_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_DAY_S = 86_400


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Budget:
    """Dollars spent today."""

    def __init__(self) -> None:
        self._spent: dict[tuple[str, int], float] = {}

    def allows(self, workload: str, limit_usd: float, now: float | None = None) -> bool:
        """Whether less than `limit_usd` was spent today."""
        return self._spent.get((workload, _day(now)), 0.0) < limit_usd

    def spend(self, workload: str, usd: float, now: float | None = None) -> None:
        """Add a cost to today's."""
        key = (workload, _day(now))
        before = self._spent.get(key, 0.0)
        self._spent = {k: v for k, v in self._spent.items() if k[1] == key[1]}
        self._spent[key] = before + usd


def tokens_of(request: bytes, answer: bytes) -> tuple[int, int]:
    """Prompt and completion tokens as the answer reports them; else four bytes a token, generously.

    An answer without usage (a stream that was not asked for it) must not be free.
    """
    for found in reversed(list(_USAGE.finditer(answer))):
        try:
            text = answer[found.end() :].decode("utf-8", "replace")
            end = text.index("}") + 1
            while text[:end].count("{") > text[:end].count("}"):
                end = text.index("}", end) + 1
            usage = msgspec.json.decode(text[:end], type=_Usage)
        except (ValueError, msgspec.DecodeError):
            continue
        prompt = usage.prompt_tokens or usage.input_tokens
        completion = usage.completion_tokens or usage.output_tokens
        if prompt or completion:
            return prompt, completion
    return len(request) // 4, len(answer) // 4


def _day(now: float | None) -> int:
    return int((time.time() if now is None else now) // _DAY_S)
