"""Where vLLM lives: it has an environment of its own, because its pins fight everybody else's.

Order: the argument, `$UNDERSTUDY_VLLM_PYTHON`, `.venv-vllm` here or beside the project, and this
interpreter if it has vLLM. vLLM is never imported, only looked for.
"""

import importlib.util
import os
import sys
from pathlib import Path

from understudy.errors import ServingError

_PROJECT = Path(__file__).resolve().parents[2]


def find_vllm_python(named: Path | None) -> Path | None:
    """The interpreter to run vLLM with, or None; ServingError if a named one is not there."""
    if named is None and (value := os.environ.get("UNDERSTUDY_VLLM_PYTHON")):
        named = Path(value)
    if named is not None:
        if not os.access(named, os.X_OK):
            raise ServingError(f"no Python at {named}; name the one of the environment with vLLM")
        return named
    for folder in (Path.cwd(), _PROJECT):
        if _holds_vllm(folder / ".venv-vllm"):
            return folder / ".venv-vllm" / "bin" / "python"
    return Path(sys.executable) if importlib.util.find_spec("vllm") else None


def _holds_vllm(environment: Path) -> bool:
    if not (environment / "bin" / "python").exists():
        return False
    return any(environment.glob("lib/python*/site-packages/vllm/__init__.py"))
