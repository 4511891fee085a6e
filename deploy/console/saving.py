"""What moving traffic to students saves, and how much was moved. Pure."""

from typing import NamedTuple

from deploy.console.traffic import Arm


class Saving(NamedTuple):
    """What the student's answers would have cost at the teacher, and what they did cost.

    `own` are all calls to the student and those to the teacher that no client saw; None if the
    student has no price. Over one window.
    """

    avoided: float | None
    own: float | None

    @property
    def net(self) -> float | None:
        """What was saved; None where one side is unknown."""
        return None if self.avoided is None or self.own is None else self.avoided - self.own


def measured(arms: dict[str, Arm]) -> float | None:
    """Share of the answers that came from the student; None without any."""
    total = sum(arm.served for arm in arms.values())
    return arms["student"].served / total if "student" in arms and total else 0.0 if total else None


def saving(arms: dict[str, Arm]) -> Saving:
    """Teacher cost avoided, and the cost of having the student, within the window."""
    teacher, student = arms.get("teacher"), arms.get("student")
    if student is None:
        return Saving(0.0, 0.0)
    known = teacher is not None and teacher.priced > 0 and teacher.cost_usd is not None
    if teacher is None or not known or teacher.cost_usd is None:
        return Saving(None, None)
    avoided = student.served * teacher.cost_usd / teacher.priced
    if student.cost_usd is None:
        return Saving(avoided, None)
    return Saving(avoided, student.cost_usd + teacher.cost_usd - (teacher.served_cost_usd or 0.0))
