"""The exceptions of spacy-relx.

Every message names the value, says what was expected, and tells what to do next. All of them derive from
`RelxError`, so that one `except` clause catches whatever this package raises on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class RelxError(Exception):
    """Base class of every error that spacy-relx raises on purpose."""


class ConfigError(RelxError, ValueError):
    """A setting of the component, its schema, candidates or prompt cannot be used."""


class SchemaError(ConfigError):
    """A label set is inconsistent, or holds a string that spaCy's config format would break."""


class PromptError(RelxError, ValueError):
    """A prompt or a label cannot be turned into token ids as the model expects them."""


class DataError(RelxError, ValueError):
    """Input data (a document, a relation, a file of rows) is malformed."""


class OutputError(RelxError, OSError):
    """An output cannot be written: the disk is full, read-only, or gone. What was written before is kept."""


class ExtensionError(RelxError, ValueError):
    """Another package owns the extension attribute that the component was told to use."""


class ModelError(RelxError, RuntimeError):
    """A model could not be fetched, verified or loaded."""


class DeviceError(RelxError, RuntimeError):
    """The device that computes has failed, and with it every further call of this process."""


class ModelNotFoundError(ModelError):
    """The weights are not on this machine and could not be fetched."""


class ServerError(ModelError):
    """A served model could not be reached, or gave no usable answer.

    Attributes:
        for_all: Whether every other request would fail, too: a refused key, an unknown model, nobody there.
    """

    def __init__(self, message: str, *, for_all: bool = False) -> None:
        super().__init__(message)
        self.for_all = for_all


class PartialAnswerError(ServerError):
    """Some of several questions could not be answered.

    Attributes:
        results: What came of each question, in order: its answer, or the error.
    """

    def __init__(self, message: str, results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.results = results


class ChecksumError(ModelError):
    """A fetched file is not the file that was asked for."""


class UnsafeCheckpointError(ModelError):
    """A checkpoint is stored in a format that can execute code when it is read."""


class AdapterMismatchError(ModelError):
    """A LoRA adapter does not belong to the base model it was asked to change."""


class TrainingError(RelxError, RuntimeError):
    """Training cannot go on: the loss is not finite, or a checkpoint cannot be used or written."""


class PackBudgetError(RelxError, ValueError):
    """A single prompt has more tokens than a pack may hold, or needs more memory than there is."""


class RelxWarning(UserWarning):
    """Something is not as the user may expect, and the work goes on."""
