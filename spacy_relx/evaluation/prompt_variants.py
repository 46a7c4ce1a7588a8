"""Which of the published wordings a model wants: the same pairs, asked in every way.

The adapters' model card, training code and evaluation code differ in system text, cue and decoding; see
`spacy-relx.GenTunePrompt.v1`. This compares them on data of the user's choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import negative_labels
from spacy_relx.evaluation.run import evaluate
from spacy_relx.prompts import SYSTEM_PRESETS, Example, GenTunePrompt, make_gentune_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from spacy.tokens import Doc

    from spacy_relx.evaluation.records import PairRecord, Protocol, RunInfo
    from spacy_relx.pipeline import RelationExtractor
    from spacy_relx.settings import Decoding

CUES = ("Relation:", "Answer:")
DECODINGS: tuple[Decoding, ...] = ("constrained", "free")
N_EXAMPLES = 2


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to ask.

    Attributes:
        system: One of the named system texts.
        cue: Last words of a user turn.
        n_examples: Demonstrations.
        decoding: "constrained" or "free".
    """

    system: str
    cue: str
    n_examples: int
    decoding: Decoding

    def prompt(self, base: GenTunePrompt, examples: Sequence[Example]) -> GenTunePrompt:
        """Return the wording, with what the variant does not name as in `base`."""
        system = make_gentune_prompt(system=self.system).system
        return replace(base, system=system, cue=self.cue, examples=tuple(examples[: self.n_examples]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"system": self.system, "cue": self.cue, "n_examples": self.n_examples, "decoding": self.decoding}


def variants(
    *,
    systems: Sequence[str] = SYSTEM_PRESETS,
    cues: Sequence[str] = CUES,
    n_examples: Sequence[int] = (0, N_EXAMPLES),
    decodings: Sequence[Decoding] = DECODINGS,
) -> list[Variant]:
    """Every combination, in a fixed order."""
    return [Variant(*values) for values in product(systems, cues, n_examples, decodings)]


def choose_examples(
    docs: Iterable[Doc], *, labels: Sequence[str], negative: str | None, n: int = N_EXAMPLES, attr: str = "relations"
) -> list[Example]:
    """Take demonstrations from training data: the first pairs, each with another label of the schema.

    Raises:
        DataError: If there are not enough.
    """
    found: dict[str, Example] = {}
    negatives = negative_labels(negative)
    for doc in docs:
        for relation in getattr(doc._, attr):
            label = relation.label
            if label.lower() in negatives:
                if negative is None:
                    continue
                label = negative
            elif label not in labels:
                continue
            head, tail = relation.head, relation.tail
            start, end = min(head.start, tail.start), max(head.end, tail.end)
            if doc.has_annotation("SENT_START"):
                start, end = doc[start].sent.start, doc[end - 1].sent.end
            else:
                start, end = 0, len(doc)
            if label not in found:
                found[label] = Example(doc[start:end].text, head.text, tail.text, label)
            if len(found) == n:
                return list(found.values())
    raise DataError(
        f"The training data give {len(found)} demonstrations with labels of the schema. Expected {n}, each with "
        "another label."
    )


def compare_variants(
    component: RelationExtractor,
    docs: Sequence[Doc],
    asked: Sequence[Variant],
    *,
    protocol: Protocol = "given",
    examples: Sequence[Example] = (),
    dataset: str,
    split: str,
    use_types: bool | None = None,
) -> Iterator[tuple[Variant, RunInfo, list[PairRecord]]]:
    """Ask about the same Docs in several ways; the model is loaded once.

    Args:
        component: Brings the model, the labels, and what the variants do not name.
        docs: Docs with gold relations.
        asked: The variants.
        protocol: Which pairs are asked about; not `predicted_entities`, which needs a pipeline.
        examples: Demonstrations, at least as many as a variant has.
        dataset: Name of the data set.
        split: "dev", "test", …
        use_types: As in `run.evaluate`.

    Yields:
        Each variant with its run and records.

    Raises:
        DataError: If a variant has more demonstrations than there are.
    """
    lacking = max((variant.n_examples for variant in asked), default=0)
    if lacking > len(examples):
        raise DataError(f"A variant has {lacking} demonstrations, and {len(examples)} are given. Give the others too.")
    for variant in asked:
        changed = component.with_settings(
            prompt=variant.prompt(component.settings.prompt, examples), decoding=variant.decoding
        )
        info, records = evaluate(
            changed,
            docs,
            protocol,
            dataset=dataset,
            split=split,
            use_types=use_types,
            settings={"variant": variant.to_dict()},
        )
        yield variant, info, list(records)
