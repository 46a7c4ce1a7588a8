"""Readers and settings under bytes that nobody meant for them: the seeds, and a few mutations of each.

`make fuzz` goes on for as long as one likes, with a fuzzer that looks for new paths through the code.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from spacy_relx.errors import RelxError

sys.path.insert(0, str(Path(__file__).parent))
from targets import COMMON, TARGETS, Target, mutate

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


@pytest.mark.parametrize(
    ("name", "seed", "message"),
    [
        ("gguf", "huge_array.gguf", r"truncated or damaged: its header cannot be read \(a list of \d+ bytes, where 64"),
        ("gguf", "huge_counts.gguf", "truncated or damaged"),
        ("gguf", "huge_string.gguf", r"a string of 4611686018427387904 bytes, where 64 are left"),
        ("gguf", "nested_arrays.gguf", "a value of the type 9"),
        ("adapter", "rank_pattern_no_regex.json", r"pattern '\(', which is no regular expression"),
        ("adapter", "threshold.json", r"threshold 7\.5\. Expected a number in 0\.\.1"),
        ("base_config", "map_is_a_list.json", "weight_map that is no JSON object"),
        ("base_config", "traversal.json", r"names '\.\./part-1\.safetensors'"),
        ("safetensors", "negative_offset", "damaged safetensors header"),
        ("safetensors", "odd_size", r"3 bytes for a tensor of the type F32 and the shape \[1\]"),
        ("schema", "common deep", "is not JSON: it is nested too deeply"),
        ("schema", "nan.json", "threshold is nan"),
        ("corpus_docbin", "truncated.spacy", "is not a DocBin"),
        ("component_config", "latin1.cfg", "is not UTF-8"),
        ("component_config", "section_twice.cfg", "is not a config in spaCy's format"),
        ("progress", "list.json", "cannot be read: it has no usable 'input'"),
    ],
)
def test_messages(name: str, seed: str, message: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    path = tmp_path / f"input{target.suffix}"
    path.write_bytes(target.seeds[seed])
    with pytest.raises(RelxError, match=message):
        target.read(path)


def test_what_a_broken_row_costs(tmp_path: Path) -> None:
    """Lines of the input that cannot be read are documents with an error; none is lost, and no other is."""
    from targets import _blank

    from spacy_relx._inputs import Source

    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + COMMON["deep"] + b"\n" + b"9" * 5000 + b'\n\xff\n{"text": "b"}\n')
    records = list(Source(str(path)).read(_blank().vocab))
    assert [record.text for record in records] == ["a", "", "", "", "b"]
    assert [record.error is None for record in records] == [True, False, False, False, True]
