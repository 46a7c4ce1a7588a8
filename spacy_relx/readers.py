"""Corpus readers that spaCy configs can name."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spacy.tokens import Doc
from spacy.training import Example

from spacy_relx._inputs import read_docbin
from spacy_relx.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spacy.language import Language


def make_docbin_reader(
    path: Path, gold_entities: bool = True, limit: int = 0, skip: int = 0
) -> Callable[[Language], Iterable[Example]]:
    """Create the reader `spacy-relx.DocBin.v1`: Docs with gold relations from a `.spacy` file.

    spaCy's own reader gives the pipeline bare text. Here the predicted Doc keeps the gold entities, span groups and
    sentence boundaries, so that relations can be evaluated between them.

    Args:
        path: The file.
        gold_entities: Whether the predicted Doc has these annotations; otherwise it is the gold tokens alone.
        limit: Most Docs to read; 0: all.
        skip: Docs to leave out at the beginning, so that one file can be cut into training and development data.

    Raises:
        ConfigError: If `limit` or `skip` is negative.
    """
    for name, value in (("limit", limit), ("skip", skip)):
        if value < 0:
            raise ConfigError(f"The reader's {name} is {value}. Expected a whole number of at least 0.")

    def read(nlp: Language) -> Iterable[Example]:
        if not Path(path).is_file():
            raise DataError(f"The corpus {str(path)!r} does not exist. Expected a .spacy file; check the path.")
        stop = skip + limit if limit else None
        for gold in islice(read_docbin(Path(path), nlp.vocab), skip, stop):
            yield example_of(gold, gold_entities=gold_entities)

    return read


def example_of(gold: Doc, *, gold_entities: bool = True) -> Example:
    """Return the gold Doc with a Doc to predict on: with gold entities, span groups and sentences, or tokens alone."""
    if gold_entities:
        predicted = gold.copy()
        predicted.user_data = {}
    else:
        predicted = Doc(gold.vocab, words=[t.text for t in gold], spaces=[bool(t.whitespace_) for t in gold])
    return Example(predicted, gold)
