"""Reads what `annotate` wrote, or any DocBin with relations, back as Docs."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spacy
from spacy.tokens import Doc, Span
from spacy.util import filter_spans, get_words_and_spaces

from spacy_relx._inputs import STDIN, read_docbin
from spacy_relx._json import parse_json
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from spacy.language import Language


def read_annotated(path: str | Path) -> Iterator[Doc]:
    """Yield the Docs of a .spacy or .jsonl file, or of JSON Lines on standard input (-); ids are in `user_data["id"]`.

    Raises:
        DataError: If the file is neither, or a line of it is not what `annotate` writes.
    """
    path = Path(path)
    nlp = spacy.blank("xx")
    if str(path) == STDIN:
        yield from _from_lines(sys.stdin.buffer, "stdin", nlp)
    elif not path.is_file():
        raise DataError(f"The file {str(path)!r} does not exist. Expected a .spacy or .jsonl file with relations.")
    elif path.suffix == ".spacy":
        yield from read_docbin(path, nlp.vocab)
    elif path.suffix == ".jsonl":
        with path.open("rb") as lines:
            yield from _from_lines(lines, str(path), nlp)
    else:
        raise DataError(f"The file {str(path)!r} is of no known kind. Expected a .spacy or .jsonl file with relations.")


def _from_lines(lines: Iterable[bytes], where: str, nlp: Language) -> Iterator[Doc]:
    nlp.add_pipe("sentencizer")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _from_line(line, f"{where}:{number}", nlp)


def _from_line(line: bytes, where: str, nlp: Language) -> Doc:
    try:
        row = parse_json(line)
        doc = from_row(row, nlp)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(
            f"{where} is not a line that annotate writes ({type(error).__name__}: {error}). Expected an object with "
            "text, ents and relations."
        ) from error
    return doc


def from_row(row: Mapping[str, Any], nlp: Language) -> Doc:
    """Make a Doc from an object that `annotate` wrote.

    The row has characters but not the pipeline's tokens, so the text is split anew, and wherever a mention begins or
    ends. Token offsets of the result are therefore its own.
    """
    text = row["text"]
    spans = [*row["ents"], *(r[side] for r in row["relations"] for side in ("head", "tail"))]
    cuts = {0, len(text)}
    for token in nlp.make_doc(text):
        cuts |= {token.idx, token.idx + len(token)}
    for span in spans:
        cuts |= {span["start_char"], span["end_char"]}
    ordered = sorted(cut for cut in cuts if 0 <= cut <= len(text))
    pieces = [text[a:b] for a, b in pairwise(ordered)]
    words, spaces = get_words_and_spaces([piece for piece in pieces if piece.strip()], text)
    doc = Doc(nlp.vocab, words=words, spaces=spaces)
    for _, component in nlp.pipeline:
        doc = component(doc)
    doc.ents = filter_spans([_span(doc, ent) for ent in row["ents"]])
    doc._.relations = [
        {**relation, "head": _span(doc, relation["head"]), "tail": _span(doc, relation["tail"])}
        for relation in row["relations"]
    ]
    doc.user_data |= {key: row[key] for key in ("id", "meta", "error") if row.get(key) not in (None, {})}
    return doc


def _span(doc: Doc, mention: Mapping[str, Any]) -> Span:
    start, end = mention["start_char"], mention["end_char"]
    if not 0 <= start < end <= len(doc.text):
        raise ValueError(f"no text at characters {start}..{end}")
    kb_id = mention.get("kb_id", "")
    span = doc.char_span(start, end, label=mention["label"], kb_id=kb_id, alignment_mode="expand")
    if span is None:
        raise ValueError(f"no text at characters {start}..{end}")
    return span
