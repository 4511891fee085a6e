"""OpenAI's chat.completions, completions and embeddings: requests, answers, streams of chunks."""

from typing import Any

from collector.assemble.message import (
    Answer,
    Choice,
    Message,
    Request,
    Usage,
    as_json,
    items,
    mapping,
    number,
    rest,
    text,
    word,
)

_OWN_COLUMNS = ("model", "stream", "messages", "prompt", "input", "tools", "response_format")


def read_request(body: dict[str, Any]) -> Request:
    """Messages (a prompt or an embedding's input is one user message) and the rest."""
    if "messages" in body:
        messages = [message(m) for m in items(body["messages"]) if isinstance(m, dict)]
    else:
        messages = [Message("user", text(body.get("prompt", body.get("input"))))]
    return Request(
        messages,
        rest(body, *_OWN_COLUMNS),
        as_json(body.get("tools")),
        as_json(body.get("response_format")),
    )


def message(value: dict[str, Any]) -> Message:
    """One message; the fields that have no column go to `extra_json`."""
    return Message(
        word(value.get("role")),
        text(value.get("content")),
        word(value.get("name")),
        as_json(value.get("tool_calls")),
        word(value.get("tool_call_id")),
        rest(value, "role", "content", "name", "tool_calls", "tool_call_id"),
    )


def read_answer(body: dict[str, Any]) -> Answer:
    """A whole answer; embeddings have usage and no choices."""
    choices = [_choice(c) for c in items(body.get("choices")) if isinstance(c, dict)]
    return _answer(body, choices if "choices" in body else None)


def _choice(value: dict[str, Any]) -> Choice:
    said = mapping(value.get("message"))
    calls = said.get("tool_calls")
    if calls is None and said.get("function_call"):
        calls = [{"type": "function", "function": said["function_call"]}]
    return Choice(
        _small(value.get("index")),
        word(said.get("role")),
        text(said.get("content", value.get("text"))),
        word(said.get("reasoning_content", said.get("reasoning"))),
        word(said.get("refusal")),
        as_json(calls or None),
        word(value.get("finish_reason")),
        as_json(value.get("logprobs")),
    )


def read_stream(chunks: list[Any]) -> Answer:
    """A stream's chunks, assembled; usage may come with any of them, the last one counts."""
    drafts: dict[int, _Draft] = {}
    head: dict[str, Any] = {}
    for chunk in chunks:
        if not isinstance(chunk, dict):
            continue
        for key in ("id", "model", "system_fingerprint", "usage", "error"):
            if chunk.get(key):
                head[key] = chunk[key]
        for value in items(chunk.get("choices")):
            if isinstance(value, dict):
                index = _small(value.get("index"))
                drafts.setdefault(index, _Draft()).add(value)
    return _answer(head, [drafts[index].choice(index) for index in sorted(drafts)])


_TEXT_ONLY = {"content"}


class _Draft:
    """A choice under assembly."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._role: str | None = None
        self._finish: str | None = None
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[Any]] = {}

    def add(self, value: dict[str, Any]) -> None:
        """One chunk's choice: a chat delta, or a completion's text."""
        delta = mapping(value.get("delta"))
        if delta.keys() == _TEXT_ONLY and not value.get("finish_reason"):
            self._append("content", delta["content"])
            if not value.get("logprobs"):
                return  # nearly every chunk of nearly every stream
            delta = {}
        self._role = word(delta.get("role")) or self._role
        self._finish = word(value.get("finish_reason")) or self._finish
        self._append("content", delta.get("content", value.get("text")))
        self._append("reasoning", delta.get("reasoning_content", delta.get("reasoning")))
        self._append("refusal", delta.get("refusal"))
        for call in items(delta.get("tool_calls")):
            if isinstance(call, dict):
                self._call(_small(call.get("index")), call)
        if isinstance(delta.get("function_call"), dict):
            self._call(0, {"type": "function", "function": delta["function_call"]})
        for key, entries in mapping(value.get("logprobs")).items():
            if isinstance(entries, list):
                self._logprobs.setdefault(key, []).extend(entries)

    def _append(self, name: str, piece: Any) -> None:
        if isinstance(piece, str):
            self._texts.setdefault(name, []).append(piece)

    def _call(self, index: int, delta: dict[str, Any]) -> None:
        """The delta's index is the key: ids and names come once, arguments in pieces."""
        call = self._calls.setdefault(index, {})
        for key, value in delta.items():
            if key == "index" or value is None:
                continue
            if isinstance(value, dict):
                _merge(mapping(call.setdefault(key, {})), value)
            else:
                call[key] = value

    def choice(self, index: int) -> Choice:
        """What has arrived."""
        joined = {name: "".join(pieces) for name, pieces in self._texts.items()}
        calls = [self._calls[key] for key in sorted(self._calls)]
        return Choice(
            index,
            self._role,
            joined.get("content"),
            joined.get("reasoning"),
            joined.get("refusal"),
            as_json(calls or None),
            self._finish,
            as_json(self._logprobs or None),
        )


def _merge(call: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if isinstance(value, str) and isinstance(call.get(key), str) and key in _IN_PIECES:
            call[key] += value
        elif value is not None:
            call[key] = value


# Some servers repeat the whole name with every piece of the arguments; no server splits it.
_IN_PIECES = ("arguments", "input")


def _answer(body: dict[str, Any], choices: list[Choice] | None) -> Answer:
    error = body.get("error")
    return Answer(
        word(body.get("id")),
        word(body.get("model")),
        word(body.get("system_fingerprint")),
        choices,
        _usage(mapping(body.get("usage"))),
        (word(mapping(error).get("type")) or "error") if error else None,
    )


def _usage(value: dict[str, Any]) -> Usage:
    return Usage(
        number(value.get("prompt_tokens")),
        number(value.get("completion_tokens")),
        number(mapping(value.get("prompt_tokens_details")).get("cached_tokens")),
        number(mapping(value.get("completion_tokens_details")).get("reasoning_tokens")),
    )


def _small(value: Any) -> int:
    found = number(value)
    return found if found is not None and found < 1 << 31 else 0
