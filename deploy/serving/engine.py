"""What a student server process is to `understudy serve`: started, watched, stopped; never called.

Everything else goes over HTTP (`client.py`), so that both engines are used in one way.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from deploy.serving.vllm_python import find_vllm_python
from understudy.errors import ServingError

Name = Literal["auto", "vllm", "transformers"]


class Plan(NamedTuple):
    """What to start: the base's folder and served name, where to listen, and the engine's needs."""

    base: Path
    base_name: str
    host: str
    port: int
    max_rank: int
    threads: int | None
    template_kwargs: dict[str, Any]  # what the prompts were rendered with in training
    vllm_arguments: tuple[str, ...]


class Engine(Protocol):
    """A student server."""

    url: str
    dtype: str

    def start(self) -> None:
        """Return when the server answers; ServingError if it cannot start."""

    def check(self) -> None:
        """ServingError with its last words if the server has died."""

    def stop(self) -> None:
        """End the server and wait for it."""


def make_engine(name: Name, plan: Plan, vllm_python: Path | None) -> Engine:
    """The engine of that name; `auto` is vLLM where it is installed, else transformers."""
    found = find_vllm_python(vllm_python)
    if name == "vllm" and found is None:
        raise ServingError(
            "vLLM is not installed; run `make vllm`, name its Python with --vllm-python, "
            "or use --engine transformers"
        )
    if name != "transformers" and found is not None:
        from deploy.serving.vllm_engine import VllmEngine

        return VllmEngine(plan, found)
    from deploy.serving.inprocess.engine import InProcessEngine

    return InProcessEngine(plan)
