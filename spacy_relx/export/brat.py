"""Documents as brat standoff: for every one a .txt file and an .ann file, and two configuration files beside them.

brat and the tools that read its format let people correct entities and relations; `read_brat` takes the result back.
Types in brat are of letters, digits, - and _ only, so others are written in that alphabet, and `visual.conf` has what
they stand for, which is also what brat shows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from spacy_relx.data.docs import doc_id
from spacy_relx.export.characters import encodable, one_line
from spacy_relx.relation import DEFAULT_ATTR

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from spacy.tokens import Doc, Span

    from spacy_relx.relation import Relation

#: What a mention without an entity type is called.
NO_TYPE = "MENTION"
_NOT_A_TYPE = re.compile(r"[^A-Za-z0-9_-]")
_NOT_A_FILE = re.compile(r"[^\w.-]")
_MAX_STEM = 100  # bytes, as file systems count
#: What Windows takes for a device, and what a program takes for an option.
_NOT_A_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|-.*", re.IGNORECASE)


def write_brat(docs: Iterable[Doc], folder: Path, *, attr: str = DEFAULT_ATTR) -> None:
    """Write Docs with their entities and relations; a score is in the relation's note.

    A Doc's id names its files, as far as a file can have that name; documents.tsv has file and id of each Doc.
    """
    types = _Types()
    pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    stems: set[str] = set()
    listing = folder / "documents.tsv"
    with listing.open("w", encoding="utf8", newline="") as index:
        for number, doc in enumerate(docs, 1):
            name = doc_id(doc) or str(number)
            stem = _stem(name, stems)
            index.write(f"{stem}\t{one_line(name)}\n")
            # Offsets count characters of the file, so its line ends must be those of the text.
            (folder / f"{stem}.txt").write_text(encodable(doc.text), encoding="utf8", newline="")
            lines = _annotations(doc, getattr(doc._, attr), types, pairs)
            (folder / f"{stem}.ann").write_text("".join(lines), encoding="utf8", newline="")
    _write_configuration(folder, types, pairs)


class _Types:
    """Names of types in brat's alphabet, each for one name of ours."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.entities: dict[str, None] = {}

    def __call__(self, name: str) -> str:
        if name not in self.names:
            short = base = _NOT_A_TYPE.sub("_", name) or "_"
            taken = set(self.names.values())
            number = 2
            while short in taken:
                short, number = f"{base}_{number}", number + 1
            self.names[name] = short
        return self.names[name]

    def entity(self, label: str) -> str:
        name = self(label or NO_TYPE)
        self.entities[name] = None
        return name


def _annotations(
    doc: Doc, relations: Iterable[Relation], types: _Types, pairs: dict[str, set[tuple[str, str]]]
) -> list[str]:
    mentions: dict[tuple[int, int, str], str] = {}
    lines: list[str] = []

    def mention(span: Span) -> str:
        key = (span.start_char, span.end_char, span.label_)
        if key not in mentions:
            mentions[key] = f"T{len(mentions) + 1}"
            places, text = _fragments(span)
            lines.append(f"{mentions[key]}\t{types.entity(span.label_)} {places}\t{text}\n")
            if span.kb_id_:
                lines.append(f"#{len(lines)}\tAnnotatorNotes {mentions[key]}\tkb_id={one_line(span.kb_id_)}\n")
        return mentions[key]

    for ent in doc.ents:
        mention(ent)
    for number, relation in enumerate(relations, 1):
        label = types(relation.label)
        ends = mention(relation.head), mention(relation.tail)
        pairs[label].add((types.entity(relation.head.label_), types.entity(relation.tail.label_)))
        lines.append(f"R{number}\t{label} Arg1:{ends[0]} Arg2:{ends[1]}\n")
        inverse = f" inverse={one_line(relation.inverse_label)}" if relation.inverse_label else ""
        lines.append(f"#{len(lines)}\tAnnotatorNotes R{number}\tscore={relation.score!r}{inverse}\n")
    return lines


def _fragments(span: Span) -> tuple[str, str]:
    """Return the offsets and the text of a mention; brat takes no line break in one, so there it goes on anew."""
    pieces = [(match.start() + span.start_char, match[0]) for match in re.finditer(r"[^\r\n]+", span.text)]
    return ";".join(f"{start} {start + len(text)}" for start, text in pieces), " ".join(text for _, text in pieces)


def _stem(name: str, taken: set[str]) -> str:
    """Return a file name for a document that no other has, on any file system."""
    base = _NOT_A_FILE.sub("_", name).encode("utf8")[:_MAX_STEM].decode("utf8", "ignore").strip(".") or "_"
    if _NOT_A_NAME.fullmatch(base):
        base = f"_{base}"
    stem, number = base, 2
    while stem.casefold() in taken:
        stem, number = f"{base}_{number}", number + 1
    taken.add(stem.casefold())
    return stem


def _write_configuration(folder: Path, types: _Types, pairs: dict[str, set[tuple[str, str]]]) -> None:
    entities = "".join(f"{name}\n" for name in types.entities)
    relations = "".join(
        f"{label}\tArg1:{'|'.join(sorted({a for a, _ in ends}))}, Arg2:{'|'.join(sorted({b for _, b in ends}))}\n"
        for label, ends in pairs.items()
    )
    configuration = f"[entities]\n{entities}\n[relations]\n{relations}\n[events]\n\n[attributes]\n"
    (folder / "annotation.conf").write_text(configuration, encoding="utf8")
    labels = "".join(f"{short} | {shown}\n" for name, short in types.names.items() if (shown := one_line(name)))
    (folder / "visual.conf").write_text(f"[labels]\n{labels}\n[drawing]\n", encoding="utf8")
