"""Corpus readers that spaCy configs can name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spacy.tokens import DocBin
from spacy.training import Example

from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spacy.language import Language


def make_docbin_reader(
    path: Path, gold_entities: bool = True, limit: int = 0
) -> Callable[[Language], Iterable[Example]]:
    """Create the reader `spacy-relx.DocBin.v1`: Docs with gold relations from a `.spacy` file.

    spaCy's own reader gives the pipeline bare text. Here the predicted Doc keeps the gold entities and sentence
    boundaries, so that relations can be evaluated between them.

    Args:
        path: The file.
        gold_entities: Whether the predicted Doc has the gold entities.
        limit: Most Docs to read; 0: all.
    """

    def read(nlp: Language) -> Iterable[Example]:
        if not Path(path).is_file():
            raise DataError(f"The corpus {str(path)!r} does not exist. Expected a .spacy file; check the path.")
        for i, gold in enumerate(DocBin().from_disk(path).get_docs(nlp.vocab)):
            if limit and i >= limit:
                return
            predicted = nlp.make_doc(gold.text)
            if gold_entities or [t.text for t in predicted] != [t.text for t in gold]:
                predicted = gold.copy()
                predicted.user_data = {}
                if not gold_entities:
                    predicted.set_ents([])
            yield Example(predicted, gold)

    return read
