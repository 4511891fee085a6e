"""Which dialect a body speaks, by endpoint, and the two functions that the collector calls."""

from types import ModuleType

from collector.assemble import anthropic, chat, responses
from collector.assemble.body import decoded, events, is_event_stream, parse_json
from collector.assemble.message import Answer, Request

_DIALECTS: dict[str, ModuleType] = {
    "chat.completions": chat,
    "completions": chat,
    "embeddings": chat,
    "responses": responses,
    "messages": anthropic,
}


def read_request(endpoint: str, body: bytes, encoding: str | None) -> Request:
    """The request's columns; all None for an endpoint that is only passed through, or no JSON."""
    dialect, plain = _DIALECTS.get(endpoint), decoded(body, encoding)
    if dialect is None or not plain:
        return Request()
    value = parse_json(plain)
    found: Request = dialect.read_request(value) if isinstance(value, dict) else Request()
    return found


def read_answer(
    endpoint: str, body: bytes, encoding: str | None, content_type: str | None
) -> Answer:
    """The answer's columns, from a whole body, a stream, or the part of one that arrived."""
    dialect, plain = _DIALECTS.get(endpoint), decoded(body, encoding)
    if dialect is None or not plain:
        return Answer()
    found: Answer
    if is_event_stream(plain, content_type):
        pieces = events(plain)
        found = Answer() if pieces is None else dialect.read_stream(pieces)
    else:
        value = parse_json(plain)
        found = dialect.read_answer(value) if isinstance(value, dict) else Answer()
    return found
