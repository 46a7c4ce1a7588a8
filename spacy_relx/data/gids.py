"""GIDS: tab-separated lines, the two entities named with underscores, as they occur in the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacy_relx.data.align import align
from spacy_relx.data.base import BadRow, DataSet, Item, Mention, Problem, Row, Split, check_label, parse_each
from spacy_relx.data.files import lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_END = "###END###"


def _read(path: Path, *, names: str = "spaces") -> Iterator[Item]:
    def parse(place: str, id: str, line: str) -> Iterator[Item]:
        values = line.split("\t")
        if len(values) != 6:
            raise BadRow("expected 6 values with tabs between them", len(values))
        head_id, tail_id, head, tail, label, text = values
        check_label("gids", label)
        text = text.strip().removesuffix(_END).strip()
        found = align(text, [head, tail])
        for name in (head, tail):
            if name not in found:
                raise BadRow("an entity is not in the text", name)
            for note in found[name].notes:
                yield Problem(place, f"an entity {note}", name, "note")
            if names == "spaces":  # as long as before, so offsets stay
                text = text.replace(name, name.replace("_", " "))
        a, b = (
            Mention(found[name].start, found[name].end, kb_id=kb_id)
            for name, kb_id in ((head, head_id), (tail, tail_id))
        )
        yield Row(id, place, text, (a, b), ((0, 1, label),))

    yield from parse_each(path, lines(path), parse)


GIDS = DataSet(
    "gids",
    "GIDS (Google-IISc Distant Supervision)",
    "none stated",
    "https://github.com/SharmisthaJat/RE-DS-Word-Attention-Models",
    _read,
    schema="gids",
    negative="NA",
    options={"names": ("spaces", "underscores")},
    splits=(Split("dev", "gids/dev.tsv", 1864), Split("test", "gids/test.tsv", 5663, 4307)),
    note="Distant supervision. names=spaces writes Peter_Coke as Peter Coke. A text of several sentences is one scope.",
)
