"""One label: its name, the text the model sees, entity types, mirror and threshold.

Owns what makes a single label valid. What labels mean together is in `schema`.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from spacy_relx.errors import SchemaError


@dataclass(frozen=True, slots=True)
class Label:
    """One relation that the model may answer.

    Attributes:
        name: What the relation is called on a `Doc`.
        prompt: What the model sees instead of the name.
        description: A sentence for prompts that explain the labels, and for people.
        head: Entity types that may stand first; empty means any.
        tail: Entity types that may stand second; empty means any.
        symmetric: Whether the relation holds in both orders at once.
        inverse: Name of the mirror relation, which need not be a label itself. The pair is stored under this label.
        threshold: Minimum score to keep this relation, 0..1; None leaves it to the component.
        id: Identifier in the label set's source, such as a Wikidata property.
    """

    name: str
    prompt: str
    description: str = ""
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    symmetric: bool = False
    inverse: str | None = None
    threshold: float | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        place = f"labels.{self.name}"
        check_line(self.name, "The name of a label")
        check_line(self.prompt, f"{place}.prompt")
        for side, types in (("head", self.head), ("tail", self.tail)):
            for i, entity_type in enumerate(types):
                check_line(entity_type, f"{place}.{side}[{i}]")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SchemaError(
                f"{place}.threshold is {self.threshold!r}. Expected a number from 0 to 1: it is compared with a score."
            )
        if self.inverse is None:
            return
        check_line(self.inverse, f"{place}.inverse")
        if self.inverse == self.name:
            raise SchemaError(
                f"{place}.inverse is the label itself. A relation that is its own mirror is symmetric: "
                "leave inverse out and set symmetric to true."
            )
        if self.symmetric:
            raise SchemaError(
                f"{place} is symmetric and names the inverse {self.inverse!r}. Expected one of the two: "
                "a symmetric relation is its own mirror."
            )

    def allows(self, head_type: str, tail_type: str) -> bool:
        """Say whether the label may hold between entities of these types (in either order, if symmetric)."""
        if self._fits(head_type, tail_type):
            return True
        return self.symmetric and self._fits(tail_type, head_type)

    def _fits(self, head_type: str, tail_type: str) -> bool:
        return (not self.head or head_type in self.head) and (not self.tail or tail_type in self.tail)


def check_line(text: str, where: str) -> None:
    """Refuse text that cannot stand on a line of a prompt as it is.

    Raises:
        SchemaError: The text is empty, has outer white space, or holds a control character or line break.
    """
    if not text.strip():
        raise SchemaError(f"{where} is {text!r}. Expected visible text.")
    if text != text.strip():
        raise SchemaError(f"{where} is {text!r}. Expected no outer white space; write {text.strip()!r}.")
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
            raise SchemaError(f"{where} is {text!r}. Expected one line of text; remove the {char!r}.")
