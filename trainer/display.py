"""What a person sees of a run: a bar with loss, tokens/s and the time left, on stderr.

Without a terminal it is a line every few seconds, so that logs stay readable.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_EVERY_S = 10.0


class Display:
    """Feed it the metrics of each step, inside `with`."""

    def __init__(self, title: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn(title),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[about]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=None, about="")
        self._said = 0.0
        self._checked = ""

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, metrics: dict[str, float]) -> None:
        if "validation_exact" in metrics:
            self._checked = f" validation {metrics['validation_exact']:.1%} exact"
        about = f"loss {metrics['loss']:.3f} {metrics['tokens_per_s']:,.0f} tokens/s{self._checked}"
        step, steps = metrics["step"], metrics["steps"]
        self._bar.update(self._task, completed=step, total=steps, about=about)
        if not self._console.is_terminal and (
            step == steps or time.monotonic() - self._said > _EVERY_S
        ):
            self._said = time.monotonic()
            self._console.print(f"step {step:.0f} of {steps:.0f}: {about}", markup=False)
