"""Which side a row is on: a stable hash of its group, so that it never changes side.

Shares may be changed only by rebuilding; with the same shares a group stays where it was, however
much the log grows. The order on the circle is test, validation, train, so that a larger test share
moves rows into the test set and none out of it.
"""

import hashlib
from typing import Literal, NamedTuple

from understudy.errors import DatasetError

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


class Shares(NamedTuple):
    """Shares of the groups that are held out."""

    validation: float = 0.1
    test: float = 0.2

    def checked(self) -> "Shares":
        """Itself, if both are shares and something is left to train on."""
        if min(self) < 0 or sum(self) >= 1:
            raise DatasetError(
                f"validation {self.validation:g} and test {self.test:g} leave nothing to train on; "
                "their sum must be under 1"
            )
        return self


def side_of(workload: str, group: str, shares: Shares) -> Side:
    """The side of a group of the workload."""
    position = _position(workload, group)
    if position < shares.test:
        return "test"
    return "validation" if position < shares.test + shares.validation else "train"


def _position(workload: str, group: str) -> float:
    """Uniform in [0, 1): 53 bits of a hash."""
    digest = hashlib.sha256(f"{workload}\0{group}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
