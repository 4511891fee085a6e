"""The students that a server may offer: checked, loaded, probed; refused with the reason otherwise.

A student is loaded under a name of its own for the probe and gets its served name only when it
has passed, so that no request meets an unproven one. `follow` keeps the roster equal to a
workload's aliases in the lake; a refused folder is not tried again while the registry names it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from deploy.serving.client import StudentServer
from deploy.serving.probe import TOLERANCE, Probed, probe
from deploy.serving.student import check_fit, read_student
from understudy import documents
from understudy.errors import LakeError, ServingError
from understudy.lake import Lake

log = logging.getLogger(__name__)

PROBING = ".probing"  # suffix of the name under which a student is proved


class Roster:
    """What one server offers, and the two ways of changing that."""

    def __init__(
        self,
        server: StudentServer,
        base: Path,
        base_hash: str,
        *,
        dtype: str,
        max_rank: int,
        tolerance: float | None = None,
    ) -> None:
        self._server, self._base, self._base_hash = server, base, base_hash
        self._tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
        self._max_rank = max_rank
        self.served: dict[str, Path] = {}
        self._refused: dict[str, Path] = {}

    def admit(self, name: str, folder: Path) -> Probed:
        """Check, load, probe, serve; ServingError says why not, and nothing stays loaded."""
        student = read_student(folder)
        check_fit(student, self._base, self._base_hash)
        if student.rank > self._max_rank:
            raise ServingError(
                f"student {name!r} has rank {student.rank}, the server was started "
                f"for {self._max_rank}; restart it with --max-lora-rank"
            )
        trial = name + PROBING
        self._server.load(trial, str(student.folder))
        try:
            probed = probe(self._server, trial, student.items, self._tolerance)
        finally:
            self._server.unload(trial)
        if probed.failure:
            raise ServingError(f"student {name!r} is refused: {probed.failure}")
        self._server.load(name, str(student.folder))
        self.served[name] = folder
        log.info(
            "serving %s: %.4f from the trainer's log-probabilities (at most %g), %.2f from the "
            "base's, %d of %d answers stopped",
            name,
            probed.to_trainer,
            probed.tolerance,
            probed.to_base,
            probed.stopped,
            probed.items,
        )
        return probed

    def dismiss(self, name: str) -> None:
        """Stop serving a student."""
        self._server.unload(name)
        del self.served[name]
        log.info("no longer serving %s", name)

    def follow(self, wanted: Mapping[str, Path]) -> None:
        """Make the roster equal to `wanted`; a refusal is logged once and the rest goes on."""
        self._refused = {n: f for n, f in self._refused.items() if wanted.get(n) == f}
        for name in [n for n, folder in self.served.items() if wanted.get(n) != folder]:
            self.dismiss(name)
        for name, folder in wanted.items():
            if name in self.served or name in self._refused:
                continue
            try:
                self.admit(name, folder)
            except ServingError as error:
                self._refused[name] = folder
                log.error("%s", error)


def registered(lake: Lake, workload: str) -> dict[str, Path]:
    """The folders of the workload's candidate, champion and previous, by served name."""
    aliases = documents.aliases(lake, workload)
    names = {n for n in (aliases.champion, aliases.candidate, aliases.previous) if n}
    if missing := sorted(names - aliases.students.keys()):
        raise LakeError(
            f"control/students/{workload}.json names no folder for {missing[0]!r}; "
            "register it again with `understudy students register`"
        )
    return {name: lake.root / aliases.students[name] for name in sorted(names)}
