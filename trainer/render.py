"""From a row to token ids with its trained span, by the template that will serve the student.

The prompt is rendered with the generation prompt and encoded by itself, as a server does; the
answer is what the template writes after it, up to and including the end token. So training and
serving see the same ids. Only the row's last turn is trained: earlier ones are rows of their own.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from understudy.errors import DatasetError, TrainingError

Message = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """Token ids of one row; the loss is on `ids[prompt:]`, whose last is an end token."""

    ids: list[int]
    prompt: int

    @property
    def trained(self) -> list[int]:
        """The answer's ids with the end token."""
        return self.ids[self.prompt :]


class Renderer:
    """A base's tokenizer and chat template, with everything pinned that changes the rendering."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = ()) -> None:
        template = tokenizer.chat_template
        if not isinstance(template, str) or not template:
            raise TrainingError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; choose an "
                "instruct model as base"
            )
        self.tokenizer = tokenizer
        self.kwargs: dict[str, Any] = (
            {"enable_thinking": False} if "enable_thinking" in template else {}
        )
        self.stop_ids = sorted({*stop_ids, *_known(tokenizer.eos_token_id)})
        self.template_hash = _hash(template, self.kwargs)

    def example(self, row: dict[str, Any]) -> Example:
        """The row's ids; DatasetError if the template does not carry the answer or its end."""
        *context, answer = row["messages"]
        prompt = self.text(context, row.get("tools"), add_generation_prompt=True)
        whole = self.text(row["messages"], row.get("tools"), add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise DatasetError(
                f"the template writes the prompt of {_name(row)} otherwise when the answer "
                "follows; this base cannot be trained on such rows, choose another"
            )
        prompt_ids = self._encode(prompt)
        answer_ids = self._until_end(self._encode(whole[len(prompt) :]), row)
        self._check(answer_ids, answer, row)
        return Example(prompt_ids + answer_ids, len(prompt_ids))

    def text(
        self, messages: list[Message], tools: list[Any] | None, *, add_generation_prompt: bool
    ) -> str:
        """The template's text for messages in the wire's form."""
        rendered = self.tokenizer.apply_chat_template(
            [template_message(message) for message in messages],
            tools=tools,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **self.kwargs,
        )
        return str(rendered)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _until_end(self, ids: list[int], row: dict[str, Any]) -> list[int]:
        """The ids up to the last end token: what stands after it is never generated."""
        ends = [at for at, token in enumerate(ids) if token in self.stop_ids]
        if not ends:
            raise DatasetError(
                f"the template ends the answer of {_name(row)} with none of the stop ids "
                f"{self.stop_ids}; the student would never stop"
            )
        return ids[: ends[-1] + 1]

    def _check(self, answer_ids: list[int], answer: Message, row: dict[str, Any]) -> None:
        """The trained span decodes to the assistant's words and the names of its calls."""
        decoded = str(self.tokenizer.decode(answer_ids[:-1]))
        expected = [str(answer.get("content") or "").strip()]
        expected += [call["function"]["name"] for call in answer.get("tool_calls") or ()]
        lacking = [text for text in expected if text not in decoded]
        if lacking or not decoded.strip():
            raise DatasetError(
                f"the trained span of {_name(row)} decodes to {decoded[:80]!r} and lacks "
                f"{lacking[0][:80] if lacking else 'any text'!r}; the template drops a part of it"
            )


def template_message(message: Message) -> Message:
    """A wire message as templates want it: arguments a dict (transformers#45419), content text."""
    adapted = dict(message)
    content = message.get("content")
    if isinstance(content, list):
        adapted["content"] = "\n".join(p["text"] for p in content if p.get("type") == "text")
    if message.get("tool_calls"):
        adapted["tool_calls"] = [_template_call(call) for call in message["tool_calls"]]
    return adapted


def wire_message(message: Message) -> Message:
    """The inverse of `template_message` for tool calls: arguments as a JSON string."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _as_text(call["function"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _template_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        value = arguments  # an earlier turn's bad call: the model sees it as it was
    return {**call, "function": {**function, "arguments": value}}


def _as_text(function: dict[str, Any]) -> str:
    arguments = function["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _known(eos: int | list[int] | None) -> list[int]:
    if eos is None:
        return []
    return eos if isinstance(eos, list) else [eos]


def _hash(template: str, kwargs: dict[str, Any]) -> str:
    return hashlib.sha256((template + json.dumps(kwargs, sort_keys=True)).encode()).hexdigest()


def _name(row: dict[str, Any]) -> str:
    return f"row {row.get('meta', {}).get('exchange_id', '?')}"
