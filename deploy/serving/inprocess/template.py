"""Chat messages to token ids by the tokenizer's own template, and tool calls back out of the text.

Tool arguments are JSON text on the wire and an object in templates (transformers#45419), so they
are parsed before rendering. Calls are found where the template writes Hermes' format,
`<tool_call>{"name": ..., "arguments": ...}</tool_call>`; other formats stay text.
"""

import json
import re
from typing import Any

from deploy.openai_api import ApiError, Json
from understudy.ids import uuid7

_OPEN = "<tool_call>"
_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def render(tokenizer: Any, messages: list[Json], tools: list[Json] | None, more: Json) -> list[int]:
    """The prompt's token ids, as the trainer renders them; 400 if the template refuses."""
    if not messages:
        raise ApiError(400, "'messages' is empty; give at least one message", param="messages")
    if not tokenizer.chat_template:
        raise ApiError(400, "the base model has no chat template; use /v1/completions")
    try:
        ids = tokenizer.apply_chat_template(
            [_for_template(message) for message in messages],
            tools=tools or None,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **more,
        )
    except Exception as error:  # templates are programs of their own and raise what they like
        raise ApiError(400, f"the chat template refused the messages: {error}") from error
    return list(ids)


def writes_tool_calls(tokenizer: Any) -> bool:
    """Whether answers of this template hold calls in Hermes' format."""
    return _OPEN in str(tokenizer.chat_template or "")


class ToolText:
    """Splits an answer's text as it comes: content at once, calls when the answer has ended."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The part of the text so far that is certainly content."""
        self._held += text
        at = self._held.find(_OPEN)
        if at < 0:
            at = next(
                (i for i in range(len(self._held)) if _OPEN.startswith(self._held[i:])),
                len(self._held),
            )
        ready, self._held = self._held[:at], self._held[at:]
        return ready

    def finish(self) -> tuple[str, list[Json]]:
        """What is left as content, and the calls; text that is no proper call stays content."""
        calls = [_call(body) for body in _CALL.findall(self._held)]
        if not calls or None in calls:
            return self._held, []
        return _CALL.sub("", self._held).strip(), [call for call in calls if call]


def _for_template(message: Json) -> Json:
    kept = {name: value for name, value in message.items() if value is not None}
    content = kept.get("content")
    if isinstance(content, list):
        kept["content"] = "\n".join(str(part.get("text", "")) for part in content)
    kept.setdefault("content", "")
    if "tool_calls" in kept:
        kept["tool_calls"] = [_with_object(call) for call in kept["tool_calls"]]
    return kept


def _with_object(call: Json) -> Json:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"] or "{}")
        except ValueError as error:
            raise ApiError(
                400,
                f"arguments of tool call {function.get('name')!r} are no JSON: {error}",
                param="messages",
            ) from error
    return call | {"function": function}


def _call(body: str) -> Json | None:
    try:
        parsed = json.loads(body)
        arguments = parsed["arguments"]
        name = str(parsed["name"])
    except (ValueError, KeyError, TypeError):
        return None
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    function = {"name": name, "arguments": text}
    return {"id": f"call_{uuid7().replace('-', '')}", "type": "function", "function": function}
