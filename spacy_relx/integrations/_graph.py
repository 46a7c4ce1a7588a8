"""Texts to relations, as plain values: what the adapters have in common.

Owns the way of texts through a pipeline, and what is told of where a relation comes from. Mentions are merged by
`merging`, and the classes of other packages are the adapters' business.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import ConfigError, RelxWarning
from spacy_relx.relation import DEFAULT_ATTR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_relx.merging import MergedRelation

FACTORY = "llama_relation_extractor"

# A pipeline is not made for two threads at once, and the asynchronous variants of the adapters run in threads.
_one_at_a_time = threading.Lock()


def extractor_name(nlp: Language) -> str:
    """Name of the pipeline's relation extractor.

    Raises:
        ConfigError: If the pipeline has none.
    """
    for name in getattr(nlp, "pipe_names", ()):
        if nlp.get_pipe_meta(name).factory == FACTORY:
            return str(name)
    raise ConfigError(
        f"nlp is {nlp!r}, which has no relation extractor. Expected a spaCy pipeline with the component {FACTORY}; add "
        "it with nlp.add_pipe, after the components that find entities."
    )


def relations_attr(nlp: Language) -> str:
    """Name of the extension that holds the relations of a pipeline.

    Raises:
        ConfigError: If the pipeline has no relation extractor.
    """
    return str(nlp.get_pipe_config(extractor_name(nlp)).get("attr", DEFAULT_ATTR))


def annotate(nlp: Language, texts: Sequence[str], batch_size: int) -> list[Doc]:
    """Send texts through a pipeline.

    Returns:
        A Doc for each text. One that went to an error handler which let it pass has the text and no annotations.
    """
    docs: dict[int, Doc] = {}
    with _one_at_a_time:
        numbered = ((text, number) for number, text in enumerate(texts))
        for doc, number in nlp.pipe(numbered, as_tuples=True, batch_size=batch_size):
            docs[number] = doc
    failed = [number for number in range(len(texts)) if number not in docs]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(texts)} texts failed in the pipeline, whose error handler let that pass, so no "
            f"relations are known of them; the first is number {failed[0]}.",
            RelxWarning,
            stacklevel=3,
        )
    return [docs[number] if number in docs else nlp.make_doc(text) for number, text in enumerate(texts)]


def provenance(relation: MergedRelation) -> dict[str, Any]:
    """Where a relation stands and how sure it is, as values that every graph store can hold.

    Returns:
        `score`, the best of its places; `count`, how many there are; and of the best one `sentence` and the mentions'
        offsets in the text, in characters, ends exclusive.
    """
    place = relation.evidence[0]
    return {
        "score": relation.score,
        "count": relation.n,
        "sentence": place.text,
        **place.offsets(),
    }
