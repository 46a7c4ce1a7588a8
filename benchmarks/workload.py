"""The work that these scripts share: documents with entities, and the prompts of all their ordered pairs. No spaCy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spacy_relx.benchmark.documents import Document, Mention, made_up
from spacy_relx.engine.types import LabelIds, Question
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.schema import make_schema, parse_labels

if TYPE_CHECKING:
    from pathlib import Path

    from spacy_relx.prompts import PromptBuilder
    from spacy_relx.schema import Schema

#: Demonstrations, written for these benchmarks; the first two are those of the 2-shot prompts.
EXAMPLES = [
    {"text": "Ada Stone runs Harbor Mills.", "head": "Ada Stone", "tail": "Harbor Mills", "label": "Work_For"},
    {"text": "Oslo is the capital of Norway.", "head": "Oslo", "tail": "Norway", "label": "Located_In"},
    {"text": "Ivo Kern was born in Lyon.", "head": "Ivo Kern", "tail": "Lyon", "label": "Live_In"},
    {"text": "Delta Press is based in Ohio.", "head": "Delta Press", "tail": "Ohio", "label": "OrgBased_In"},
    {"text": "Cleo Hale shot Dan Reyes.", "head": "Cleo Hale", "tail": "Dan Reyes", "label": "Kill"},
    {"text": "Eva Sato saw Quito once.", "head": "Eva Sato", "tail": "Quito", "label": "no_relation"},
    {"text": "Finn Grant directs Orchid Labs.", "head": "Finn Grant", "tail": "Orchid Labs", "label": "Work_For"},
    {"text": "Turin lies in Italy.", "head": "Turin", "tail": "Italy", "label": "Located_In"},
]


def load_documents(conll04: Path | None, limit: int, seed: int = 0) -> list[Document]:
    """The first documents of CoNLL04's test file (TablERT-CNN's form), or made-up ones of the same size."""
    if conll04 is not None:
        return [_conll04_document(row) for row in json.loads(conll04.read_text())[:limit]]
    return made_up(limit, (2, 5), seed=seed)


def questions_of(documents: list[Document], builder: PromptBuilder, n_labels: int) -> list[list[Question]]:
    """One question a pair, by document."""
    everything = tuple(range(n_labels))
    return [
        [Question(builder.prompt(d.text, d.text_of(a), d.text_of(b)), everything) for a, b in d.pairs()]
        for d in documents
    ]


def build_prompts(
    tokenizer: Any, shots: int, n_labels: int | None = None, schema: Schema | None = None
) -> tuple[PromptBuilder, LabelIds]:
    """The prompts that list their labels.

    Args:
        tokenizer: The model's tokenizer.
        shots: Demonstrations.
        n_labels: Take so many of REBEL's labels; None: CoNLL04's five.
        schema: Take these labels.
    """
    if schema is None:
        schema = make_schema("conll04") if n_labels is None else some_labels(n_labels)
    names = [*schema.names, "no_relation"]
    examples = [
        example if example["label"] in names else {**example, "label": names[i % len(names)]}
        for i, example in enumerate(EXAMPLES[:shots])
    ]
    wording = make_gentune_prompt(system="schema", examples=examples)
    builder = wording.bind(tokenizer, schema, "no_relation")
    return builder, builder.label_ids([*(label.prompt for label in schema), "no_relation"])


def some_labels(n_labels: int) -> Schema:
    """The first labels of the largest packaged set, without their descriptions."""
    names = make_schema("rebel").names
    if not 1 <= n_labels <= len(names):
        raise ValueError(f"n_labels is {n_labels}. Expected 1 to {len(names)}.")
    return parse_labels(list(names[:n_labels]))


def _conll04_document(row: dict[str, list[str]]) -> Document:
    mentions: list[Mention] = []
    start = 0
    for i, tag in enumerate(row["tags"]):
        if tag[0] in "BU":
            start = i
        if tag[0] in "UL":
            mentions.append(Mention(start, i + 1, tag[2:]))
    return Document(tuple(row["tokens"]), tuple(mentions))
