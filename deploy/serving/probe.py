"""The parity probe: is what the server serves under this name the student that was trained?

Servers have served the base under an adapter's name (vllm#55193, #48019, #49354), and students
that never learned their end token. So, over HTTP and before any traffic: the served teacher-forced
log-probabilities match the trainer's, differ from the base's, and the student stops by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from deploy.serving.client import StudentServer
from deploy.serving.student import ProbeItem

# Mean absolute difference of natural logs per token, served against trained (float32). Measured:
# under 0.0001 in float32 by vLLM and by transformers, 0.010 for a base of 4 M rounded to bfloat16.
TOLERANCE = {"float32": 0.002, "bfloat16": 0.05}
MIN_EFFECT = 0.02  # below this an adapter cannot be told from its base
MIN_STOPPED = 0.5
SPARE_TOKENS = 64  # beyond the trained answer's length before "does not stop" is said


@dataclass(frozen=True)
class Probed:
    """What the probe measured; distances are mean absolute differences of log-probabilities."""

    tokens: int
    to_trainer: float
    to_base: float
    trainer_to_base: float
    stopped: int
    items: int
    tolerance: float

    @property
    def failure(self) -> str | None:
        """Why the student may not take traffic, or None."""
        if self.trainer_to_base < MIN_EFFECT:
            return (
                f"its adapter changes nothing: trained log-probabilities differ from the "
                f"base's by {self.trainer_to_base:.4f} on average; train it for longer"
            )
        if self.to_trainer > self.tolerance and self.to_base < self.to_trainer:
            return (
                f"the base answers in its place: served log-probabilities are "
                f"{self.to_base:.4f} from the base's and {self.to_trainer:.4f} from the "
                "student's; does the server support the adapter's modules?"
            )
        if self.to_trainer > self.tolerance:
            return (
                f"served log-probabilities differ from the trained ones by "
                f"{self.to_trainer:.4f} on average (at most {self.tolerance}); "
                "are base, dtype and adapter those of the training?"
            )
        if self.stopped < MIN_STOPPED * self.items:
            return (
                f"it stopped by itself in {self.stopped} of {self.items} answers; "
                "was the end token trained?"
            )
        return None


def probe(
    server: StudentServer, model: str, items: Sequence[ProbeItem], tolerance: float
) -> Probed:
    """Ask `model` for its log-probabilities and endings on the trainer's items."""
    served = list(
        chain.from_iterable(
            server.logprobs(model, item.prompt_ids, item.completion_ids) for item in items
        )
    )
    trained = [value for item in items for value in item.logprobs]
    base = [value for item in items for value in item.base_logprobs]
    endings = [
        server.finish_reason(model, item.prompt_ids, len(item.completion_ids) + SPARE_TOKENS)
        for item in items
    ]
    return Probed(
        tokens=len(served),
        to_trainer=_distance(served, trained),
        to_base=_distance(served, base),
        trainer_to_base=_distance(trained, base),
        stopped=endings.count("stop"),
        items=len(items),
        tolerance=tolerance,
    )


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)
