"""Reports on hand-made records: what is counted where, what is shown, and that nothing in a text becomes markup."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from spacy_relx.cli import app
from spacy_relx.errors import ConfigError, DataError
from spacy_relx.evaluation.metrics import Decision
from spacy_relx.evaluation.records import MentionRecord, PairRecord, RunInfo, write_records
from spacy_relx.evaluation.thresholds import StoredThresholds
from spacy_relx.report import Options, make_report, plots, write_report
from spacy_relx.report.confusion import (
    NO_ANSWER,
    NO_RELATION,
    NOT_ASKED,
    OTHERS,
    OUTSIDE,
    SECOND,
    confusion_counts,
    confusion_table,
)
from spacy_relx.report.contents import flatten
from spacy_relx.report.gather import settle
from spacy_relx.report.published import figures_for, published
from spacy_relx.report.samples import draw_samples, error_kind, mark
from spacy_relx.report.tables import _md, to_markdown

if TYPE_CHECKING:
    from pathlib import Path

NASTY = '<script>alert("x")</script> & "Tim" $5$ of Apple | *bold*'
TIM = (NASTY.index("Tim"), NASTY.index("Tim") + 3)
APPLE = (NASTY.index("Apple"), NASTY.index("Apple") + 5)
QUICK = {"n_rounds": 20, "n_test_rounds": 50}


def record(
    gold: tuple[str, ...] = (),
    answer: str | None = None,
    *,
    doc: str = "d",
    score: float = 0.9,
    text: str = NASTY,
    head: tuple[int, int] = TIM,
    tail: tuple[int, int] = APPLE,
    **kwargs: Any,
) -> PairRecord:
    return PairRecord(
        doc=doc,
        text=text,
        head=MentionRecord(*head, text[slice(*head)], "PERSON"),
        tail=MentionRecord(*tail, text[slice(*tail)], "ORG"),
        gold=gold,
        answer=answer,
        scores=((answer or "no_relation", score),) if kwargs.get("enumerated", True) else (),
        sentence=(0, len(text)),
        **kwargs,
    )


RECORDS = [
    record(("works_for",), "works_for", doc="a", score=0.95),
    record(("works_for", "founded"), "founded", doc="b", score=0.8),
    record(("works_for",), "founded", doc="c", score=0.6),
    record(("founded",), None, doc="d"),
    record((), "works_for", doc="e", score=0.4),
    record((), None, doc="f"),
    record(("founded",), "<b>boss</b>", doc="g", in_schema=False),
    record(("founded",), None, doc="h", enumerated=False),
]


def write_run(
    path: Path, records: list[PairRecord] = RECORDS, *, dataset: str = "conll04", protocol: Any = "given", **kwargs: Any
) -> Path:
    info = RunInfo(
        dataset,
        kwargs.pop("split", "test"),
        protocol,
        ("works_for", "founded"),
        "no_relation",
        settings=kwargs,
        counts={"n_docs": 8},
    )
    write_records(path, info, records)
    return path


# Confusions and samples.


def test_confusions_by_hand() -> None:
    assert confusion_counts(RECORDS) == {
        ("works_for", "works_for"): 1,
        ("works_for", SECOND): 1,
        ("founded", "founded"): 1,
        ("works_for", "founded"): 1,
        ("founded", NO_ANSWER): 1,
        (NO_RELATION, "works_for"): 1,
        (NO_RELATION, NO_ANSWER): 1,
        ("founded", OUTSIDE): 1,
        ("founded", NOT_ASKED): 1,
    }


def test_a_small_table_is_the_whole_matrix() -> None:
    table = confusion_table(confusion_counts(RECORDS))
    assert table.rows == ("founded", "works_for", NO_RELATION)
    assert table.columns == ("founded", "works_for", NO_ANSWER, OUTSIDE, SECOND, NOT_ASKED)
    assert table.counts == ((1, 0, 1, 1, 0, 1), (1, 1, 0, 0, 1, 0), (0, 1, 1, 0, 0, 0))


def test_a_large_table_keeps_every_count_and_the_most_confused_labels() -> None:
    counts = Counter({(f"l{i}", f"l{i}"): 5 for i in range(50)}) + Counter({("l7", "l31"): 9, ("l7", NO_ANSWER): 2})
    table = confusion_table(counts, max_labels=2)
    assert set(table.rows) == {"l7", "l31", OTHERS}
    assert table.n_labels == 50
    assert sum(map(sum, table.counts)) == counts.total()


@pytest.mark.parametrize(
    ("number", "kind"),
    enumerate([None, None, "wrong", "missed", "spurious", None, "outside", "not_asked"]),
)
def test_kinds_of_error(number: int, kind: str | None) -> None:
    assert error_kind(RECORDS[number]) == kind


def test_samples_are_drawn_alike_each_time_and_counted() -> None:
    records = [record(("works_for",), "founded", doc=str(i)) for i in range(100)]
    n, first = draw_samples(records, n_each=5, seed=3)["wrong"]
    assert (n, len(first)) == (100, 5)
    assert first == draw_samples(records, n_each=5, seed=3)["wrong"][1]
    assert first != draw_samples(records, n_each=5, seed=4)["wrong"][1]
    assert draw_samples(records, n_each=0)["wrong"] == (100, [])


def test_marks_cover_the_sentence_once() -> None:
    segments = mark(RECORDS[0])
    assert "".join(segment.text for segment in segments) == NASTY
    assert [(s.text, s.role) for s in segments if s.role] == [("Tim", "head"), ("Apple", "tail")]


def test_marks_of_nested_mentions() -> None:
    text = "the University of Oslo today"
    segments = mark(record(text=text, head=(4, 22), tail=(18, 22)))
    assert [(s.text, s.role) for s in segments if s.role] == [("University of ", "head"), ("Oslo", "both")]


def test_far_mentions_are_shown_with_a_gap() -> None:
    text = "Tim " + "word " * 500 + "Apple " + "word " * 500
    segments = mark(record(text=text, head=(0, 3), tail=(text.index("Apple"), text.index("Apple") + 5)))
    assert [s.text for s in segments if s.role] == ["Tim", "Apple"]
    assert sum(s.text == " … " for s in segments) == 2
    assert sum(len(s.text) for s in segments) < 800


def test_the_other_order_of_a_symmetric_relation_is_no_error() -> None:
    info = RunInfo("x", "test", "gold_entities", ("married",), "no_relation", {"symmetric": ["married"]})
    there = record(("married",), None)
    back = record((), "married", head=APPLE, tail=TIM)
    assert [error_kind(r) for r in settle(info, [there, back], Decision())] == [None]
    given = RunInfo("x", "test", "given", ("married",), "no_relation", {"symmetric": ["married"]})
    assert [error_kind(r) for r in settle(given, [there, back], Decision())] == ["missed", "spurious"]


def test_a_threshold_turns_answers_into_none() -> None:
    info = RunInfo("x", "test", "given", ("works_for", "founded"), "no_relation")
    kinds = [error_kind(r) for r in settle(info, RECORDS, Decision(0.7))]
    assert kinds == [None, None, "missed", "missed", None, None, "outside", "not_asked"]


# Published figures.


def test_published_figures_are_those_of_the_paper() -> None:
    means = {}
    for system in published()["systems"]:
        assert set(system["f1"]) == set(published()["datasets"])
        means[system["name"].split(",")[0]] = round(sum(system["f1"].values()) / 7, 3)
    # The paper's own means, over the seven data sets.
    assert means == {
        "Llama-3.2-3B GenTune": pytest.approx(0.844, abs=0.0011),
        "Qwen2.5-0.5B GenTune": pytest.approx(0.828, abs=0.0011),
        "SmolLM2-360M GenTune": pytest.approx(0.735, abs=0.0011),
        "RoBERTa-base": pytest.approx(0.826, abs=0.0011),
        "GPT-5.4": pytest.approx(0.693, abs=0.0011),
        "Claude Sonnet 4.6": pytest.approx(0.662, abs=0.0011),
    }


@pytest.mark.parametrize(
    ("dataset", "split", "protocol", "n"),
    [
        ("conll04", "test", "given", 6),
        ("SemEval-2010-Task8", "test", "given", 6),
        ("re-docred", "test", "given", 6),
        ("conll04", "dev", "given", 0),
        ("conll04", "test", "gold_entities", 0),
        ("conll04", "test", "predicted_entities", 0),
        ("kbp37", "test", "given", 0),
    ],
)
def test_published_figures_stand_only_beside_the_same_question(dataset: str, split: str, protocol: Any, n: int) -> None:
    assert len(figures_for(RunInfo(dataset, split, protocol, (), None))) == n


# The report.


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    better = [*RECORDS[:2], record(("works_for",), "works_for", doc="c"), *RECORDS[3:]]
    return [
        write_run(tmp_path / "one.jsonl", model={"base": "<i>m</i>"}),
        write_run(tmp_path / "two.jsonl", better),
        write_run(tmp_path / "all.jsonl", protocol="gold_entities"),
    ]


def test_figures_by_hand(runs: list[Path]) -> None:
    run = make_report(runs[:1], Options(**QUICK)).runs[0]
    # Two hits; answers: four labels and one invention; gold: two pairs with one label and four more.
    assert (run.scores.p, run.scores.r) == (2 / 5, 2 / 7)
    assert run.scores.f == pytest.approx(1 / 3)
    assert run.scores.ceiling == pytest.approx(12 / 13)
    assert run.scores.candidate_recall == pytest.approx(5 / 6)
    assert run.scores.false_positive_rate == 0.5
    assert run.scores.interval is not None
    assert run.scores.interval[0] <= run.scores.f <= run.scores.interval[1]
    assert [(r.label, r.n_gold, r.n_answered, r.n_hits) for r in run.labels] == [
        ("founded", 4, 2, 1),
        ("works_for", 3, 2, 1),
    ]
    assert {kind: n for kind, (n, _) in run.samples.items()} == {
        "wrong": 1, "missed": 1, "spurious": 1, "outside": 1, "not_asked": 1,
    }  # fmt: skip


def test_only_runs_of_one_question_are_compared(runs: list[Path]) -> None:
    report = make_report(runs, Options(**QUICK))
    (comparison,) = report.comparisons
    assert (comparison.name, comparison.other) == ("two", "one")
    assert comparison.difference == pytest.approx(3 / 6 - 1 / 3)
    assert 0 < comparison.p_value <= 1


def test_runs_on_other_documents_are_not_compared_and_that_is_said(tmp_path: Path, runs: list[Path]) -> None:
    other = write_run(tmp_path / "fewer.jsonl", RECORDS[:4])
    report = make_report([runs[0], other], Options(**QUICK))
    assert not report.comparisons
    assert "one and fewer cannot be compared" in report.notes[0]


def test_a_part_of_a_test_set_is_called_one(runs: list[Path]) -> None:
    report = make_report(runs, Options(**QUICK))
    assert [run.part for run in report.runs] == [(8, 288), (8, 288), None]
    assert report.notes[0].startswith("one is about 8 of the 288 texts of CoNLL04, test; the published figures")
    assert "| one (8 of 288 texts) |" in to_markdown(report)


def test_sentences_of_whole_documents_are_counted_as_documents(tmp_path: Path) -> None:
    parts = {}
    for n in (25, 500):  # eight sentences of each
        records = [record(("country",), "country", doc=f"Text {i}#{s}") for i in range(n) for s in range(8)]
        path = write_run(tmp_path / f"{n}.jsonl", records, dataset="redocred")
        parts[n] = make_report([path], Options(**QUICK)).runs[0].part
    assert parts == {25: (25, 500), 500: None}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / folder / "run.jsonl") for folder in ("a", "b")]
    assert [run.name for run in make_report(paths, Options(**QUICK)).runs] == ["a/run", "b/run"]
    assert [run.name for run in make_report([paths[0]] * 2, Options(**QUICK)).runs] == ["a/run (1)", "a/run (2)"]


class Page(HTMLParser):
    """Collects tags, ids and links, and refuses unbalanced markup."""

    VOID = frozenset({"meta", "path", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "xlink:href"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing(tmp_path: Path, runs: list[Path]) -> None:
    files = write_report(make_report(runs, Options(title="A & <b>B</b>", **QUICK)), tmp_path / "out")
    text = files[0].read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == page.tags["i"] == page.tags["b"] - 24 == 0
    assert len(page.ids) == len(set(page.ids))
    targets = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    assert set(targets) <= set(page.ids)
    assert {link for link in page.links if not link.startswith("#")} == {published()["url"]}
    assert "url(http" not in text
    assert "@import" not in text
    # Two protocols, each with an overview; three runs, each with two plots.
    assert page.tags["svg"] == 2 + 3 * 2
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in text
    assert "prefers-color-scheme: dark" in text


def test_protocols_share_no_table(tmp_path: Path, runs: list[Path]) -> None:
    html = write_report(make_report(runs, Options(**QUICK)), tmp_path / "out", with_plots=False)[0].read_text()
    given, entities = html.split('<h2 id="gold_entities">')
    entities = entities.split("</section>")[0]
    assert given.count('<span class="tag">published</span>') == 6
    assert "published" not in entities
    assert ">all</a>" in entities
    assert ">one</a>" not in entities


def test_the_published_way_shares_no_table(tmp_path: Path, runs: list[Path]) -> None:
    asked = write_run(tmp_path / "asked.jsonl", published={"demonstrations": "train.spacy", "seed": 0})
    report = make_report([*runs, asked], Options(**QUICK))
    assert [run.group[2] for run in report.runs if run.name == "asked"] == ["published"]
    assert not [c for c in report.comparisons if "asked" in (c.name, c.other)]
    html = write_report(report, tmp_path / "out", with_plots=False)[0].read_text()
    section = html.split('<h2 id="published">')[1].split("</section>")[0]
    assert "Given pairs, asked as published" in section
    assert section.count('<span class="tag">published</span>') == 6
    assert ">asked</a>" in section
    assert ">one</a>" not in section
    assert ">asked</a>" not in html.split('<h2 id="given">')[1].split("</section>")[0]
    text = to_markdown(report)
    assert text.index("## Given pairs, asked as published") < text.index("## Given pairs\n")
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [run["name"] for run in data["protocols"]["published"][0]["runs"]] == ["asked"]
    rows = csv.DictReader(io.StringIO((tmp_path / "out" / "labels.csv").read_text()))
    assert {row["protocol"] for row in rows if row["run"] == "asked"} == {"published"}


def test_json_and_csv_say_the_same(tmp_path: Path, runs: list[Path]) -> None:
    folder = tmp_path / "out"
    write_report(make_report(runs, Options(**QUICK)), folder, with_plots=False)
    data = json.loads((folder / "report.json").read_text())
    given, entities = (data["protocols"][name][0] for name in ("given", "gold_entities"))
    assert [run["name"] for run in given["runs"]] == ["one", "two"]
    assert (len(given["published"]), len(entities["published"])) == (6, 0)
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    ours = [row for row in rows if row["source"] == "this report"]
    assert [float(row["micro_f"]) for row in ours] == [
        run["scores"]["f"] for group in (given, entities) for run in group["runs"]
    ]
    assert {row["source"] for row in rows} == {"this report", published()["source"]}
    confusion = csv.DictReader(io.StringIO((folder / "confusion.csv").read_text()))
    assert sum(int(row["n"]) for row in confusion if row["run"] == "one") == 9
    assert len(list(csv.DictReader(io.StringIO((folder / "labels.csv").read_text())))) == 6


def test_markdown_escapes_and_aligns(runs: list[Path]) -> None:
    text = to_markdown(make_report(runs, Options(title="<x> | y", **QUICK)))
    assert "<" not in text.replace("|---", "")
    assert "**[1 Tim]**" in text
    assert "| founded | 1 |  | 1 | 1 |  | 1 |" in text.split("### Confusions")[1]
    for table in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "(published)" in text.split("All pairs of gold entities")[0]
    assert "(published)" not in text.split("All pairs of gold entities")[1]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("works_for", "works_for"),
        ("_a_ b__c", r"\_a\_ b\_\_c"),
        ("<b> | # &lt;", "&#60;b&#62; &#124; &#35; &#38;lt;"),
        ("*a* [b](c) `d` \\", r"\*a\* \[b\](c) \`d\` \\"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_escapes(text: str, escaped: str) -> None:
    assert _md(text) == escaped


def test_without_samples_no_text_is_in_any_file(tmp_path: Path, runs: list[Path]) -> None:
    for file in write_report(make_report(runs, Options(n_samples=0, **QUICK)), tmp_path / "out", with_plots=False):
        assert "Apple" not in file.read_text(encoding="utf-8")


def test_a_run_without_answers_has_a_report(tmp_path: Path) -> None:
    path = write_run(tmp_path / "silent.jsonl", [record((), None, doc=str(i)) for i in range(3)])
    report = make_report([path], Options(**QUICK))
    assert report.runs[0].scores.f is None
    assert write_report(report, tmp_path / "out")[0].is_file()


def test_more_figures(tmp_path: Path) -> None:
    label = "Cause-Effect(e1,e2)"
    records = [
        record((label,), label, doc="a", seen="exact"),
        record((label,), None, doc="b"),
        record((), None, doc="c"),
    ]
    path = tmp_path / "semeval.jsonl"
    write_records(path, RunInfo("semeval2010_task8", "test", "given", (label,), "Other"), records)
    more = dict(make_report([path], Options(**QUICK)).runs[0].scores.more)
    assert more["SemEval's official macro-F1"] == pytest.approx(2 / 3)
    assert more["micro-F1 without sentences of the training data"] == 0.0


def test_long_settings_are_flattened() -> None:
    values = {"model": {"base": "m", "adapter": None}, "lr": 2e-5, "labels": ["a", "b"], "empty": {}}
    assert dict(flatten(values)) == {
        "model.base": "m", "model.adapter": "–", "lr": "2e-05", "labels": "a, b", "empty": "{}",  # noqa: RUF001
    }  # fmt: skip


# Thresholds.


def own_threshold(**more: Any) -> dict[str, Any]:
    """Settings of a run of a model, with the pipeline's own threshold."""
    schema = {"labels": {"works_for": None, "founded": {"threshold": 0.9}}}
    return {"model": {"base": "m"}, "scoring": "trie", "threshold": 0.5, "schema": schema} | more


