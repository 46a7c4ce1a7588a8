"""From rows to Docs: tokens that fit the mentions, gold entities, gold relations, and a report of what became of each.

Every mention is in `doc.spans["gold"]`. `doc.ents` cannot hold overlapping spans, so of two that overlap it has the
longer (the first of two that are as long). Relations are on the exact mentions, in `doc.ents` or not. Pairs that are
annotated with the data set's negative label are relations under that label; the scorer leaves them out.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spacy.tokens import Doc
from spacy.util import filter_spans

from spacy_relx.data.base import Mention, OnError, Problem, Row
from spacy_relx.errors import DataError
from spacy_relx.relation import DEFAULT_ATTR
from spacy_relx.scorer import NEGATIVE_LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spacy.language import Language
    from spacy.tokens import Span

    from spacy_relx.data.base import DataSet, Item

#: Name of the span group with all gold mentions.
GOLD_SPANS = "gold"

#: Key of a row's identifier in `Doc.user_data`. In this form a DocBin that keeps user data carries it, and
#: `Span.as_doc` leaves it behind; it is also where spaCy stores an extension attribute `relx_id`.
ID_KEY = ("._.", "relx_id", None, None)

SPLIT_TOKENS = "tokens were split where a mention begins or ends in one"
TWICE = "the relation is there twice: kept once"
OVERLAP = "overlaps another mention: in the span group, not in doc.ents"


@dataclass
class Report:
    """What was read, what of it is in the Docs, and what is not.

    Attributes:
        n_rows: Rows read, the ones that were skipped among them.
        n_docs: Docs made.
        n_mentions: Gold mentions in them.
        n_relations: Gold relations, the negative ones left out.
        n_negatives: Pairs annotated with the negative label.
        labels: How often each label occurs.
        problems: Everything that was skipped or is worth knowing, in order.
    """

    n_rows: int = 0
    n_docs: int = 0
    n_mentions: int = 0
    n_relations: int = 0
    n_negatives: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def count(self, what: str) -> int:
        """Return how many problems cost a "row", a "relation" or a "mention", or are a "note"."""
        return sum(problem.what == what for problem in self.problems)

    def reasons(self) -> list[tuple[str, str, int, Problem]]:
        """Return (what, reason, how often, first problem) for every kind of problem, what is lost first."""
        counts = Counter((problem.what, problem.reason) for problem in self.problems)
        first: dict[tuple[str, str], Problem] = {}
        for problem in self.problems:
            first.setdefault((problem.what, problem.reason), problem)
        order = {"row": 0, "relation": 1, "mention": 2, "note": 3}
        keys = sorted(counts, key=lambda key: (order[key[0]], -counts[key], key))
        return [(*key, counts[key], first[key]) for key in keys]

    def __str__(self) -> str:
        parts = [
            f"{self.n_rows} rows read: {self.n_docs} Docs, {self.n_mentions} mentions, {self.n_relations} relations"
        ]
        parts += [f"{self.n_negatives} negative pairs"] if self.n_negatives else []
        lost = [f"{self.count(what)} {what}s" for what in ("row", "relation", "mention") if self.count(what)]
        parts += [f"skipped: {', '.join(lost)}"] if lost else []
        return "; ".join(parts)


def read_docs(
    dataset: DataSet,
    paths: Path | str | Iterable[Path | str],
    nlp: Language,
    *,
    on_error: OnError = "skip",
    limit: int = 0,
    merge: bool = False,
    report: Report | None = None,
    **options: str,
) -> Iterator[Doc]:
    """Read files of a data set as Docs with gold entities and relations.

    Args:
        dataset: The data set.
        paths: One file or several.
        nlp: Tokenises what the data set does not.
        on_error: What to do with a row or relation that cannot be used: "skip" puts it into the report and goes on,
            "raise" stops.
        limit: Most Docs; 0: all.
        merge: Whether rows of the same text that follow each other become one Doc with the pairs of all of them.
        report: Filled while the Docs are read.
        **options: The data set's own options.

    Raises:
        DataError: A file cannot be read, an option is unknown, or a row cannot be used and `on_error` is "raise".
    """
    if on_error not in ("skip", "raise"):
        raise DataError(f"on_error is {on_error!r}. Expected 'skip' or 'raise'.")
    report = Report() if report is None else report
    settings = dataset.check_options(options)
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    for path in files:
        if not path.is_file():
            raise DataError(f"{str(path)!r} does not exist. Expected a file of {dataset.title}; check the path.")
    for path in files:
        items = dataset.read(path, **settings)
        for n_rows, item in _merged(items) if merge else ((1, item) for item in items):
            problems = [item] if isinstance(item, Problem) else []
            doc = None
            if isinstance(item, Row):
                doc, problems = make_doc(item, nlp)
            report.n_rows += n_rows if isinstance(item, Row) else item.what == "row"
            for problem in problems:
                if on_error == "raise" and problem.is_fault:
                    raise DataError(f"{problem} ({dataset.title}). Mend the data, or let it be skipped.")
                report.problems.append(problem)
            if doc is not None:
                _count(report, doc)
                yield doc
                if limit and report.n_docs >= limit:
                    return


def _merged(items: Iterable[Item]) -> Iterator[tuple[int, Item]]:
    """Merge neighbouring rows of one text; give (number of rows, row), and problems as they come."""
    rows: list[Row] = []
    for item in items:
        if isinstance(item, Problem):
            yield 1, item
            continue
        if rows and (item.text, item.words, item.sents) != (rows[0].text, rows[0].words, rows[0].sents):
            yield len(rows), _merge(rows)
            rows = []
        rows.append(item)
    if rows:
        yield len(rows), _merge(rows)


def _merge(rows: list[Row]) -> Row:
    """Return the first row with the mentions and relations of all; equal mentions become one."""
    index: dict[Mention, int] = {}
    relations: list[tuple[int, int, str]] = []
    for row in rows:
        places = [index.setdefault(mention, len(index)) for mention in row.mentions]
        relations += [(places[head], places[tail], label) for head, tail, label in row.relations]
    return dataclasses.replace(rows[0], mentions=tuple(index), relations=tuple(relations))


def make_doc(row: Row, nlp: Language) -> tuple[Doc | None, list[Problem]]:
    """Return the Doc of a row, or None if it has none, and whatever of the row is not in it."""
    problems: list[Problem] = []
    mentions = [_trim(row, mention) for mention in row.mentions]
    for before, trimmed in zip(row.mentions, mentions):
        if trimmed is None:
            detail = f"characters {before.start}..{before.end} of {len(row.text)}"
            problems.append(Problem(row.place, "a mention is empty or outside the text", detail, "mention"))
    places = [(mention.start, mention.end) for mention in mentions if mention is not None]
    doc, n_split = _tokens(row, sorted({border for place in places for border in place}), nlp)
    if not len(doc):
        return None, [Problem(row.place, "the text is empty")]
    if n_split:
        problems.append(Problem(row.place, SPLIT_TOKENS, f"{n_split} in {row.text[:60]!r}", "note"))
    _set_sentences(doc, row.sents)
    spans: list[Span | None] = [
        None if mention is None else doc.char_span(mention.start, mention.end, mention.type, kb_id=mention.kb_id)
        for mention in mentions
    ]
    unique = list({(span.start, span.end, span.label_): span for span in reversed(spans) if span is not None}.values())[
        ::-1
    ]
    kept = filter_spans(unique)
    left_out = {(s.start, s.end, s.label_) for s in unique} - {(s.start, s.end, s.label_) for s in kept}
    for start, end, _ in sorted(left_out):
        problems.append(Problem(row.place, OVERLAP, repr(doc[start:end].text), "note"))
    doc.set_ents(kept)  # tokens outside are annotated as no entities
    doc.spans[GOLD_SPANS] = sorted(unique, key=lambda span: (span.start, span.end))
    relations = []
    seen: set[tuple[int, int, int, int, str]] = set()
    for head, tail, label in row.relations:
        a, b = spans[head], spans[tail]
        if a is None or b is None:
            problems.append(Problem(row.place, "an argument is no mention of the text", label, "relation"))
            continue
        key = (a.start, a.end, b.start, b.end, label)
        if key[:2] == key[2:4]:
            problems.append(Problem(row.place, "head and tail are the same place", f"{label} {a.text!r}", "relation"))
        elif key in seen:
            detail = f"({a.text}, {label}, {b.text})"
            problems.append(Problem(row.place, TWICE, detail, "note"))
        else:
            seen.add(key)
            relations.append((a, label, b))
    setattr(doc._, DEFAULT_ATTR, relations)
    doc.user_data[ID_KEY] = row.id
    return doc, problems


def doc_id(doc: Doc) -> str | None:
    """Return the identifier of this Doc: its data set's, also after a DocBin, or the `id` that `annotate` keeps."""
    value = doc.user_data.get(ID_KEY, doc.user_data.get("id"))
    return None if value is None else str(value)


