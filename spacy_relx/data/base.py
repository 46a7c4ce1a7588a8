"""What a data set is: rows, problems, and the few facts that a reader needs to be found, run and checked.

Owns the values that readers of single formats give, and the guard that turns a malformed row into a problem with a
place. How a row becomes a Doc is in `docs`; file formats are in the modules of their families.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from spacy_relx.errors import DataError
from spacy_relx.schema import Schema, make_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

#: Entity type of mentions to which a data set gives none.
ENTITY = "ENTITY"

OnError: TypeAlias = Literal["skip", "raise"]
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Mention:
    """A mention in the text of its row.

    Attributes:
        start: First character.
        end: The character after the last.
        type: Entity type, in the data set's own words.
        kb_id: The data set's identifier of the entity, if it has one.
    """

    start: int
    end: int
    type: str = ENTITY
    kb_id: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One text with its gold annotation: what a reader gives for every Doc.

    Attributes:
        id: Identifier of the text; the file's own where it has one.
        place: File and line, for messages.
        text: The text.
        mentions: Mentions; they may overlap.
        relations: (index of the head in `mentions`, index of the tail, label), the negative label among them.
        words: The tokens, if the data set is tokenised; `text` then is `join_words(words)[0]`.
        sents: Where sentences begin, in characters. (0,): the row is one sentence. (): the data set does not say.
    """

    id: str
    place: str
    text: str
    mentions: tuple[Mention, ...] = ()
    relations: tuple[tuple[int, int, str], ...] = ()
    words: tuple[str, ...] = ()
    sents: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the data that is not as it should be, or that a user has to know.

    Attributes:
        place: File and line.
        reason: What is wrong, the same words for the same thing: reports count them.
        detail: The value at fault.
        what: What does not reach the Docs because of it: a "row", a "relation", a "mention", or nothing (a "note").
        by_design: Whether it is lost because of the chosen form of the Docs, and nothing is wrong with the data.
    """

    place: str
    reason: str
    detail: str = ""
    what: Literal["row", "relation", "mention", "note"] = "row"
    by_design: bool = False

    @property
    def is_fault(self) -> bool:
        """Whether a run that stops at bad data stops here."""
        return self.what != "note" and not self.by_design

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}{f': {self.detail}' if self.detail else ''}"


Item: TypeAlias = Row | Problem


class BadRow(DataError):
    """A row cannot be read; `reason` is what reports count."""

    def __init__(self, reason: str, detail: Any = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail != "" else reason)
        self.reason, self.detail = reason, str(detail)


@dataclass(frozen=True, slots=True)
class Split:
    """The published size of one file.

    Attributes:
        name: Name of the split.
        file: Where it lies in a folder that has a folder for each data set.
        n_rows: Rows (sentences, instances, documents) of the file.
        n_relations: Annotated relations, negatives left out, or None if nobody states the number.
        n_distinct: Different relations that the Docs have, found once and kept from then on; None: not stated.
    """

    name: str
    file: str
    n_rows: int
    n_relations: int | None = None
    n_distinct: int | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set: everything this package knows about it.

    Attributes:
        name: Name on the command line and in `spacy-relx.<name>.v1`.
        title: Name for people.
        licence: What its source states, or "none stated".
        source: Public address.
        read: Gives the rows and problems of one file; further keyword arguments are the `options`.
        schema: Name of the packaged schema with its labels, or None.
        negative: Its own name for "no relation", or None.
        options: Allowed values of each option of `read`, the default first.
        splits: Published sizes.
        note: What a user has to know.
    """

    name: str
    title: str
    licence: str
    source: str
    read: Callable[..., Iterator[Item]]
    schema: str | None = None
    negative: str | None = None
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    splits: tuple[Split, ...] = ()
    note: str = ""

    def check_options(self, options: dict[str, str]) -> dict[str, str]:
        """Return the options with their defaults filled in.

        Raises:
            DataError: There is no such option, or it cannot have this value.
        """
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise DataError(f"The data set {self.name!r} has no option {name!r}. Its options: {known}.")
            if value not in self.options[name]:
                allowed = " or ".join(repr(choice) for choice in self.options[name])
                raise DataError(f"{name} is {value!r}. Expected {allowed} for the data set {self.name!r}.")
        return {name: options.get(name, choices[0]) for name, choices in self.options.items()}


