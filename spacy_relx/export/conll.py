r"""Documents as CoNLL-U Plus: a token a line, for people who annotate or train on columns.

Columns are `ID`, `FORM`, `RELX:NER` (B-PERSON, I-PERSON, O), `RELX:REL` and `MISC` (white space, as Universal
Dependencies has it). A relation stands at the first token of its tail, as `ID:label` with the ID of the first token of
its head; several have bars between them. In a label %, |, and white space are percent-encoded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO
from urllib.parse import quote

from spacy.util import filter_spans

from spacy_relx.data.docs import doc_id
from spacy_relx.export.characters import one_line
from spacy_relx.relation import DEFAULT_ATTR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spacy.tokens import Doc, Span, Token

    from spacy_relx.relation import Relation

COLUMNS = ("ID", "FORM", "RELX:NER", "RELX:REL", "MISC")
_ESCAPES = str.maketrans({" ": r"\s", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\", "|": r"\p"})


def write_conll(docs: Iterable[Doc], file: TextIO, *, attr: str = DEFAULT_ATTR) -> None:
    """Write Docs, sentence by sentence; sentences that a relation joins stay together.

    Columns cannot hold mentions that overlap: of two, the longer is kept. How many relations a sentence loses by that
    is in its comment `left_out`.
    """
    file.write(f"# global.columns = {' '.join(COLUMNS)}\n")
    for number, doc in enumerate(docs, 1):
        name = one_line(doc_id(doc) or str(number))
        relations = getattr(doc._, attr)
        spans = [*doc.ents, *(span for relation in relations for span in (relation.head, relation.tail))]
        mentions = filter_spans(spans)
        tags = {
            token.i: f"{'B' if token.i == span.start else 'I'}-{_encoded(span.label_) or '_'}"
            for span in mentions
            for token in span
        }
        blocks = (tokens for tokens in _blocks(doc, relations, spans) if not all(token.is_space for token in tokens))
        for block, tokens in enumerate(blocks, 1):
            if block == 1:
                file.write(f"# newdoc id = {name}\n")
            file.write(f"# sent_id = {name}-{block}\n# text = {one_line(tokens.text)}\n")
            ids = _ids(tokens)
            inside = [r for r in relations if tokens.start <= r.head.start < tokens.end]
            known = {(span.start, span.end) for span in mentions if any(token.i in ids for token in span)}
            kept = [r for r in inside if all((m.start, m.end) in known for m in (r.head, r.tail))]
            if len(kept) < len(inside):
                file.write(f"# left_out = {len(inside) - len(kept)}\n")
            found = _at_tails(kept, ids)
            for i, token_id in ids.items():
                space = _space(doc[i], is_first=block == token_id == 1)
                cells = (str(token_id), one_line(doc[i].text), tags.get(i, "O"), found.get(i, "_"), space)
                file.write("\t".join(cells) + "\n")
            file.write("\n")


def _ids(tokens: Span) -> dict[int, int]:
    """Return the column ID of each token, from 1; white space has none."""
    return {token.i: number for number, token in enumerate((t for t in tokens if not t.is_space), 1)}


def _blocks(doc: Doc, relations: Iterable[Relation], mentions: Iterable[Span]) -> Iterator[Span]:
    """Yield the sentences, joined where a mention or a relation leads from one to another."""
    cuts = {0, len(doc)}
    if doc.has_annotation("SENT_START"):
        cuts |= {sentence.start for sentence in doc.sents}
    stretches = [(mention.start, mention.end) for mention in mentions]
    stretches += [(min(r.head.start, r.tail.start), max(r.head.end, r.tail.end)) for r in relations]
    for start, end in stretches:
        cuts.difference_update(range(start + 1, end))
    for start, end in pairwise(sorted(cuts)):
        yield doc[start:end]


def _at_tails(relations: Iterable[Relation], ids: dict[int, int]) -> dict[int, str]:
    """Return what the column of relations has at a token."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for relation in relations:
        head, tail = (next(token.i for token in m if token.i in ids) for m in (relation.head, relation.tail))
        found[tail].append((ids[head], _encoded(relation.label) or "_"))
    return {place: "|".join(f"{head}:{label}" for head, label in sorted(items)) for place, items in found.items()}


def _encoded(label: str) -> str:
    return re.sub(r"[%|\s]", lambda match: quote(match[0], safe=""), one_line(label))


def _space(token: Token, *, is_first: bool) -> str:
    """Return what is said of the white space around a token, from which the text can be put together again."""
    doc, said = token.doc, []
    if is_first and token.i > 0:
        said.append(f"SpacesBefore={doc[: token.i].text_with_ws.translate(_ESCAPES)}")
    end = token.i + 1
    while end < len(doc) and doc[end].is_space:
        end += 1
    after = token.whitespace_ + doc[token.i + 1 : end].text_with_ws
    if not after:
        said.append("SpaceAfter=No")
    elif after != " ":
        said.append(f"SpacesAfter={after.translate(_ESCAPES)}")
    return "|".join(said) or "_"