def found_on(**run: str) -> StoredThresholds:
    return StoredThresholds(0.7, {"works_for": 0.3}, {"model": {"base": "m"}, "scoring": "trie"} | run)


DEV = {"dataset": "conll04", "split": "dev", "protocol": "gold_entities"}


def test_figures_with_thresholds_by_hand(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.jsonl", protocol="gold_entities", **own_threshold())
    other = write_run(tmp_path / "other.jsonl", protocol="gold_entities", **own_threshold(model={"base": "n"}))
    given = write_run(tmp_path / "given.jsonl", **own_threshold())
    report = make_report([path, other, given], Options(thresholds=(found_on(**DEV),), **QUICK))
    assert not [note for note in report.notes if "thresholds" in note]
    assert [bool(run.at) for run in report.runs] == [True, False, False]
    # Answers: works_for .95 (right), founded .8 (right), founded .6, works_for .4, and one outside the labels.
    assert [(row.what, row.p, row.r) for row in report.runs[0].at] == [
        ("none: every answer counts", 2 / 5, 2 / 7),
        ("0.5 and the labels' own: as the pipeline is set", 1 / 2, 1 / 7),
        ("0.700: best for all labels on dev", 2 / 3, 2 / 7),
        ("by label: best on dev", 2 / 4, 2 / 7),
    ]
    assert report.runs[0].scores.p == 2 / 5


def test_thresholds_have_a_table_of_their_own(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.jsonl", protocol="gold_entities", **own_threshold())
    report = make_report([path], Options(thresholds=(found_on(**DEV),), **QUICK))
    page = write_report(report, tmp_path / "out", with_plots=False)[0].read_text()
    assert page.count("best for all labels on dev") == 1
    assert "### With thresholds" in to_markdown(report)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "thresholds.csv").read_text())))
    data = json.loads((tmp_path / "out" / "report.json").read_text())["protocols"]["gold_entities"][0]["runs"][0]
    assert [row["threshold"] for row in rows] == [row["what"] for row in data["at_thresholds"]]
    assert [float(row["micro_f"]) for row in rows] == [row["f"] for row in data["at_thresholds"]]


