"""Memory that is freed and asked for again is not fetched from the kernel again."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import torch
from spacy_relx.engine.allocator import keep_freed_memory

SIZE = 12_000_000  # 48 MB: more than glibc ever learns to keep by itself

is_set = keep_freed_memory() if sys.argv[1] == "keep" else None

def layer():
    kept = torch.ones(SIZE)
    for _ in range(8):
        kept = kept + torch.ones(SIZE)

layer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    layer()
print(is_set, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str, **environment: str) -> tuple[str, int]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    program = [sys.executable, "-c", _PROGRAM, how]
    done = subprocess.run(program, env=variables | environment, capture_output=True, text=True, check=True)
    is_set, faults = done.stdout.split()
    return is_set, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_pages_stay_with_the_process() -> None:
    _, given_back = _faults("leave")
    is_set, kept = _faults("keep")
    if is_set == "False":
        pytest.skip("this C library is not glibc")
    assert kept < given_back / 10


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_the_environment_has_the_last_word() -> None:
    assert _faults("keep", MALLOC_ARENA_MAX="2")[0] == "False"
