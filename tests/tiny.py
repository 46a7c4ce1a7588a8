"""A tiny random Llama with a real tokenizer, a scripted engine, and pipelines around them."""

from __future__ import annotations

import json
import math
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import spacy
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from spacy_relx.engine.adapter import METADATA_KEY
from spacy_relx.engine.types import DEFAULT_NEW_TOKENS, FreeAnswer, LabelScore, Ranking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spacy.language import Language

    from spacy_relx.engine.types import LabelIds, Prompt, Question

FACTORY = "llama_relation_extractor"
TEXT = "Steve Jobs co-founded Apple in Cupertino. Ada Lovelace never worked for Apple."
MENTIONS = {"Steve Jobs": "PERSON", "Ada Lovelace": "PERSON", "Apple": "ORG", "Cupertino": "GPE"}
# Patterns of tokens: those of texts are lost when spaCy's entity ruler is loaded from bytes.
PATTERNS = [{"label": label, "pattern": [{"ORTH": word} for word in text.split()]} for text, label in MENTIONS.items()]
LABELS: dict[str, Any] = {
    "founded_by": {"head": ["ORG"], "tail": ["PERSON"]},
    "headquartered_in": {"head": ["ORG"], "tail": ["GPE"]},
    "works_for": {"head": ["PERSON"], "tail": ["ORG"]},
    "member_of": {"head": ["PERSON"], "tail": ["ORG"]},
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def build_base(folder: Path, tokenizer_folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Save a Llama of two layers with random weights and the tokenizer of another model."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 49152,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "initializer_range": 0.4,
    }
    config = LlamaConfig(**settings | changes)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer_folder / name, folder / name)
    return folder


def build_adapter(folder: Path, *, seed: int = 1, metadata: dict[str, Any] | None = None) -> Path:
    """Save a random LoRA adapter on the query projections of a base that `build_base` made."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for layer in range(2):
        for part, shape in (("A", (4, 32)), ("B", (32, 4))):
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight"
            state[name] = torch.randn(shape, generator=random)
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header = None if metadata is None else {METADATA_KEY: json.dumps(metadata), "format": "pt"}
    save_file(state, folder / "adapter_model.safetensors", metadata=header)
    return folder


def model_block(base: Path, **settings: Any) -> dict[str, Any]:
    block = {"@architectures": "spacy-relx.CausalLM.v1", "base": str(base), "dtype": "float32", "device": "cpu"}
    return block | settings


def pipeline(base: Path | str = "nowhere/at-all", *, sentences: bool = True, **config: Any) -> Language:
    """English with entities by pattern, and a relation extractor; nothing is loaded."""
    nlp = spacy.blank("en")
    if sentences:
        nlp.add_pipe("sentencizer")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
    defaults = {"model": model_block(base), "labels": LABELS, "no_relation": None, "threshold": 0.0}
    nlp.add_pipe(FACTORY, config=defaults | config)
    return nlp


def rows(doc: Any, attr: str = "relations") -> list[list[Any]]:
    """Everything a relation says, as JSON holds it."""
    return [
        [r.head.start, r.head.end, r.head.label_, r.tail.start, r.tail.end, r.tail.label_, r.label, r.score]
        for r in getattr(doc._, attr)
    ]


class ScriptedEngine:
    """Answers as it was told, by the texts of the two mentions.

    Args:
        tokenizer: The tokenizer by which the prompts are read.
        script: (head text, tail text) -> label -> score, or -> (free text, score); an exception is raised.
        device: What it says it runs on.
        metadata: What the adapter's metadata say.
    """

    def __init__(
        self,
        tokenizer: Any,
        script: Mapping[tuple[str, str], Any] | Callable[[str, str], Any],
        *,
        device: str = "cpu",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.loaded = SimpleNamespace(
            tokenizer=tokenizer, adapter_info={"metadata": metadata} if metadata is not None else {}
        )
        self.device = torch.device(device)
        self.max_pack_tokens = 8192
        self.script = script if callable(script) else lambda head, tail: script.get((head, tail), {})
        self.calls: list[list[tuple[str, str]]] = []
        self.prompts: list[str] = []
        self.ids: list[tuple[int, ...]] = []

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs that were asked about."""
        return [pair for call in self.calls for pair in call]

    def _read(self, prompts: Sequence[Prompt]) -> list[tuple[str, str]]:
        texts = [self.tokenizer.decode(list(prompt.ids)) for prompt in prompts]
        self.prompts += texts
        self.ids += [prompt.ids for prompt in prompts]
        found = []
        for text in texts:
            lines = text[text.rindex("Entity 1: ") :].splitlines()
            found.append((lines[0].removeprefix("Entity 1: "), lines[1].removeprefix("Entity 2: ")))
        self.calls.append(found)
        return found

    def _answer(self, pair: tuple[str, str]) -> Any:
        answer = self.script(*pair)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def rank(
        self, questions: Sequence[Question], labels: LabelIds, *, top_k: int = 1, scoring: str = "trie"
    ) -> list[Ranking]:
        names = [self.tokenizer.decode(list(ids)) for ids in labels.sequences]
        results = []
        for question, pair in zip(questions, self._read([question.prompt for question in questions])):
            scores = self._answer(pair)
            ranked = sorted(question.allowed, key=lambda i: (-scores.get(names[i], 0.0), i))
            results.append(Ranking(tuple(LabelScore(i, math.log(scores.get(names[i], 1e-9))) for i in ranked[:top_k])))
        return results

    def decode(
        self, prompts: Sequence[Prompt], *, stop_ids: frozenset[int], max_new_tokens: int = DEFAULT_NEW_TOKENS
    ) -> list[FreeAnswer]:
        results = []
        for pair in self._read(prompts):
            text, score = self._answer(pair) or ("no_relation", 1.0)
            ids = tuple(self.tokenizer.encode(text))
            results.append(FreeAnswer(ids[:max_new_tokens], math.log(score), len(ids) < max_new_tokens))
        return results


def scripted(nlp: Language, engine: ScriptedEngine) -> ScriptedEngine:
    """Put a scripted engine into the relation extractor of a pipeline."""
    nlp.get_pipe(FACTORY)._shim._engine = engine
    return engine


def load_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
