"""Compare what the readers find in the data sets' own files with the published sizes, and with their known traps.

Usage: python scripts/check_datasets.py DATA

DATA holds one folder for each data set, with the file names of its public repository (`project.yml` names the
addresses). A data set that is not there is told and left out. The exit status is 1 if a figure differs.
"""

# ruff: noqa: D103 - a check has the name of the data set it checks

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spacy

from spacy_relx.data import DATASETS, Report, doc_id, read_docs
from spacy_relx.data.docs import GOLD_SPANS, TWICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spacy.tokens import Doc


@dataclass(frozen=True)
class Check:
    """One figure: what is published or known, and what was found."""

    dataset: str
    split: str
    what: str
    expected: object
    found: object

    @property
    def is_met(self) -> bool:
        """Whether the figure is the expected one, or none is expected."""
        return self.expected is None or self.expected == self.found


@cache
def load(folder: Path, name: str, split: str, **options: str) -> tuple[list[Doc], Report]:
    entry = DATASETS[name]
    file = next(s.file for s in entry.splits if s.name == split)
    report = Report()
    docs = list(read_docs(entry, folder / file, spacy.blank("en"), report=report, **options))
    return docs, report


def checks(folder: Path) -> Iterator[Check]:
    for name, entry in DATASETS.items():
        present = [split for split in entry.splits if (folder / split.file).is_file()]
        options = {"level": "document"} if "level" in entry.options else {}
        for split in present:
            docs, report = load(folder, name, split.name, **options)
            n_relations = report.n_relations + report.count("relation") + n_twice(report)
            yield Check(name, split.name, "rows", split.n_rows, report.n_rows)
            yield Check(name, split.name, "Docs", None, report.n_docs)
            yield Check(name, split.name, "relations in the file", split.n_relations, n_relations)
            yield Check(name, split.name, "different relations in the Docs", split.n_distinct, report.n_relations)
            yield Check(name, split.name, "negative pairs", None, report.n_negatives)
            yield Check(name, split.name, "relations that cannot be placed", None, report.count("relation"))
            broken = [doc for doc in docs if not mentions_fit(doc)]
            yield Check(name, split.name, "Docs whose relations are not on gold mentions", 0, len(broken))
        if present and name in MORE:
            yield from MORE[name](folder)


def n_twice(report: Report) -> int:
    return sum(problem.reason == TWICE for problem in report.problems)


def mentions_fit(doc: Doc) -> bool:
    gold = {(span.start, span.end) for span in doc.spans[GOLD_SPANS]}
    used = {(m.start, m.end) for relation in doc._.relations for m in (relation.head, relation.tail)}
    return used <= gold and {(ent.start, ent.end) for ent in doc.ents} <= gold


def conll04(folder: Path) -> Iterator[Check]:
    splits = {split: load(folder, "conll04", split)[0] for split in ("train", "dev", "test")}
    for split, expected in (("train", 11998), ("dev", 3260), ("test", 3822)):
        n_pairs = sum(len(doc.ents) * (len(doc.ents) - 1) for doc in splits[split])
        yield Check("conll04", split, "ordered pairs of entities", expected, n_pairs)
    for split, expected in (("train", 18), ("dev", 3)):
        other = {doc.text for doc in splits[split]}
        n_leaks = sum(doc.text in other for doc in splits["test"])
        yield Check("conll04", "test", f"sentences also in {split}", expected, n_leaks)
    pairs = defaultdict(set)
    for docs in splits.values():
        for doc in docs:
            for relation in doc._.relations:
                pairs[relation.head.label_, relation.tail.label_].add(relation.label)
    n_doubtful = sum(len(labels) > 1 for labels in pairs.values())
    yield Check("conll04", "all", "type pairs with several labels", 0, n_doubtful)


