"""Where datasets lie in the lake: `datasets/<workload>/<hash>/`, each with a `manifest.json`.

Trainer and evaluator take the newest one when none is named; what is in it is the trainer's.
"""

import json
from pathlib import Path

from understudy.errors import DatasetError


def newest(lake: Path, workload: str) -> Path:
    """The folder of the workload's dataset that was built last; DatasetError if there is none."""
    found = [
        (json.loads(manifest.read_bytes()).get("created_at", ""), manifest.parent)
        for manifest in (lake / "datasets" / workload).glob("*/manifest.json")
    ]
    if not found:
        raise DatasetError(
            f"no dataset of {workload!r} in {lake}; make one with "
            f"`understudy dataset build --workload {workload}`"
        )
    return max(found)[1]
