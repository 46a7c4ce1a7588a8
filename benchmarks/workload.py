"""The work that benchmarks share: documents with entities, and the prompts of all their ordered pairs."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spacy_relx.engine.types import LabelIds, Question
from spacy_relx.prompts import make_gentune_prompt
from spacy_relx.schema import make_schema

if TYPE_CHECKING:
    from pathlib import Path

    from spacy_relx.prompts import PromptBuilder

#: Two demonstrations for the 2-shot prompts, written for this benchmark.
EXAMPLES = [
    {"text": "Ada Stone runs Harbor Mills.", "head": "Ada Stone", "tail": "Harbor Mills", "label": "Work_For"},
    {"text": "Oslo is the capital of Norway.", "head": "Oslo", "tail": "Norway", "label": "Located_In"},
]


@dataclass(frozen=True)
class Document:
    """A text and its entities as they stand in it."""

    text: str
    entities: tuple[str, ...]

    def pairs(self) -> list[tuple[str, str]]:
        """All ordered pairs of two entities."""
        return [(a, b) for i, a in enumerate(self.entities) for j, b in enumerate(self.entities) if i != j]


def load_documents(conll04: Path | None, limit: int, seed: int = 0) -> list[Document]:
    """The first documents of CoNLL04's test file (TablERT-CNN's form), or made-up ones of the same size."""
    if conll04 is not None:
        return [_conll04_document(row) for row in json.loads(conll04.read_text())[:limit]]
    rng = random.Random(seed)
    names = ["Mary Hale", "Tom Reyes", "Acme Steel", "Lisbon", "Northgate Bank", "Ohio", "Ivo Kern", "Delta Press"]
    verbs = ["met", "moved to", "worked at", "wrote about", "joined", "left", "visited", "sued"]
    documents = []
    for _ in range(limit):
        entities = rng.sample(names, rng.choice([2, 3, 4, 5]))
        words = [f"{entity} {rng.choice(verbs)}" for entity in entities[:-1]]
        documents.append(Document("On Monday " + ", then ".join(words) + f" {entities[-1]}.", tuple(entities)))
    return documents


def questions_of(documents: list[Document], builder: PromptBuilder, n_labels: int) -> list[list[Question]]:
    """One question a pair, by document."""
    everything = tuple(range(n_labels))
    return [[Question(builder.prompt(d.text, a, b), everything) for a, b in d.pairs()] for d in documents]


def build_prompts(tokenizer: object, shots: int) -> tuple[PromptBuilder, LabelIds]:
    """The schema-enumerated prompts for CoNLL04's labels, with 0 or 2 demonstrations."""
    schema = make_schema("conll04")
    wording = make_gentune_prompt(system="schema", examples=EXAMPLES[:shots])
    builder = wording.bind(tokenizer, schema, "no_relation")  # type: ignore[arg-type]
    return builder, builder.label_ids([*(label.prompt for label in schema), "no_relation"])


def _conll04_document(row: dict[str, list[str]]) -> Document:
    entities: list[str] = []
    current: list[str] = []
    for token, tag in zip(row["tokens"], row["tags"]):
        if tag[0] in "BU":
            current = [token]
        elif tag[0] in "IL":
            current.append(token)
        if tag[0] in "UL":
            entities.append(" ".join(current))
    return Document(" ".join(row["tokens"]), tuple(entities))
