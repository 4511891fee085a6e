"""The Responses API of a stand-in teacher: one object, or named events with sequence numbers.

Input items become the messages that every teacher understands; the answer becomes output items
(a message, then function calls). Events follow OpenAI's order, each `event:` line equal to its
`type`; there is no `[DONE]`. What was answered is kept by the app for `previous_response_id`.
"""

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from deploy.openai_api import ApiError, Json, Usage
from deploy.teacher.answer import Answer, ToolCall, pieces
from understudy.ids import uuid7


class ResponsesRequest(msgspec.Struct):
    """The fields of `POST /v1/responses` that change the answer."""

    model: str
    input: str | list[Json] = ""
    instructions: str | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    tools: list[Json] | None = None
    tool_choice: Any = "auto"
    previous_response_id: str | None = None
    store: bool = True
    metadata: Json | None = None


def messages(request: ResponsesRequest, earlier: list[Json]) -> list[Json]:
    """The conversation: instructions, what went before, then this request's input."""
    head = [{"role": "system", "content": request.instructions}] if request.instructions else []
    if isinstance(request.input, str):
        return [*head, *earlier, {"role": "user", "content": request.input}]
    return [*head, *earlier, *(_message(item) for item in request.input)]


def tools(request: ResponsesRequest) -> list[Json] | None:
    """The Responses API's flat tools as chat's nested ones."""
    flat = [tool for tool in request.tools or [] if tool.get("type") == "function"]
    return [{"type": "function", "function": _without_type(tool)} for tool in flat] or None


def response(request: ResponsesRequest, answer: Answer, usage: Usage) -> Json:
    """The whole object, completed, or incomplete where `max_output_tokens` cut it."""
    cut = answer.finish == "length"
    return {
        "id": f"resp_{uuid7().replace('-', '')}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "model": request.model,
        "output": list(_items(answer)),
        "parallel_tool_calls": True,
        "previous_response_id": request.previous_response_id,
        "store": request.store,
        "temperature": 1.0,
        "top_p": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": request.tool_choice,
        "tools": request.tools or [],
        "truncation": "disabled",
        "usage": _usage(usage),
        "user": None,
        "metadata": request.metadata or {},
    }


def events(whole: Json) -> Iterator[Json]:
    """The stream of a response: `type` and `sequence_number` in every event."""
    nothing: Json = {"output": [], "usage": None, "incomplete_details": None}
    begun = whole | nothing | {"status": "in_progress"}
    rows: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        is_text = item["type"] == "message"
        rows += (_text_events if is_text else _call_events)(index, item)
    rows.append({"type": f"response.{whole['status']}", "response": whole})
    for number, row in enumerate(rows):
        yield row | {"sequence_number": number}


def _text_events(index: int, item: Json) -> Iterator[Json]:
    part = item["content"][0]
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    begun = item | {"status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    yield {"type": "response.content_part.added", **at, "part": part | {"text": ""}}
    for piece in pieces(part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _call_events(index: int, item: Json) -> Iterator[Json]:
    at = {"item_id": item["id"], "output_index": index}
    begun = item | {"status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for piece in pieces(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
    done = {"name": item["name"], "arguments": item["arguments"]}
    yield {"type": "response.function_call_arguments.done", **at, **done}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _items(answer: Answer) -> Iterator[Json]:
    status = "incomplete" if answer.finish == "length" else "completed"
    if answer.content is not None:
        part = {"type": "output_text", "text": answer.content, "annotations": [], "logprobs": []}
        yield {
            "id": _id("msg"),
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [part],
        }
    for call in answer.tool_calls:
        yield {
            "id": _id("fc"),
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }


def _message(item: Json) -> Json:
    match item.get("type", "message"):
        case "message":
            return {"role": item.get("role", "user"), "content": item.get("content")}
        case "function_call":
            call = ToolCall(item["call_id"], item["name"], item["arguments"])
            return Answer(None, (call,)).as_message()
        case "function_call_output":
            return {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
        case other:
            raise ApiError(400, f"input item type '{other}' is not known here", param="input")


def _without_type(tool: Json) -> Json:
    return {name: value for name, value in tool.items() if name != "type"}


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    }


def _id(kind: str) -> str:
    return f"{kind}_{uuid7().replace('-', '')}"
