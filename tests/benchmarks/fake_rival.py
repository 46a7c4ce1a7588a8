"""A rival that does as its task says, for the tests of the way there and back. Standard library only."""

import os
from dataclasses import dataclass, field

ABOUT = "a fake"
REQUIREMENTS: list[str] = []


@dataclass
class Rival:
    task: dict
    unit: str = "pairs"
    facts: dict = field(default_factory=dict)

    @property
    def n_units(self) -> int:
        return len(self.task["prompts"])

    def run(self) -> None:
        print("libraries print what they like, here too")
        if self.task.get("fails") == "run":
            raise ValueError("nothing works")
        if self.task.get("fails") == "die":
            os._exit(3)


def prepare(task: dict) -> Rival:
    if task.get("fails") == "prepare":
        raise ImportError("no module named anything")
    return Rival(task, facts={"threads": os.environ["OMP_NUM_THREADS"]})