def test_thresholds_of_another_task_or_of_the_shown_data(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.jsonl", protocol="gold_entities", **own_threshold())
    elsewhere = found_on(dataset="gids", split="dev", protocol="gold_entities")
    report = make_report([path], Options(thresholds=(elsewhere,), **QUICK))
    assert report.runs[0].at == ()
    assert [note for note in report.notes if "gids, dev, gold_entities" in note]
    with pytest.raises(DataError, match="the run is about the same split"):
        make_report([path], Options(thresholds=(found_on(**(DEV | {"split": "test"})),), **QUICK))
    with pytest.raises(DataError, match="2 files hold thresholds for conll04"):
        make_report([path], Options(thresholds=(found_on(**DEV), found_on(**DEV)), **QUICK))


def test_where_no_threshold_helps_on_development_data_none_is_shown(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.jsonl")
    report = make_report([path], Options(thresholds=(StoredThresholds(None, run={"dataset": "conll04"}),), **QUICK))
    assert [row.what for row in report.runs[0].at] == ["none: every answer counts"]
    assert "No threshold gives a right answer on the development data of conll04" in " ".join(report.notes)


# Plots.


def test_plots_take_their_colours_from_the_page() -> None:
    svg = plots.overview([("A $ B", [plots.Dot("run $x_1$ </text>", 0.5, 0.4, 0.6)])], name="p")
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert "#1a5bdc" not in svg
    assert "var(--accent)" in svg
    assert "run $x_1$ &lt;/text&gt;" in svg
    assert all(found.startswith("p-") for found in re.findall(r'\bid="([^"]*)"', svg))


def test_without_matplotlib_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = write_run(tmp_path / "one.jsonl")
    with pytest.raises(ConfigError, match=r"pip install 'spacy-relx\[viz\]'.*--no-plots"):
        write_report(make_report([path], Options(**QUICK)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_report(make_report([path], Options(**QUICK)), tmp_path / "out", with_plots=False)


# The command.


TABLES = ("results", "labels", "thresholds", "confusion")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in ("report", *arguments)])


def test_command(tmp_path: Path, runs: list[Path]) -> None:
    thresholds = tmp_path / "thresholds.json"
    thresholds.write_text('{"threshold": 0.7, "labels": {"works_for": 0.1}}')
    result = invoke(*runs, "--out", tmp_path / "out", "--rounds", 10, "--thresholds", thresholds)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "out" / "report.html")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "report.md", "report.json", *(f"{table}.csv" for table in TABLES)}


def test_command_errors(tmp_path: Path) -> None:
    missing = invoke(tmp_path / "none.jsonl", "--out", tmp_path / "out")
    assert missing.exit_code == 1
    assert "none.jsonl cannot be read" in missing.stderr
    bad = tmp_path / "bad.json"
    bad.write_text('{"threshold": 3, "labels": {}}')
    result = invoke(write_run(tmp_path / "one.jsonl"), "--out", tmp_path / "out", "--thresholds", bad)
    assert "outside 0..1" in result.stderr
    empty = write_run(tmp_path / "empty.jsonl", [])
    assert "holds no records" in invoke(empty, "--out", tmp_path / "out").stderr
    with pytest.raises(DataError, match="No run was given"):
        make_report([])
