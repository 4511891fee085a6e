"""Faults to inject into a running student, so that a demo or a test can watch the rollback.

`broken` answers 500; `wrong` answers the question before this one: fluent, well formed and wrong,
which only a comparison with the teacher can notice. Off unless the server was started to allow it.
"""

from typing import Literal, get_args

from deploy.openai_api import ApiError

Behaviour = Literal["sound", "wrong", "broken"]
BEHAVIOURS: tuple[str, ...] = get_args(Behaviour)


class Faults:
    """The behaviour of each student; every one is sound at first."""

    def __init__(self) -> None:
        self._behaviours: dict[str, Behaviour] = {}
        self._last: dict[str, list[int]] = {}

    def inject(self, model: str, behaviour: Behaviour) -> None:
        """From now on `model` behaves so."""
        self._behaviours[model] = behaviour

    def prompt(self, model: str, ids: list[int]) -> list[int]:
        """The prompt that `model` really answers."""
        behaviour = self._behaviours.get(model, "sound")
        if behaviour == "broken":
            raise ApiError(500, f"student {model!r} was made to fail (injected fault)")
        before, self._last[model] = self._last.get(model, ids), ids
        return before if behaviour == "wrong" else ids
