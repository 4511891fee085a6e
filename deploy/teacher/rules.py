"""The built-in teacher: triages tickets by `understudy.triage`, and answers the rest politely.

Everything is a function of the question, so that any run can be repeated. A question with tools and
without the triage prompt gets calls of the tools that its text names (else of the first), then,
once results are there, a text. JSON asked for is JSON given. It understands nothing.
"""

import hashlib
import json
from typing import Any

from deploy.teacher.answer import Answer, Json, Question, ToolCall, text_of
from understudy import triage


class RuleTeacher:
    """Triage by rules; short deterministic text for anything else."""

    def answer(self, question: Question) -> Answer:
        """The same question has the same answer, always."""
        asked = _last_user_text(question.messages)
        if _is_triage(question.messages):
            return Answer(triage.answer_text(asked))
        if _wants_tools(question):
            return Answer(None, tuple(_call(tool, asked) for tool in _chosen(question, asked)))
        return Answer(_text(question, asked))


def _last_user_text(messages: list[Json]) -> str:
    users = [message for message in messages if message.get("role") == "user"]
    return text_of(users[-1].get("content")) if users else ""


def _is_triage(messages: list[Json]) -> bool:
    return any(
        message.get("role") in ("system", "developer")
        and triage.SYSTEM_PROMPT in text_of(message.get("content"))
        for message in messages
    )


def _wants_tools(question: Question) -> bool:
    if not question.tools or question.tool_choice == "none":
        return False
    return bool(question.messages) and question.messages[-1].get("role") == "user"


def _chosen(question: Question, asked: str) -> list[Json]:
    functions = [tool.get("function", tool) for tool in question.tools or []]
    if isinstance(question.tool_choice, dict):
        wanted = question.tool_choice.get("function", question.tool_choice).get("name")
        functions = [tool for tool in functions if tool.get("name") == wanted] or functions
    return [tool for tool in functions if str(tool.get("name")) in asked] or functions[:1]


def _call(function: Json, asked: str) -> ToolCall:
    arguments = json.dumps(_instance(function.get("parameters") or {}, asked))
    name = str(function.get("name"))
    digest = hashlib.sha256(f"{name}\0{arguments}".encode()).hexdigest()[:24]
    return ToolCall(f"call_{digest}", name, arguments)


def _text(question: Question, asked: str) -> str:
    kind = (question.response_format or {}).get("type")
    if kind == "json_schema":
        schema = (question.response_format or {}).get("json_schema", {}).get("schema") or {}
        return json.dumps(_instance(schema, asked))
    words = asked.split()
    reply = f"You wrote {len(words)} words, beginning with: {' '.join(words[:8])}"
    return json.dumps({"reply": reply}) if kind == "json_object" else reply


def _instance(schema: Json, asked: str) -> Any:
    """A smallest value that a JSON schema allows; free strings take the user's text."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type", "object"):
        case "object":
            return {k: _instance(v, asked) for k, v in schema.get("properties", {}).items()}
        case "array":
            return [_instance(schema.get("items") or {"type": "string"}, asked)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return asked
