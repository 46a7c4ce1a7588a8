"""A baseline from annotated Docs to records: train on some, answer about others."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spacy_relx.baseline import classifier
from spacy_relx.baseline.pairs import read_pairs
from spacy_relx.baseline.train import Recipe, train
from spacy_relx.errors import DataError
from spacy_relx.evaluation.records import PairRecord, RunInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from spacy.tokens import Doc

    from spacy_relx.baseline.classifier import Classifier
    from spacy_relx.candidates import EntityPairs
    from spacy_relx.evaluation.records import Protocol

__all__ = ["DEFAULT_ENCODER", "NEGATIVE", "Baseline", "Recipe", "run_baseline"]

DEFAULT_ENCODER = "FacebookAI/roberta-base"
NEGATIVE = "no_relation"
"""Name of the class of pairs without a relation."""

_N_SCORES = 5
"""Classes that a record keeps, the negative besides."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is trained, on what, and how.

    Attributes:
        encoder: Name on the Hugging Face Hub, or a folder.
        recipe: How it is trained.
        protocol: Which pairs it is trained on and asked about.
        candidates: Enumerates pairs where the protocol asks for all of them; None: both orders inside a sentence.
        revision: Of the encoder on the Hub.
        local_files_only: Never ask the network.
        device: "auto", "cpu", "cuda", …
        folder: Where the trained weights are kept after every epoch, to go on after an interruption; None: nowhere.
    """

    encoder: str = DEFAULT_ENCODER
    recipe: Recipe = field(default_factory=Recipe)
    protocol: Protocol = "given"
    candidates: EntityPairs | None = None
    revision: str | None = None
    local_files_only: bool = False
    device: str = "auto"
    folder: Path | None = None


def run_baseline(
    training: Iterable[Doc],
    testing: Iterable[Doc],
    baseline: Baseline | None = None,
    *,
    dataset: str,
    split: str = "test",
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[RunInfo, list[PairRecord]]:
    """Train a baseline and ask it.

    A training pair with several gold labels is one example for each. Pairs without a label are the class `NEGATIVE`; if
    there are none, that class cannot be answered.

    Args:
        training: Docs with gold entities and relations.
        testing: Others, to be asked about.
        baseline: What is trained.
        dataset: Name of the data set.
        split: Name of the part that is asked about.
        progress: Called with "train" or "test", steps or pairs done, and their number.

    Returns:
        The run and its records, which are scored like any other run's.

    Raises:
        DataError: If there is nothing to train on or to ask, or only one class.
        ConfigError: If a setting cannot be used.
        ModelError: If the encoder cannot be loaded or trained.
    """
    baseline = baseline or Baseline()
    recipe = baseline.recipe
    pairs = list(read_pairs(training, baseline.protocol, candidates=baseline.candidates))
    docs = list(testing)
    asked = list(read_pairs(docs, baseline.protocol, candidates=baseline.candidates))
    examples = [(pair, label) for pair in pairs if pair.enumerated for label in pair.gold or (NEGATIVE,)]
    if not examples or not any(pair.enumerated for pair in asked):
        which = "training" if not examples else "test"
        raise DataError(
            f"The {which} Docs have no pairs to classify under the protocol {baseline.protocol!r}. Expected Docs with "
            "entities and gold relations, such as `convert` writes."
        )
    positive = sorted({label for _, label in examples} - {NEGATIVE})
    classes = [*positive, *([NEGATIVE] if any(label == NEGATIVE for _, label in examples) else [])]
    if len(classes) < 2:
        raise DataError(f"All training pairs are of the class {classes[0]!r}. Expected at least two classes.")
    start = time.perf_counter()
    model = classifier.build(
        classifier.find_encoder(
            baseline.encoder, revision=baseline.revision, local_files_only=baseline.local_files_only
        ),
        classes=classes,
        types=sorted({mention.type for pair, _ in examples for mention in (pair.head, pair.tail)}),
        max_tokens=recipe.max_tokens,
        device=baseline.device,
        seed=recipe.seed,
    )
    rows = [(model.pairs(pair), classes.index(label)) for pair, label in examples]
    n_steps = -(-len(rows) // recipe.batch_size) * recipe.epochs
    losses = train(
        model,
        rows,
        recipe,
        folder=baseline.folder,
        about={
            "encoder": baseline.encoder,
            "revision": baseline.revision,
            "recipe": asdict(recipe),
            "classes": classes,
            "training data": _digest(rows),
        },
        progress=(lambda step, _: progress("train", step, n_steps)) if progress is not None else None,
    )
    trained = time.perf_counter()
    found: list[PairRecord] = []
    n_cut = 0
    for record, cut in answer(model, asked, batch_size=4 * recipe.batch_size):
        n_cut += cut
        found.append(record)
        if progress is not None:
            progress("test", len(found), len(asked))
    unknown = Counter(label for pair in asked for label in pair.gold if label not in positive)
    info = RunInfo(
        dataset=dataset,
        split=split,
        protocol=baseline.protocol,
        labels=tuple(positive),
        negative=NEGATIVE if NEGATIVE in classes else None,
        settings={
            "system": "typed entity markers and a classification head",
            "encoder": baseline.encoder,
            "revision": baseline.revision,
            "recipe": asdict(recipe),
            "device": str(model.device),
        },
        counts={
            "n_docs": len(docs),
            "n_asked": sum(pair.enumerated for pair in asked),
            "n_gold": sum(len(pair.gold) for pair in asked),
            "n_not_enumerated": sum(not pair.enumerated for pair in asked),
            "n_cut": n_cut,
            "n_training": len(rows),
            "n_training_cut": sum(row.n_cut > 0 for row, _ in rows),
            "losses": [round(loss, 6) for loss in losses],
            "seconds_training": round(trained - start, 3),
            "seconds": round(time.perf_counter() - trained, 3),
            **({"gold_labels_not_trained": dict(unknown.most_common())} if unknown else {}),
        },
    )
    return info, found


def answer(model: Classifier, pairs: Sequence[PairRecord], *, batch_size: int) -> Iterator[tuple[PairRecord, bool]]:
    """Yield each pair with its answer, and whether some of its text had to be left out.

    Pairs that were never candidates come without an answer.
    """
    import torch

    model.train(False)
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        rows = [model.pairs(pair) for pair in batch if pair.enumerated]
        with torch.inference_mode():
            # Shape: (asked pairs of the batch, classes)
            scores = iter(model.logits(rows).softmax(-1).tolist() if rows else [])
        encoded = iter(rows)
        for pair in batch:
            if pair.enumerated:
                yield _answered(pair, model.classes, next(scores)), next(encoded).n_cut > 0
            else:
                yield pair, False


def _answered(pair: PairRecord, classes: Sequence[str], scores: Sequence[float]) -> PairRecord:
    # Two equal scores: the class that comes first, as everywhere.
    ranked = sorted(zip(classes, scores), key=lambda item: -item[1])
    kept = ranked[:_N_SCORES] + [item for item in ranked[_N_SCORES:] if item[0] == NEGATIVE]
    best = ranked[0][0]
    return replace(pair, scores=tuple(kept), answer=None if best == NEGATIVE else best)


def _digest(rows: Sequence[tuple[Any, int]]) -> str:
    """Tell one set of training pairs from another."""
    digest = hashlib.sha256()
    for row, target in rows:
        digest.update(json.dumps((row.ids, row.head_at, row.tail_at, target)).encode())
    return digest.hexdigest()
