"""Relations as a Doc holds them: plain tuples of offsets, strings and floats in `Doc.user_data`.

They survive every way in which spaCy serialises a Doc. Characters are stored beside tokens, so that a mention is found
again after a retokeniser has moved the tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from spacy.tokens import Doc, Span

from spacy_relx.errors import DataError

# (token start, token end, character start, character end, entity type); ends are exclusive.
Mention: TypeAlias = tuple[int, int, int, int, str]
StoredRelation: TypeAlias = tuple[Mention, Mention, str, float, str]
# Relations and free answers are stored alike: two mentions, then strings and numbers.
Stored: TypeAlias = tuple[Any, ...]


# The four-part key is the form of spaCy's own extension values: Span.as_doc drops such a key when it has no offsets,
# where it would copy any other key unchanged and leave relations that point at the wrong tokens.
def key(name: str) -> tuple[str, str, None, None]:
    """Where in `Doc.user_data` the values of an extension attribute lie."""
    return ("._.", name, None, None)


def read(doc: Doc, name: str) -> tuple[Stored, ...]:
    """What is stored for an extension attribute; nothing if it was never set."""
    return cast("tuple[Stored, ...]", doc.user_data.get(key(name), ()))


def write(doc: Doc, name: str, values: Iterable[Stored]) -> None:
    """Store what an extension attribute holds."""
    doc.user_data[key(name)] = tuple(values)


def known_mentions(doc: Doc) -> dict[tuple[int, int], Span]:
    """By place, the spans that say more than a place and a type: entities, and spans of groups that are linked."""
    known = {(ent.start, ent.end): ent for ent in doc.ents}
    for group in doc.spans.values():
        for span in group:
            if span.kb_id_ and not ((ent := known.get((span.start, span.end))) is not None and ent.kb_id_):
                known[span.start, span.end] = span
    return known


def span_at(doc: Doc, mention: Mention, known: Mapping[tuple[int, int], Span]) -> Span:
    """The span of a stored mention: one of the `known_mentions` where it is the same."""
    start, end, *_, label = place(doc, mention)
    span = known.get((start, end))
    # One that is there carries its knowledge-base id too, so it is the better view where it is the same mention.
    return span if span is not None and span.label_ == label else Span(doc, start, end, label=label)


def place(doc: Doc, mention: Mention) -> Mention:
    """Return the mention with the token offsets it has now; a retokeniser may have moved them.

    Raises:
        DataError: If the Doc ends before it.
    """
    start, end, start_char, end_char, label = mention
    if 0 <= start < end <= len(doc) and doc[start].idx == start_char:
        last = doc[end - 1]
        if last.idx + len(last) == end_char:
            return (start, end, start_char, end_char, label)
    span = doc.char_span(start_char, end_char, alignment_mode="expand") if end_char <= len(doc.text) else None
    if span is None:
        raise DataError(
            f"A stored relation points at characters {start_char}..{end_char}, but the Doc has {len(doc.text)}. The "
            "text was replaced after the relations were stored; run the component again."
        )
    return (span.start, span.end, start_char, end_char, label)


def resolve(doc: Doc, stored: Stored) -> Stored:
    """Give both mentions the token offsets that they have now."""
    return (place(doc, stored[0]), place(doc, stored[1]), *stored[2:])


def shift(stored: Stored, tokens: int, chars: int) -> Stored:
    """Move both mentions by so many tokens and characters."""

    def moved(mention: Mention) -> Mention:
        start, end, start_char, end_char, label = mention
        return (start + tokens, end + tokens, start_char + chars, end_char + chars, label)

    return (moved(stored[0]), moved(stored[1]), *stored[2:])


def to_mention(doc: Doc, value: Any) -> Mention:
    """Turn what a user may give for a mention into the stored form.

    Args:
        doc: The Doc.
        value: A Span, (start, end) tokens, or a dict with `start` and `end`.

    Raises:
        DataError: If it is none of these, or no mention of this Doc.
    """
    label, text = "", None
    chars: tuple[Any, Any] | None = None
    if isinstance(value, Span):
        start, end, label = value.start, value.end, value.label_
        if value.doc is not doc:  # its tokens may be others, so the characters decide
            if value.doc.text != doc.text:
                raise DataError(
                    f"The mention {value.text!r} belongs to another Doc. Expected Spans of the Doc whose relations "
                    "are set."
                )
            chars, text = (value.start_char, value.end_char), value.text
    elif isinstance(value, Mapping) and {"start", "end"} <= set(value):
        start, end, label, text = value["start"], value["end"], value.get("label", ""), value.get("text")
        if {"start_char", "end_char"} <= set(value):
            chars = (value["start_char"], value["end_char"])
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        start, end = value
    else:
        raise DataError(f"{value!r} is not a mention. Expected a Span, (start, end) or a dict with start and end.")
    if chars is not None:
        inside = all(isinstance(char, int) and 0 <= char <= len(doc.text) for char in chars)
        span = doc.char_span(*chars) if inside else None
        if span is None or (text is not None and span.text != text):
            raise DataError(
                f"The mention {text or (start, end)!r} at the characters {chars[0]!r}..{chars[1]!r} is not one of this "
                "Doc. Expected mentions of the Doc whose relations are set."
            )
        start, end = span.start, span.end
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(doc)):
        raise DataError(
            f"A mention has the tokens {start!r}..{end!r}, but the Doc has {len(doc)} tokens. Expected "
            f"0 <= start < end <= {len(doc)}."
        )
    last = doc[end - 1]
    if not label:
        label = next((ent.label_ for ent in doc[start:end].ents if (ent.start, ent.end) == (start, end)), "")
    return (start, end, doc[start].idx, last.idx + len(last), label)
