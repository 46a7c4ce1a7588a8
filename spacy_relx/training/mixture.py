"""How training rows vary: which negatives, how labels are listed and called, how many demonstrations.

Owns the settings. The rows are made in `groups`. No torch, no spaCy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from spacy_relx.config_strings import check_config_strings
from spacy_relx.errors import ConfigError
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.schema_config import did_you_mean
from spacy_relx.training.label_wordings import read_wordings

if TYPE_CHECKING:
    from spacy_relx.training.label_wordings import LabelWordings

_CHANCES = ("shuffle_labels", "paraphrases", "generic", "types")


@dataclass(frozen=True)
class Mixture:
    """What a group of rows may look like. The defaults give what the component shows: its own prompt and all labels.

    Attributes:
        negatives: Pairs without a relation that are drawn for each pair with one, in the same context; a fraction is a
            rate, None keeps all. Pairs that are annotated as holding no relation are always kept, and counted in.
        negatives_alone: Pairs that are drawn in a context where none has a relation; None keeps all.
        both_orders: Whether the other order of a pair with a relation is kept where it holds nothing; counted in, too.
        min_labels: Fewest labels in a list, the negative not counted; None: 1 if `max_labels` is set.
        max_labels: Most labels in a list, unless the right answers are more; None: all. Where neither is set, the list
            is the whole schema.
        shuffle_labels: Probability that a list is in random order, not sorted.
        paraphrases: Probability that a label goes by one of its paraphrases.
        definitions: Probability that labels are listed with what they mean, drawn from their own descriptions and
            those of `wordings`; None: as the prompt and the schema have it.
        generic: Probability of the generic system text, which lists no labels; they then have their own names.
        examples: Numbers of demonstrations, one of which is drawn for each group; None: the prompt's own examples.
        types: Probability that the user turn is `typed_user`.
        typed_user: A user turn with `{head_type}` and `{tail_type}`, or the path of a `.txt` file.
        wordings: A packaged file of other wordings by its name, or the path of a `.json` file.
        groups: Groups that are made from a context in an epoch, each with draws of its own.
        texts: Contexts that share a group, and so a label list and demonstrations, whose tokens they then compute once
            between them; their order in an epoch is random.
        seed: Of all draws.
    """

    negatives: float | None = 2
    negatives_alone: int | None = 1
    both_orders: bool = True
    min_labels: int | None = None
    max_labels: int | None = None
    shuffle_labels: float = 0.0
    paraphrases: float = 0.0
    definitions: float | None = None
    generic: float = 0.0
    examples: tuple[int, ...] | None = None
    types: float = 0.0
    typed_user: str | None = None
    wordings: str | None = None
    groups: int = 1
    texts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        negatives = self.negatives
        if negatives is not None and (not _is_number(negatives) or not 0 <= negatives < math.inf):
            _refuse("negatives", negatives, "a number of at least 0, or null for all")
        self._check_counts()
        for name in (*_CHANCES, "definitions"):
            value = getattr(self, name)
            if value is None and name == "definitions":
                continue
            if not _is_number(value) or not 0 <= value <= 1:
                _refuse(name, value, "a probability, 0..1" + (", or null" if name == "definitions" else ""))
        if not isinstance(self.both_orders, bool):
            _refuse("both_orders", self.both_orders, "true or false")
        self._check_examples()
        self._check_texts()

    @cached_property
    def typed_text(self) -> str:
        """The user turn that shows entity types.

        Raises:
            ConfigError: If there is none, or its file does not exist.
        """
        wording = make_gentune_prompt(user=self.typed_user)
        if self.typed_user is None or wording.missing_file is not None:
            _refuse("typed_user", self.typed_user, "a user turn, or the path of a file that exists")
        return wording.user

    @cached_property
    def label_wordings(self) -> Mapping[str, LabelWordings]:
        """Other wordings by the names of labels; empty where no file is set.

        Raises:
            ConfigError: If the file cannot be used.
        """
        return read_wordings(self.wordings) if self.wordings is not None else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, as `make_mixture` takes them."""
        data = dataclasses.asdict(self)
        return data | {"examples": None if self.examples is None else list(self.examples)}

    def _check_counts(self) -> None:
        for name, least, advice in (
            ("negatives_alone", 0, ", or null for all"),
            ("min_labels", 1, ", or null"),
            ("max_labels", 1, ", or null"),
            ("groups", 1, ""),
            ("texts", 1, ""),
        ):
            value = getattr(self, name)
            if value is None and advice:
                continue
            if not _is_count(value) or value < least:
                _refuse(name, value, f"a whole number of at least {least}{advice}")
        if not _is_count(self.seed):
            _refuse("seed", self.seed, "a whole number")
        if self.min_labels is not None and self.max_labels is not None and self.min_labels > self.max_labels:
            _refuse("min_labels", self.min_labels, f"at most max_labels, {self.max_labels}")

    def _check_examples(self) -> None:
        if self.examples is None:
            return
        expected = "a list of numbers of demonstrations such as [0, 2], or null for the prompt's own"
        if not isinstance(self.examples, (list, tuple)) or not self.examples:
            _refuse("examples", self.examples, expected)
        if not all(_is_count(n) and n >= 0 for n in self.examples):
            _refuse("examples", list(self.examples), expected)
        object.__setattr__(self, "examples", tuple(self.examples))

    def _check_texts(self) -> None:
        for name in ("typed_user", "wordings"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                _refuse(name, value, "a string, or null")
            check_config_strings(value, f"mixture.{name}")
        if self.paraphrases and self.wordings is None:
            _refuse("paraphrases", self.paraphrases, "0 where no wordings are set; set mixture.wordings")
        if self.typed_user is None:
            if self.types:
                _refuse("types", self.types, "0 where no typed_user is set; set mixture.typed_user")
            return
        try:
            wording = make_gentune_prompt(user=self.typed_user)
        except ConfigError as error:
            raise ConfigError(str(error).replace("prompt.user", "mixture.typed_user")) from error
        # A file may come later: a saved pipeline names files of the machine that it was made on.
        if wording.missing_file is None and not all(field in wording.user for field in ("{head_type}", "{tail_type}")):
            raise ConfigError("mixture.typed_user lacks {head_type} or {tail_type}. Expected both.")


def make_mixture(
    negatives: Any = 2,
    negatives_alone: Any = 1,
    both_orders: Any = True,
    min_labels: Any = None,
    max_labels: Any = None,
    shuffle_labels: Any = 0.0,
    paraphrases: Any = 0.0,
    definitions: Any = None,
    generic: Any = 0.0,
    examples: Any = None,
    types: Any = 0.0,
    typed_user: Any = None,
    wordings: Any = None,
    groups: Any = 1,
    texts: Any = 1,
    seed: Any = 0,
) -> Mixture:
    """Create the settings `spacy-relx.Mixture.v1`; see `Mixture` for what they mean.

    Raises:
        ConfigError: If a setting is not usable.
    """
    return Mixture(
        negatives=negatives,
        negatives_alone=negatives_alone,
        both_orders=both_orders,
        min_labels=min_labels,
        max_labels=max_labels,
        shuffle_labels=shuffle_labels,
        paraphrases=paraphrases,
        definitions=definitions,
        generic=generic,
        examples=examples,
        types=types,
        typed_user=typed_user,
        wordings=wordings,
        groups=groups,
        texts=texts,
        seed=seed,
    )


def mixture_from(data: Any, where: str = "mixture") -> Mixture:
    """Make settings from a mapping, such as the content of a file.

    Raises:
        ConfigError: If it is no mapping, a key is unknown, or a setting is not usable.
    """
    known = [field.name for field in dataclasses.fields(Mixture)]
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} is {data!r}. Expected settings by name: {', '.join(known)}.")
    for key in data:
        if key not in known:
            raise ConfigError(f"{where} has no setting {key!r}.{did_you_mean(key, known)} Known: {', '.join(known)}.")
    return make_mixture(**data)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    raise ConfigError(f"mixture.{name} is {value!r}. Expected {expected}.")
