"""Readers and settings under bytes that nobody meant for them: the seeds, and a few mutations of each.

`make fuzz` goes on for as long as one likes, with a fuzzer that looks for new paths through the code.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from targets import TARGETS, Target, mutate

N_MUTATIONS = 12


@pytest.fixture(params=TARGETS.values(), ids=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


def test_seeds_give_a_clear_error_or_none(target: Target, tmp_path: Path) -> None:
    accepted = {name for name, data in target.seeds.items() if target(data, tmp_path)}
    # A target that refuses what it should take tests nothing.
    assert {name for name in target.seeds if name.startswith("good") or name in target.examples} <= accepted
    assert accepted


def test_mutations_give_a_clear_error_or_none(target: Target, tmp_path: Path) -> None:
    """The same mutations at every run: a failure can be looked into, and `make fuzz` draws others."""
    rng = random.Random(target.name)
    own = [data for name, data in target.seeds.items() if not name.startswith("common ")]
    for _ in range(N_MUTATIONS):
        target(mutate(target, rng.choice(own), rng), tmp_path)
