"""The published way of asking, to the letter: what it sets, and where each of its values comes from.

System text that lists the labels, which are the sorted gold labels of the split; two demonstrations; the cue
"Answer:"; free, greedy answers of at most 64 tokens, compared as `counts.normalise_answer` says. Given pairs, whatever
their types.
Owns these values. Asking is in `run`, and a run that was asked so is kept apart by `RunInfo.way`.

Source: the evaluation of arXiv:2606.22606. How its demonstrations were chosen is not published; here they are drawn.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import NEGATIVE_LABELS
from spacy_relx.evaluation.prompt_variants import N_EXAMPLES, Variant, choose_examples
from spacy_relx.label import Label
from spacy_relx.relation import DEFAULT_ATTR
from spacy_relx.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy.tokens import Doc

    from spacy_relx.pipeline import RelationExtractor

WAY = Variant("schema", "Answer:", N_EXAMPLES, "free")
MAX_NEW_TOKENS = 64


def as_published(
    component: RelationExtractor,
    docs: Iterable[Doc],
    demonstrations: Iterable[Doc],
    *,
    seed: int = 0,
    attr: str = DEFAULT_ATTR,
) -> RelationExtractor:
    """Return a component that shares the model and asks in the published way.

    Its user turn and the variables of the chat template stay as they are: neither is published.

    Args:
        component: Brings the model.
        docs: Every Doc of the split, also where fewer are asked about: their gold labels are the labels.
        demonstrations: Other Docs with gold relations, from which the demonstrations are drawn.
        seed: Of the draw.
        attr: The extension attribute of the gold relations.

    Raises:
        DataError: If there are no gold labels, or not enough demonstrations.
    """
    schema = gold_schema(docs, attr=attr)
    shots = choose_examples(
        demonstrations, labels=schema.names, negative=schema.no_relation, n=WAY.n_examples, attr=attr, rng=Random(seed)
    )
    prompt = replace(WAY.prompt(component.settings.prompt, shots), descriptions=False, max_new_tokens=MAX_NEW_TOKENS)
    return component.with_settings(schema=schema, prompt=prompt, decoding=WAY.decoding, no_relation=schema.no_relation)


def gold_schema(docs: Iterable[Doc], *, attr: str = DEFAULT_ATTR) -> Schema:
    """Return the labels that some Docs are annotated with, sorted, under the names that the data give them.

    The first of the negative ones (`Other`, `NA`, …), if any, is the schema's negative.

    Raises:
        DataError: If there is no relation.
    """
    names = sorted({relation.label for doc in docs for relation in getattr(doc._, attr)})
    negative = next((name for name in names if name.lower() in NEGATIVE_LABELS), None)
    labels = tuple(Label(name, name) for name in names if name != negative)
    if not labels:
        raise DataError("The Docs have no gold relations, so there are no labels to list. Expected annotated Docs.")
    return Schema(labels, "gold labels", no_relation=negative)