def is_negative(label: str) -> bool:
    """Tell whether a label says that there is no relation."""
    return label.lower() in NEGATIVE_LABELS


def _count(report: Report, doc: Doc) -> None:
    labels = [relation.label for relation in getattr(doc._, DEFAULT_ATTR)]
    report.n_docs += 1
    report.n_mentions += len(doc.spans[GOLD_SPANS])
    report.n_negatives += sum(map(is_negative, labels))
    report.n_relations += sum(not is_negative(label) for label in labels)
    report.labels.update(labels)


def _trim(row: Row, mention: Mention) -> Mention | None:
    """Take white space off the ends of a mention; None if nothing is left or it is not inside the text."""
    if not 0 <= mention.start < mention.end <= len(row.text):
        return None
    text = row.text[mention.start : mention.end]
    start = mention.start + len(text) - len(text.lstrip())
    end = mention.end - (len(text) - len(text.rstrip()))
    return dataclasses.replace(mention, start=start, end=end) if start < end else None


def _tokens(row: Row, borders: list[int], nlp: Language) -> tuple[Doc, int]:
    """Tokenise the row so that every border lies between two tokens; also how many tokens were split for that."""
    doc: Doc | None = None
    if row.words:
        pieces = []
        at = 0
        for word in filter(None, row.words):
            pieces.append((at, at + len(word)))
            at += len(word) + 1
    else:
        doc = nlp.make_doc(row.text)
        pieces = [(token.idx, token.idx + len(token)) for token in doc]
    cut: list[tuple[int, int]] = []
    n_split = 0
    for start, end in pieces:
        inside = borders[bisect_right(borders, start) : bisect_left(borders, end)]
        n_split += bool(inside)
        cut += zip([start, *inside], [*inside, end])
    if doc is not None and not n_split:
        return doc, 0
    starts = [start for start, _ in cut[1:]] + [len(row.text)]
    words = [row.text[start:end] for start, end in cut]
    spaces = [end < start or row.text[end : end + 1] == " " for (_, end), start in zip(cut, starts)]
    return Doc(nlp.vocab, words=words, spaces=spaces), n_split


def _set_sentences(doc: Doc, sents: tuple[int, ...]) -> None:
    if not sents:
        return
    places = [token.idx for token in doc]
    starts = {bisect_left(places, start) for start in sents} | {0}
    for token in doc:
        token.is_sent_start = token.i in starts
