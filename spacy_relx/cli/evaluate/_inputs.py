"""What the commands of `evaluate` are given: settings from their options, annotated documents, thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from spacy_relx.cli._pipeline import component_settings
from spacy_relx.cli.evaluate._options import ProtocolName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from spacy.tokens import Doc, DocBin
    from spacy.vocab import Vocab

    from spacy_relx.evaluation.metrics import Decision


def settings_for(
    labels: str | None,
    model_preset: str | None,
    config: Path | None,
    no_relation: str | None,
    protocol: ProtocolName,
    pipeline: str | None,
) -> dict[str, Any]:
    """The component's settings; a pipeline that has the component keeps its own."""
    from spacy_relx.schema import Schema, make_schema, parse_labels

    settings = component_settings(labels, None, model_preset, config)
    if no_relation is not None:
        settings["no_relation"] = None if no_relation == "null" else no_relation
    elif "no_relation" not in settings and (settings or pipeline is None):
        chosen = settings.get("labels")
        if isinstance(chosen, dict) and "@misc" in chosen:
            schema: Any = make_schema(**{key: value for key, value in chosen.items() if key != "@misc"})
        else:
            schema = parse_labels(chosen)
        own = schema.no_relation if isinstance(schema, Schema) else None
        if own is not None:
            settings["no_relation"] = own
        elif protocol is ProtocolName.GIVEN:
            settings["no_relation"] = None
    return settings


@dataclass(frozen=True)
class GoldDocs:
    """Docs of a DocBin, made anew each time they are gone through, so that no more than a few are in memory."""

    bin: DocBin
    vocab: Vocab
    limit: int

    def __len__(self) -> int:
        return min(len(self.bin), self.limit) if self.limit else len(self.bin)

    def __iter__(self) -> Iterator[Doc]:
        return islice(self.bin.get_docs(self.vocab), len(self))


def read_docs(path: Path, vocab: Vocab, limit: int = 0) -> GoldDocs:
    """Docs with gold relations; `limit` 0 means all.

    Raises:
        DataError: If there is no such file, or nothing in it has a relation.
    """
    from spacy_relx import relation
    from spacy_relx._inputs import load_docbin
    from spacy_relx.errors import DataError

    if not path.is_file():
        raise DataError(f"{str(path)!r} does not exist. Expected a .spacy file with gold relations.")
    relation.register()
    docs = GoldDocs(load_docbin(path), vocab, limit)
    if not any(doc._.relations for doc in docs):
        raise DataError(f"{str(path)!r} has no gold relations in {len(docs)} documents. Expected some.")
    return docs


def read_entity_types(pairs: Iterable[str]) -> dict[str, str]:
    """Read PREDICTED=GOLD names of entity types.

    Raises:
        DataError: If one is not of that form.
    """
    from spacy_relx.errors import DataError

    names = {}
    for pair in pairs:
        predicted, found, gold = (part.strip() for part in pair.partition("="))
        if not (predicted and found and gold):
            raise DataError(f"--entity-type is {pair!r}. Expected PREDICTED=GOLD, such as PERSON=Peop.")
        names[predicted] = gold
    return names


def decision_of(threshold: float, file: Path | None, negative: str | None) -> Decision:
    """Thresholds: one for all labels, or those of a file.

    Raises:
        DataError: If the file holds no thresholds.
    """
    from spacy_relx.evaluation.metrics import Decision
    from spacy_relx.evaluation.thresholds import StoredThresholds

    if file is None:
        return Decision(threshold, negative=negative)
    found = StoredThresholds.read(file)
    return Decision(threshold if found.threshold is None else found.threshold, found.labels, negative)