def redocred(folder: Path) -> Iterator[Check]:
    for split, n_relations, n_inside in (("dev", 17284, 7982), ("test", 17448, 8156)):
        docs, report = load(folder, "redocred", split, level="sentence")
        yield Check("redocred", split, "sentences (level=sentence)", None, len(docs))
        yield Check("redocred", split, "both in one sentence", n_inside, n_relations - report.count("relation"))
        yield Check("redocred", split, "relations (level=sentence)", None, report.n_relations)
        pairs = {  # a pair that meets in several sentences counts once
            (doc_id(doc).rpartition("#")[0], relation.head.kb_id_, relation.tail.kb_id_, relation.label)
            for doc in docs
            for relation in doc._.relations
        }
        known = (0.24, 0.89) if split == "test" else None
        yield from several_labels("redocred", split, Counter(pair[:3] for pair in pairs), known)


def nyt11(folder: Path) -> Iterator[Check]:
    for split in ("dev", "test"):
        docs, report = load(folder, "nyt11", split)
        yield Check("nyt11", split, "labels that occur", 22 if split == "test" else None, len(report.labels))
        n_labels = Counter((i, r.head.start, r.tail.start) for i, doc in enumerate(docs) for r in doc._.relations)
        # With the triples that are there twice counted as further labels it would be 0.20 and 0.88.
        yield from several_labels("nyt11", split, n_labels, (0.15, 0.91) if split == "test" else None)


def several_labels(name: str, split: str, n_labels: Counter[Any], known: tuple[float, float] | None) -> Iterator[Check]:
    share = sum(n > 1 for n in n_labels.values()) / len(n_labels)
    ceiling = 2 * len(n_labels) / (len(n_labels) + n_labels.total())
    yield Check(name, split, "share of pairs with several labels", known and known[0], round(share, 2))
    yield Check(name, split, "best F1 of one answer a pair", known and known[1], round(ceiling, 2))


def wiki80(folder: Path) -> Iterator[Check]:
    if not (folder / "fewrel/val_wiki.json").is_file():
        return
    fewrel = {doc.text for doc in load(folder, "fewrel", "val_wiki")[0]}
    for split, expected in (("dev", 1147), ("train_0.1", 807)):
        docs, report = load(folder, "wiki80", split)
        yield Check("wiki80", split, "labels that occur", 80, len(report.labels))
        yield Check("wiki80", split, "rows also in FewRel", None, sum(doc.text in fewrel for doc in docs))
        yield Check("wiki80", split, "sentences also in FewRel", expected, len(fewrel & {doc.text for doc in docs}))


def labels_of(name: str, expected: dict[str, int]) -> Callable[[Path], Iterator[Check]]:
    def check(folder: Path) -> Iterator[Check]:
        for split, n_labels in expected.items():
            yield Check(name, split, "labels that occur", n_labels, len(load(folder, name, split)[1].labels))

    return check


MORE = {
    "conll04": conll04,
    "redocred": redocred,
    "nyt11": nyt11,
    "wiki80": wiki80,
    "semeval2010_task8": labels_of("semeval2010_task8", {"train": 19}),
    "gids": labels_of("gids", {"dev": 5, "test": 5}),
    "kbp37": labels_of("kbp37", {"train": 37}),
    "scierc": labels_of("scierc", {"train": 7}),
    "fewrel": labels_of("fewrel", {"val_wiki": 16}),
    "rebel": labels_of("rebel", {"sample": 186}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with a folder for each data set")
    folder = parser.parse_args().data
    for entry in DATASETS.values():
        for split in entry.splits:
            if not (folder / split.file).is_file():
                print(f"not there: {split.file}", file=sys.stderr)
    found = list(checks(folder))
    print("| data set | split | what | expected | found | |\n|---|---|---|---|---|---|")
    for check in found:
        mark = "" if check.expected is None else "ok" if check.is_met else "DIFFERS"
        expected = "" if check.expected is None else check.expected
        print(f"| {check.dataset} | {check.split} | {check.what} | {expected} | {check.found} | {mark} |")
    n_checked = sum(check.expected is not None for check in found)
    n_off = sum(not check.is_met for check in found)
    print(f"\n{n_checked} figures compared, {n_off} differ.")
    return 1 if n_off or not found else 0


if __name__ == "__main__":
    sys.exit(main())
