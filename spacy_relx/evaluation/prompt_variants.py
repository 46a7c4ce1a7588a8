"""Which of the published wordings a model wants: the same pairs, asked in every way.

The adapters' model card, training code and evaluation code differ in system text, cue and decoding; see
`spacy-relx.GenTunePrompt.v1`. This compares them on data of the user's choice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import negative_labels
from spacy_relx.evaluation.run import evaluate
from spacy_relx.prompt_block import SYSTEM_PRESETS, make_gentune_prompt
from spacy_relx.prompts import Example, GenTunePrompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from random import Random

    from spacy.tokens import Doc

    from spacy_relx.evaluation.records import PairRecord, Protocol, RunInfo
    from spacy_relx.pipeline import RelationExtractor
    from spacy_relx.relation import Relation
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
    docs: Iterable[Doc],
    *,
    labels: Sequence[str],
    negative: str | None,
    n: int = N_EXAMPLES,
    attr: str = "relations",
    rng: Random | None = None,
) -> list[Example]:
    """Take demonstrations from training data, each with another label of the schema.

    Args:
        docs: Docs with gold relations.
        labels: Names of the positive labels.
        negative: Name of the negative label; None: only relations are shown.
        n: How many.
        attr: The extension attribute of the gold relations.
        rng: Draws the labels, each as likely, and then a pair of each; None: the first pairs.

    Raises:
        DataError: If there are not enough.
    """
    found: dict[str, Example] = {}
    n_seen: Counter[str] = Counter()
    for label, relation in _shown(docs, labels, negative_labels(negative), negative, attr):
        n_seen[label] += 1
        # With the chance 1/k, the k-th pair takes the place of the one that was kept: every pair is as likely.
        if label not in found or (rng is not None and not rng.randrange(n_seen[label])):
            found[label] = _demonstration(label, relation)
        if rng is None and len(found) == n:
            break
    if len(found) < n:
        raise DataError(
            f"The training data give {len(found)} demonstrations with labels of the schema. Expected {n}, each with "
            "another label."
        )
    return list(found.values()) if rng is None else [found[label] for label in rng.sample(sorted(found), n)]


def _shown(
    docs: Iterable[Doc], labels: Sequence[str], negatives: frozenset[str], negative: str | None, attr: str
) -> Iterator[tuple[str, Relation]]:
    """The relations that may be shown, each under the name that it is shown with."""
    for doc in docs:
        for relation in getattr(doc._, attr):
            if relation.label.lower() in negatives:
                if negative is not None:
                    yield negative, relation
            elif relation.label in labels:
                yield relation.label, relation


def _demonstration(label: str, relation: Relation) -> Example:
    """A relation in the sentences that it is told in."""
    head, tail = relation.head, relation.tail
    doc = head.doc
    start, end = 0, len(doc)
    if doc.has_annotation("SENT_START"):
        first, last = min(head.start, tail.start), max(head.end, tail.end) - 1
        start, end = doc[first].sent.start, doc[last].sent.end
    return Example(doc[start:end].text, head.text, tail.text, label)


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
