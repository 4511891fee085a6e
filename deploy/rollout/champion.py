"""The champion alias as rollouts move it, in the lake's mirror document only.

`understudy students` brings the MLflow registry in line with that document.
"""

import msgspec

from understudy import documents
from understudy.documents import RolloutEvent
from understudy.lake import Lake


def crown(lake: Lake, event: RolloutEvent) -> None:
    """The student of a finished rollout becomes champion, the champion previous; repeatable.

    To be called before the event is written: who dies between the two does both again.
    """
    aliases = documents.aliases(lake, event.workload)
    if aliases.champion != event.student:
        crowned = msgspec.structs.replace(
            aliases, champion=event.student, previous=aliases.champion
        )
        documents.write_aliases(lake, event.workload, crowned)


def restore(lake: Lake, event: RolloutEvent) -> None:
    """A student that was rolled back is no champion: the one before it is again; repeatable."""
    aliases = documents.aliases(lake, event.workload)
    if event.state == "rolled_back" and aliases.champion == event.student:
        restored = msgspec.structs.replace(aliases, champion=event.previous_champion, previous=None)
        documents.write_aliases(lake, event.workload, restored)
