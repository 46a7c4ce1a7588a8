"""The exceptions of spacy-relx.

Every message names the value, says what was expected, and tells what to do next. All of them derive from
`RelxError`, so that one `except` clause catches whatever this package raises on purpose.
"""


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


class ExtensionError(RelxError, ValueError):
    """Another package owns the extension attribute that the component was told to use."""


class ModelError(RelxError, RuntimeError):
    """A model could not be fetched, verified or loaded."""


class ModelNotFoundError(ModelError):
    """The weights are not on this machine and could not be fetched."""


class ChecksumError(ModelError):
    """A fetched file is not the file that was asked for."""


class UnsafeCheckpointError(ModelError):
    """A checkpoint is stored in a format that can execute code when it is read."""


class AdapterMismatchError(ModelError):
    """A LoRA adapter does not belong to the base model it was asked to change."""


class TrainingError(RelxError, RuntimeError):
    """Training cannot go on: the loss is not finite, or a checkpoint cannot be used or written."""


class PackBudgetError(RelxError, ValueError):
    """A single prompt has more tokens than a pack may hold."""


class RelxWarning(UserWarning):
    """Something is not as the user may expect, and the work goes on."""