def parse_each(
    path: Path, records: Iterable[tuple[str, Record] | Problem], parse: Callable[[str, str, Record], Iterable[Item]]
) -> Iterator[Item]:
    """Parse record by record; one that cannot be parsed gives a problem and costs no other.

    Args:
        path: The file.
        records: (place, record) pairs, or problems from reading the file.
        parse: Gives what one record holds, from its place, an identifier made of the file's name and the record's
            number, and the record. It may raise whatever malformed data make it raise.
    """
    n = 0
    for entry in records:
        if isinstance(entry, Problem):
            yield entry
            continue
        place, record = entry
        n += 1
        try:
            items = list(parse(place, f"{path.stem}:{n}", record))
            for item in items:
                if isinstance(item, Row):
                    _check_strings(item)
        except BadRow as error:
            yield Problem(place, error.reason, error.detail)
        except KeyError as error:
            yield Problem(place, "a key is missing", str(error))
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            yield Problem(place, "malformed", f"{type(error).__name__}: {error}")
        else:
            yield from items


def _check_strings(row: Row) -> None:
    """Refuse what a Doc cannot hold: half a surrogate pair, which JSON can write, and names that are no strings."""
    mentions = (value for mention in row.mentions for value in (mention.type, mention.kb_id))
    for value in (row.id, row.text, *mentions, *(label for _, _, label in row.relations)):
        if not isinstance(value, str):
            raise BadRow("a name is no string", repr(value)[:60])
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRow("not valid Unicode", repr(value)[:60]) from error


def join_words(words: Iterable[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join tokens with single spaces.

    Returns:
        The text, and the (start, end) of every token in characters. Empty tokens take no room.
    """
    places: list[tuple[int, int]] = []
    used: list[str] = []
    position = 0
    for word in words:
        if not isinstance(word, str):
            raise BadRow("a token is no string", repr(word))
        places.append((position, position + len(word)))
        if word:
            used.append(word)
            position += len(word) + 1
    return " ".join(used), places


def word_mention(places: list[tuple[int, int]], start: int, end: int, type: str = ENTITY, kb_id: str = "") -> Mention:
    """Return the mention of the tokens `start` to `end` (exclusive).

    Raises:
        BadRow: These tokens do not exist.
    """
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end)):
        raise BadRow("token offsets are no whole numbers", f"{start!r}..{end!r}")
    if not 0 <= start < end <= len(places):
        raise BadRow("token offsets outside the text", f"{start}..{end} of {len(places)} tokens")
    return Mention(places[start][0], places[end - 1][1], type or ENTITY, kb_id)


@lru_cache
def known_labels(schema: str) -> frozenset[str]:
    """Return the labels of a packaged schema, its negative among them."""
    labels = _packaged(schema)
    return frozenset({*labels.names, *([labels.no_relation] if labels.no_relation else [])})


def check_label(schema: str, label: str) -> None:
    """Do nothing for a label of a packaged schema, its negative among them.

    Raises:
        BadRow: The schema has no such label.
    """
    if label not in known_labels(schema):
        raise BadRow("unknown label", label)


@lru_cache
def names_by_id(schema: str) -> dict[str, str]:
    """Return the label names of a packaged schema by their identifiers in Wikidata."""
    return {label.id: label.name for label in _packaged(schema) if label.id}


def _packaged(name: str) -> Schema:
    schema = make_schema(name)
    assert isinstance(schema, Schema)  # a name, unlike a path, cannot give a MissingSchema
    return schema
