"""The hyper-parameters of a run, resolved and checked before anything is loaded.

Defaults follow what was measured on the built-in base (docs/log.md) and, for real bases, the
published laws: `LR = 5e-4 * (2000 / hidden) ** 0.0775` for Qwen-like models of 0.5-8B.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from understudy.errors import TrainingError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM serves
NARROW = 512  # below this width a base is a toy: it stands, and needs, larger steps
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a student, given dataset and base. Part of its lineage."""

    epochs: float = 3
    rank: int = 32
    alpha: int = 64
    learning_rate: float = 5e-4
    batch_size: int = 32
    accumulate: int = 1
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    max_tokens: int = 2048
    patience: int = 3
    seed: int = 17

    def checked(self) -> "Recipe":
        """Itself; TrainingError for what cannot be trained or served."""
        if self.rank not in RANKS:
            raise TrainingError(
                f"rank {self.rank} cannot be served by vLLM; choose one of {_listed(RANKS)}"
            )
        for name in ("epochs", "alpha", "learning_rate", "batch_size", "accumulate", "max_tokens"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.accumulate > self.batch_size:
            raise TrainingError(
                f"accumulate {self.accumulate} is more than the batch {self.batch_size}; lower it"
            )
        return self

    def as_dict(self) -> dict[str, Any]:
        """For the run's folder, the student's card and the tracker."""
        return asdict(self)


def resolve(
    hidden: int,
    rows: int,
    *,
    epochs: float | None = None,
    alpha: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    **given: Any,
) -> Recipe:
    """The recipe with what was given, the rest by the base's width and the number of rows."""
    narrow = hidden < NARROW
    rank = given.get("rank", Recipe.rank)
    return Recipe(
        epochs=epochs if epochs is not None else 8 if narrow else 3,
        alpha=alpha if alpha is not None else 2 * rank,
        learning_rate=learning_rate if learning_rate is not None else auto_learning_rate(hidden),
        batch_size=batch_size if batch_size is not None else auto_batch_size(rows),
        **given,
    ).checked()


def auto_batch_size(rows: int) -> int:
    """About a hundred steps an epoch, in batches of 8 to 32."""
    doublings = round(math.log2(max(1, rows) / 100))
    return min(32, max(8, 1 << max(0, doublings)))


def auto_learning_rate(hidden: int) -> float:
    """A good rate for LoRA by the width of the base; narrow models stand and need more."""
    power = 0.0775 if hidden >= NARROW else 0.67
    return float(5e-4 * (2000 / hidden) ** power)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate at `step` of `steps`: linear up, then linear down to zero."""
    rise = max(1, math.ceil(warmup * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))
