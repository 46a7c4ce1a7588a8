"""The component's settings, checked before any model is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from spacy_relx.errors import ConfigError
from spacy_relx.prompts import GenTunePrompt
from spacy_relx.relation import DEFAULT_ATTR
from spacy_relx.schema import MissingSchema, Schema, parse_labels

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_relx.engine.types import Scoring

Decoding = Literal["constrained", "free"]

DEFAULT_CONFIG: dict[str, Any] = {
    "model": {"@architectures": "spacy-relx.SmolLM2.v1"},
    "labels": None,
    "candidates": {"@misc": "spacy-relx.EntityPairs.v1", "scope": "sentence"},
    "prompt": {"@misc": "spacy-relx.GenTunePrompt.v1"},
    "decoding": "constrained",
    "scoring": "trie",
    "threshold": None,
    "top_k": 1,
    "no_relation": "no_relation",
    "keep_no_relation": False,
    "attr": DEFAULT_ATTR,
    "scorer": {"@scorers": "spacy-relx.relation_scorer.v1"},
    "training": None,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the component was told; see the configuration reference for the keys."""

    schema: Schema | MissingSchema
    prompt: GenTunePrompt
    decoding: Decoding
    scoring: Scoring
    threshold: float | None
    top_k: int
    no_relation: str | None
    keep_no_relation: bool
    attr: str

    @property
    def negative_prompt(self) -> str | None:
        """The negative label as the model sees it."""
        if self.no_relation is None or isinstance(self.schema, MissingSchema):
            return self.no_relation
        negative = self.schema.negative
        return negative.prompt if negative is not None and negative.name == self.no_relation else self.no_relation


def read_threshold(value: Any) -> float | None:
    """Check the component's threshold.

    Raises:
        ConfigError: If it is neither None nor a number in 0..1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"threshold is {value!r}. Expected a number in 0..1, or null.")
    if not 0 <= value <= 1:
        raise ConfigError(f"threshold is {value!r}. Expected a number in 0..1: scores are probabilities.")
    return float(value)


def read_settings(
    *,
    labels: Any,
    prompt: Any,
    decoding: Any,
    scoring: Any,
    threshold: Any,
    top_k: Any,
    no_relation: Any,
    keep_no_relation: Any,
    attr: Any,
    files_may_be_missing: bool = False,
) -> Settings:
    """Check the settings of the factory.

    Args:
        labels: See the configuration reference, as for the others.
        prompt: A wording.
        decoding: "constrained" or "free".
        scoring: "trie" or "sequence".
        threshold: 0..1 or None.
        top_k: At least 1.
        no_relation: The negative label or None.
        keep_no_relation: Whether negatives are kept.
        attr: A Python identifier.
        files_may_be_missing: Whether a schema or prompt file that does not exist is left for later, because a saved
            pipeline that is being loaded brings its own copy.

    Raises:
        ConfigError: If a setting cannot be used; the message names it.
    """
    _one_of("decoding", decoding, ("constrained", "free"))
    _one_of("scoring", scoring, ("trie", "sequence"))
    threshold = read_threshold(threshold)
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ConfigError(f"top_k is {top_k!r}. Expected a whole number of at least 1.")
    if no_relation is not None and (not isinstance(no_relation, str) or not no_relation.strip()):
        raise ConfigError(f"no_relation is {no_relation!r}. Expected the name of the negative label, or null.")
    if not isinstance(keep_no_relation, bool):
        raise ConfigError(f"keep_no_relation is {keep_no_relation!r}. Expected true or false.")
    if not isinstance(attr, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", attr):
        raise ConfigError(f"attr is {attr!r}. Expected a name such as {DEFAULT_ATTR!r}.")
    if not isinstance(prompt, GenTunePrompt):
        raise ConfigError(f"prompt is {prompt!r}. Expected a block such as spacy-relx.GenTunePrompt.v1.")
    schema: Schema | MissingSchema
    if isinstance(labels, MissingSchema):
        if not files_may_be_missing:
            labels.fail()
        schema = labels
    else:
        schema = parse_labels(labels, no_relation=no_relation)
        if not len(schema) and decoding != "free":
            raise ConfigError(
                'labels is empty. Expected at least one label, or decoding="free", which takes any answer of the model.'
            )
        if prompt.missing_file is None:
            prompt.validate(schema, no_relation)
    if prompt.missing_file is not None and not files_may_be_missing:
        prompt.fail()
    return Settings(
        schema=schema,
        prompt=prompt,
        decoding=decoding,
        scoring=scoring,
        threshold=threshold,
        top_k=top_k,
        no_relation=no_relation,
        keep_no_relation=keep_no_relation,
        attr=attr,
    )


def check_entity_types(schema: Schema | MissingSchema, nlp: Language, spans_key: str | None) -> None:
    """Refuse labels whose entity types no component of the pipeline can give.

    Only where every component that assigns entities says which types it knows; a pipeline whose entities come from
    elsewhere is not judged.

    Raises:
        ConfigError: Naming the type, the label, and the types there are.
    """
    if spans_key is not None or isinstance(schema, MissingSchema):
        return
    known: set[str] = set()
    for name in nlp.pipe_names:
        if "doc.ents" in nlp.get_pipe_meta(name).assigns:
            types = getattr(nlp.get_pipe(name), "labels", ())
            if not types:
                return
            known.update(types)
    if not known:
        return
    for label in schema:
        for side, types in (("head", label.head), ("tail", label.tail)):
            for entity_type in types:
                if entity_type not in known:
                    close = get_close_matches(entity_type, sorted(known), n=1)
                    hint = f" Did you mean {close[0]!r}?" if close else ""
                    raise ConfigError(
                        f"labels.{label.name}.{side} has the entity type {entity_type!r}, which no component of this "
                        f"pipeline gives.{hint} Expected: {', '.join(sorted(known))}. If a component that you add "
                        "later gives it, add that one before the relation extractor."
                    )


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}. Expected one of {', '.join(allowed)}.")
