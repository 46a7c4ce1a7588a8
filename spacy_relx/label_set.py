"""A consistent set of labels: its order, its symmetric and inverse pairs, and its negative.

Owns what labels mean together. A single label is in `label`; reading schemas from configs and files is in `schema`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from spacy_relx.errors import SchemaError
from spacy_relx.label import Label
from spacy_relx.schema_config import SchemaFile, check_names, did_you_mean, entry_of, make_labels, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Arg = TypeVar("Arg")


@dataclass(frozen=True, slots=True)
class About:
    """Where a label set comes from.

    Attributes:
        title: Its name for people.
        source: Publication or address.
        licence: What the source states for the data, or `none stated`. Only label names are in this package.
        complete: Whether these are exactly the published labels.
        n_published: How many labels the source publishes, the negative not counted; None if not known.
        note: What a user has to know.
    """

    title: str = ""
    source: str = ""
    licence: str = ""
    complete: bool = True
    n_published: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Schema:
    """A consistent set of labels, in the order that breaks ties.

    Attributes:
        labels: The positive labels.
        name: What the set is called.
        no_relation: Name of the negative label that the set brings along, if any.
        negative: That label with its prompt text; made from `no_relation` when not given.
        about: Where the set comes from.
    """

    labels: tuple[Label, ...]
    name: str = "custom"
    no_relation: str | None = None
    negative: Label | None = None
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        if self.negative is None and self.no_relation is not None:
            object.__setattr__(self, "negative", Label(self.no_relation, self.no_relation))
        elif self.negative is not None:
            object.__setattr__(self, "no_relation", self.negative.name)
        _check_distinct(self)
        _check_inverses(self)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the positive labels, in schema order."""
        return tuple(label.name for label in self.labels)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _allowed(self) -> dict[tuple[str, str], tuple[int, ...]]:
        return {}

    @cached_property
    def mirrors(self) -> dict[str, str]:
        """For the derived side of each inverse pair, the name of the label under which the pair is stored."""
        mirrors: dict[str, str] = {}
        for label in self.labels:
            if label.inverse is not None and label.name not in mirrors:
                mirrors[label.inverse] = label.name
        return mirrors

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    def __getitem__(self, name: str) -> Label:
        if name not in self._positions:
            raise SchemaError(
                f"{name!r} is not a label of the schema {self.name!r}.{did_you_mean(name, self.names)} "
                f"Its {len(self)} labels: {_some(self.names)}."
            )
        return self.labels[self._positions[name]]

    def position(self, name: str) -> int:
        """Return the position of a label in schema order.

        Raises:
            SchemaError: There is no such label.
        """
        self[name]
        return self._positions[name]

    def allowed(self, head_type: str, tail_type: str) -> tuple[int, ...]:
        """Return the positions of the labels that may hold between entities of these types."""
        key = (head_type, tail_type)
        if key not in self._allowed:
            found = (i for i, label in enumerate(self.labels) if label.allows(*key))
            self._allowed[key] = tuple(found)
        return self._allowed[key]

    def canonical(self, name: str, head: Arg, tail: Arg) -> tuple[str, Arg, Arg]:
        """Return the relation as it is stored: the derived side of an inverse pair is turned round."""
        if name in self.mirrors:
            return self.mirrors[name], tail, head
        return name, head, tail

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain data: the content of a schema file."""
        data: dict[str, Any] = {"name": self.name}
        data |= {key: value for key, value in dataclasses.asdict(self.about).items() if value not in ("", None)}
        data["no_relation"] = self.no_relation
        labels = {label.name: entry_of(label) for label in self.labels}
        if self.negative is not None and (entry := entry_of(self.negative)):
            labels[self.negative.name] = entry
        return data | {"labels": labels}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """Build a schema from the content of a schema file.

        Raises:
            SchemaError: A key is unknown, a value has the wrong type, or the labels contradict each other.
        """
        file = validate(SchemaFile, data, "schema")
        about = {key: getattr(file, key) for key in About.__slots__ if getattr(file, key) is not None}
        check_names(file.labels)
        schema = Schema(make_labels(file.labels), file.name or "custom", about=About(**about))
        schema = take_negative(schema, file.no_relation)
        return schema if schema.negative else dataclasses.replace(schema, no_relation=file.no_relation)


def take_negative(schema: Schema, no_relation: str | None) -> Schema:
    """Return the schema with the label called `no_relation`, if there is one, as its negative."""
    if no_relation is None:
        return schema
    if no_relation not in schema:
        effective = schema.negative.prompt if no_relation == schema.no_relation and schema.negative else no_relation
        _refuse_prompt(schema, effective, no_relation)
        return schema
    negative = schema[no_relation]
    extra = sorted(entry_of(negative).keys() - {"prompt", "description", "id"})
    if extra:
        raise SchemaError(
            f"labels.{no_relation} is the negative label and sets {', '.join(extra)}. Expected at most prompt and "
            "description: it stands for no relation, between entities of any type. If it is a relation, give "
            "no_relation another name."
        )
    labels = tuple(label for label in schema if label.name != no_relation)
    return dataclasses.replace(schema, labels=labels, negative=negative)


def _refuse_prompt(schema: Schema, prompt: str, negative: str) -> None:
    for label in schema:
        if label.prompt == prompt:
            raise SchemaError(
                f"labels.{label.name}.prompt is {prompt!r}, which is also the text of the negative label "
                f"{negative!r}. Expected a text of its own: the model could not tell them apart."
            )


def _check_distinct(schema: Schema) -> None:
    """Refuse two labels with one name or one prompt text."""
    by_prompt: dict[str, str] = {}
    for label in schema:
        if label.name in by_prompt.values():
            raise SchemaError(f"Two labels are called {label.name!r}. Expected each name once; rename one.")
        if label.prompt in by_prompt:
            raise SchemaError(
                f"labels.{label.name}.prompt is {label.prompt!r}, which is also the text of "
                f"{by_prompt[label.prompt]!r}. Expected a text of its own: the model could not tell them apart."
            )
        by_prompt[label.prompt] = label.name
    if schema.negative is not None:
        if schema.negative.name in by_prompt.values():
            raise SchemaError(f"{schema.negative.name!r} is the negative label and a label. Expected one of the two.")
        _refuse_prompt(schema, schema.negative.prompt, schema.negative.name)


def _check_inverses(schema: Schema) -> None:
    """Refuse pairs of which the stored side is not clear, and mirrors with other entity types."""
    claimed: dict[str, str] = {}
    for label in schema:
        if label.inverse is None:
            continue
        place = f"labels.{label.name}.inverse is {label.inverse!r}"
        if label.inverse == schema.no_relation:
            raise SchemaError(f"{place}, the negative label. Expected a relation; give the mirror a name of its own.")
        if label.inverse in claimed:
            raise SchemaError(
                f"{place}, which is already the mirror of {claimed[label.inverse]!r}. Expected one label a mirror."
            )
        claimed[label.inverse] = label.name
        if label.inverse in schema:
            _check_mirror(label, schema[label.inverse], place)


def _check_mirror(label: Label, mirror: Label, place: str) -> None:
    if mirror.symmetric:
        raise SchemaError(f"{place}, which is symmetric. Expected a relation with a direction.")
    if mirror.inverse not in (None, label.name):
        raise SchemaError(
            f"{place}, but labels.{mirror.name}.inverse is {mirror.inverse!r}. Expected {label.name!r}, or nothing: "
            "a mirror has one original."
        )
    for side, types, other, others in (
        ("head", label.head, "tail", mirror.tail),
        ("tail", label.tail, "head", mirror.head),
    ):
        if types and others and set(types) != set(others):
            raise SchemaError(
                f"{place}, but labels.{label.name}.{side} is {list(types)} and labels.{mirror.name}.{other} is "
                f"{list(others)}. Expected the same types: one is the mirror of the other."
            )


def _some(names: tuple[str, ...], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
