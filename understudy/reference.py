"""The configuration's reference as Markdown, rendered from the models: names, defaults, sentences.

`understudy config keys` prints it; `docs/configuration.md` holds it, and a test compares the two.
"""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from understudy.config import Config


def reference() -> str:
    """One table row a key, in the order of the file."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {default} | {about} |" for key, default, about in _rows(Config, "")]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        inner, many = _section(field.annotation)
        about = " ".join((field.description or "").split())
        yield f"{prefix}{name}", _default(field, inner is not None), about
        if inner is not None:
            yield from _rows(inner, f"{prefix}{name}{many}.")


def _default(field: FieldInfo, section: bool) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if section and value is not None:
        return "-"
    if isinstance(value, Path):
        value = str(value)
    if value is None:
        return "null"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _section(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The section that a key holds, and how its entries are addressed: `.<name>`, `[]`, nothing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    mark = {dict: ".<name>", tuple: "[]"}.get(typing.get_origin(annotation), "")
    for inner in typing.get_args(annotation):
        found, deeper = _section(inner)
        if found is not None:
            return found, mark + deeper
    return None, ""
