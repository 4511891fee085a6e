"""Why a configuration is refused, in one line: the line's number, the key, and the cure.

Works on YAML's node tree (which knows the lines) and pydantic's error list (which knows the keys);
knows nothing of what the keys mean.
"""

import difflib
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

Path = list[str | int]


def explain(error: ValidationError, node: yaml.Node | None, root: type[BaseModel]) -> str:
    """`<line>: <what is wrong; the remedy>` for the error that a person should see first."""
    found = error.errors(include_url=False)
    # A misspelt key explains a missing one, so it comes first.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path: Path = [part for part in first["loc"] if isinstance(part, str | int)]
    return f"{_line(node, path)}: {_message(first, path, root)}"


def duplicate_key(node: yaml.Node | None) -> str | None:
    """`<line>: <key> stands here and in line <n>`: YAML would silently take the last one."""
    seen: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if key.value in seen and key.value != "<<":
            return f"{line}: {key.value!r} stands here and in line {seen[key.value]}"
        seen[key.value] = line
        inner = duplicate_key(value)
        if inner:
            return inner
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        inner = duplicate_key(item)
        if inner:
            return inner
    return None


def _line(node: yaml.Node | None, path: Path) -> int:
    line = 1
    for part in path:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = (node.value[part], node.value[part]) if part < len(node.value) else None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _message(error: Mapping[str, Any], path: Path, root: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in path)
    if error["type"] == "extra_forbidden":
        known = sorted(_section(root, path[:-1]).model_fields)
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if error["type"] == "missing":
        about = _section(root, path[:-1]).model_fields[str(path[-1])].description or "add it"
        return f"{key!r} is missing: {about[0].lower()}{about[1:].rstrip('.')}"
    message = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    shown = f" (here {value!r})" if isinstance(value, str | int | float | bool) else ""
    if shown and repr(value) in message:
        shown = ""
    return f"{key}: {message}{shown}" if key else f"{message}{shown}"


def _section(root: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model that `path` leads to; names and positions of entries lead to the entry's model."""
    model = root
    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
