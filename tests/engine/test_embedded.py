"""Exactness on the embedded model itself, with real prompts, labels and tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from spacy_relx.engine.loading import load_model
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
from spacy_relx.engine.types import LabelIds, Question
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.schema import parse_labels

from .compare import assert_exact

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model

SENTENCES = {
    "Ada Stone, who founded Harbor Mills in Leeds, hired Tom Reyes in 1998.": ("Ada Stone", "Harbor Mills", "Leeds"),
    "Oslo and Bergen are cities in Norway.": ("Oslo", "Norway"),
}
#: `works for` begins another label, `founded by` and `founder of` share a first token, and one label is unusual.
LABELS = ["founded by", "founder of", "works for", "works for the company of", "located in", "Ünïcode-läbel"]


@pytest.fixture(scope="module")
def loaded(embedded_base: Path) -> Any:
    return load_model(ModelSpec(EMBEDDED_BASE, dtype="float32", device="cpu"))


def real_questions(loaded: Any) -> tuple[list[Question], LabelIds]:
    schema = parse_labels(LABELS)
    builder = make_gentune_prompt(system="generic").bind(loaded.tokenizer, schema, "no_relation")
    everything = tuple(range(len(LABELS) + 1))
    pairs = [(s, a, b) for s, names in SENTENCES.items() for a in names for b in names if a != b]
    asked = [Question(builder.prompt(*pair), everything) for pair in pairs]
    return asked, builder.label_ids([*LABELS, "no_relation"])


@pytest.mark.parametrize("scoring", ["trie", "sequence"])
def test_real_prompts_are_answered_exactly(loaded: Any, scoring: Any) -> None:
    asked, labels = real_questions(loaded)
    asked = asked[::2]  # the reference computes each of the seven labels of a pair alone
    oracle = ReferenceEngine(loaded).rank(asked, labels, top_k=len(labels), scoring=scoring)
    for top_k in (1, 3, len(labels)):
        got = PackedEngine(loaded).rank(asked, labels, top_k=top_k, scoring=scoring)
        assert_exact(asked, got, oracle, top_k)


def test_real_prompts_are_continued_exactly(loaded: Any) -> None:
    asked, _ = real_questions(loaded)
    prompts = [question.prompt for question in asked[::2]]
    stop = frozenset({loaded.tokenizer.eos_token_id})
    got = PackedEngine(loaded).decode(prompts, stop_ids=stop)
    oracle = ReferenceEngine(loaded).decode(prompts, stop_ids=stop)
    assert [answer.ids for answer in got] == [answer.ids for answer in oracle]
    assert [answer.log_prob for answer in got] == pytest.approx([answer.log_prob for answer in oracle], abs=1e-3)


def test_a_pack_computes_a_fraction_of_the_tokens(loaded: Any) -> None:
    asked, labels = real_questions(loaded)
    engine = PackedEngine(loaded)
    engine.rank(asked, labels)
    assert engine.work.n_tokens < engine.work.n_prompt_tokens / 3


def test_a_4_bit_base_is_answered_exactly_too(embedded_base: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes, which is in the extra `gpu`")
    loaded = load_model(ModelSpec(EMBEDDED_BASE, quantization="nf4", dtype="float32", device="cpu"))
    asked, labels = real_questions(loaded)
    asked = asked[:2]
    oracle = ReferenceEngine(loaded).rank(asked, labels, top_k=len(labels))
    assert_exact(asked, PackedEngine(loaded).rank(asked, labels, top_k=3), oracle, 3)
