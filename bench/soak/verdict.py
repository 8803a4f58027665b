"""What a trial found."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trial:
    """The outcome of one trial.

    Args:
        name: of the trial.
        summary: figures in one line.
        figures: all of them, JSON-able.
        problems: what went against the promise; none: it passed.
    """

    name: str
    summary: str
    figures: dict[str, Any]
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Nothing went against the promise."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """All fields and the verdict, JSON-able."""
        return {**dataclasses.asdict(self), "passed": self.passed}
