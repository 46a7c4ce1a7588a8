"""Reads brat standoff back as Docs: what `write_brat` wrote and people corrected, or anybody's entities and relations.

Text-bound annotations are entities, binary relations are relations; events, attributes and the like are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spacy

from spacy_relx._annotated import from_row
from spacy_relx.errors import DataError
from spacy_relx.export.brat import NO_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy.language import Language
    from spacy.tokens import Doc

_MENTION = re.compile(r"(T\S+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t.*)?")
_RELATION = re.compile(r"(R\S+)\t(\S+) Arg1:(T\S+) Arg2:(T\S+)\s*")
_NOTE = re.compile(r"#\S*\t\S+ (\S+)\t(.*)")
_SCORE = re.compile(r"score=([\d.eE+-]+)(?: inverse=(.+))?")


def read_brat(folder: str | Path, nlp: Language | None = None) -> Iterator[Doc]:
    """Yield the Docs of a folder of .txt and .ann files, in the order of their names.

    Args:
        folder: The folder.
        nlp: Splits the text into tokens, and wherever a mention begins or ends it is split once more. Left out: rules
            for any language, with sentence boundaries.

    Raises:
        DataError: If there are no such files, or a line of one is not brat's.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.ann"))
    if not paths:
        raise DataError(f"{str(folder)!r} has no .ann files. Expected a folder of brat's .txt and .ann files.")
    if nlp is None:
        nlp = spacy.blank("xx")
        nlp.add_pipe("sentencizer")
    names = _display_names(folder / "visual.conf")
    ids = dict(_pairs(folder / "documents.tsv", "\t"))
    order = {stem: number for number, stem in enumerate(ids)}  # as they were written; files of others come after
    for path in sorted(paths, key=lambda path: order.get(path.stem, len(order))):
        yield _read(path, names, ids.get(path.stem, path.stem), nlp)


def _read(path: Path, names: dict[str, str], name: str, nlp: Language) -> Doc:
    text = _text(path.with_suffix(".txt"))
    lines = _text(path).split("\n")
    mentions: dict[str, dict[str, Any]] = {}
    relations: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            _add(line.rstrip("\r"), mentions, relations, names)
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{path}:{number} has {line[:200]!r} ({error}). Expected an annotation of brat, such as "
                "T1<tab>PERSON 0 11<tab>Marie Curie, after those that it names."
            ) from error
    row = {"id": name, "text": text, "ents": list(mentions.values()), "relations": list(relations.values())}
    try:
        return from_row(row, nlp)
    except (ValueError, KeyError) as error:
        raise DataError(f"{str(path)!r} does not fit its .txt file: {error}. Expected offsets in it.") from error


def _add(
    line: str, mentions: dict[str, dict[str, Any]], relations: dict[str, dict[str, Any]], names: dict[str, str]
) -> None:
    """Add what a line says; a line must come after those that it names, as it does in what brat writes."""
    if line.startswith("T"):
        key, label, places = _match(_MENTION, line)
        offsets = [int(value) for value in re.split("[ ;]", places)]
        label = names.get(label, label)
        label = "" if label == NO_TYPE else label
        mentions[key] = {"start_char": offsets[0], "end_char": offsets[-1], "label": label}
    elif line.startswith("R"):
        key, label, head, tail = _match(_RELATION, line)
        relations[key] = {"head": mentions[head], "tail": mentions[tail], "label": names.get(label, label)}
    elif line.startswith("#") and (note := _NOTE.fullmatch(line)):
        key, text = note.groups()
        if key in mentions and text.startswith("kb_id="):
            mentions[key]["kb_id"] = text.removeprefix("kb_id=")
        elif key in relations and (score := _SCORE.fullmatch(text)):
            relations[key]["score"] = float(score[1])
            relations[key]["inverse_label"] = score[2]


def _match(pattern: re.Pattern[str], line: str) -> tuple[str, ...]:
    found = pattern.fullmatch(line)
    if found is None:
        raise ValueError("it cannot be read")
    return tuple(map(str, found.groups()))


def _display_names(path: Path) -> dict[str, str]:
    """Return what types stand for, by the section [labels] of visual.conf."""
    return {short: name for short, name in _pairs(path, " | ") if name}


def _pairs(path: Path, separator: str) -> Iterator[tuple[str, str]]:
    if path.is_file():
        for line in _text(path).split("\n"):
            first, found, second = line.rstrip("\r").partition(separator)
            if found and not first.startswith(("#", "[")):
                yield first.strip(), second


def _text(path: Path) -> str:
    try:
        # As bytes: offsets count every character, also the two of a Windows line end.
        return path.read_bytes().decode("utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{str(path)!r} cannot be read: {error}. Expected a .txt file beside each .ann file, all in UTF-8."
        ) from error
