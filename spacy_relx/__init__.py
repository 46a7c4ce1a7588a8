"""Typed, scored relations between the entities of a spaCy Doc, found by a small language model on your own machine.

Importing this package registers `Doc._.relations`, `Doc._.triples` and `Span._.relations`, which is all that is needed
to read a DocBin that holds relations. It imports no torch.
"""

from importlib.util import find_spec as _find_spec

from spacy_relx.errors import (
    AdapterMismatchError,
    ChecksumError,
    ConfigError,
    DataError,
    ExtensionError,
    ModelError,
    ModelNotFoundError,
    OutputError,
    PackBudgetError,
    PromptError,
    RelxError,
    RelxWarning,
    SchemaError,
    ServerError,
    TrainingError,
    UnsafeCheckpointError,
)

__version__ = "0.1.0"

__all__ = [
    "AdapterMismatchError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "ExtensionError",
    "ModelError",
    "ModelNotFoundError",
    "OutputError",
    "PackBudgetError",
    "PromptError",
    "RelxError",
    "RelxWarning",
    "SchemaError",
    "ServerError",
    "TrainingError",
    "UnsafeCheckpointError",
    "__version__",
]


def _has_spacy() -> bool:
    try:
        return _find_spec("spacy") is not None
    except (ImportError, ValueError):  # it is there and may not be imported
        return False


# The engine and the training core run on machines without spaCy; everything that reads a Doc needs it.
if _has_spacy():
    from spacy_relx._register import Relation, RelationAnswer, as_doc, merge_docs

    __all__ += ["Relation", "RelationAnswer", "as_doc", "merge_docs"]
