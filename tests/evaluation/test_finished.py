"""Finished prompts: what is asked, what is counted, and the command `evaluate mixture`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tiny import FACTORY, ScriptedEngine, load_tokenizer, model_block, pipeline, scripted
from typer.testing import CliRunner

from spacy_relx.cli import app
from spacy_relx.cli._pipeline import load_pipeline
from spacy_relx.cli.evaluate import mixture
from spacy_relx.data import PromptRow
from spacy_relx.errors import DataError
from spacy_relx.evaluation import finished
from spacy_relx.evaluation.finished import (
    PromptRecord,
    PromptRun,
    ask_prompts,
    read_prompt_records,
    summarise_prompts,
    tally_prompts,
)
from spacy_relx.evaluation.partial import PartialRun

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = {"semeval": ["Cause-Effect(e1,e2)", "Other"], "tacred": ["founded_by", "no_relation", "works_for"]}
SENTENCES = ("Ann founded Acme in Rome.", "Bob left Acme for Rome.")


def prompt(head: str, tail: str, sentence: str = SENTENCES[0]) -> str:
    return f"Sentence: {sentence}\nEntity 1: {head}\nEntity 2: {tail}\nAnswer:"


ROWS = [
    PromptRow(prompt("Acme", "Ann"), "founded_by", "tacred", "t:1"),
    PromptRow(prompt("Ann", "Acme"), "works_for", "tacred", "t:2"),
    PromptRow(prompt("Ann", "Rome"), "no_relation", "tacred", "t:3"),
    PromptRow(prompt("Acme", "Rome"), "Cause-Effect(e1,e2)", "semeval", "t:4"),
    PromptRow(prompt("Rome", "Ann"), "Other", "semeval", "t:5"),
]
SCRIPT = {
    ("Acme", "Ann"): ('Answer: "Founded_By"\nbecause', 0.9),
    ("Ann", "Acme"): ("is employed by", 0.5),
    ("Ann", "Rome"): ("Other", 0.5),
    ("Acme", "Rome"): ("cause-effect(e1,e2)", 0.5),
    ("Rome", "Ann"): ("founded_by", 0.5),  # a label, but of the other data set
}


def a_run(labels: dict[str, list[str]] = LABELS) -> PromptRun:
    return PromptRun("table.jsonl", None, labels)


def record(gold: str, answer: str, dataset: str = "tacred", place: str = "t:1") -> PromptRecord:
    return PromptRecord(place, dataset, gold, answer, 0.5, "?")


@pytest.fixture(scope="module")
def tokenizer(embedded_base: Path) -> Any:
    return load_tokenizer(embedded_base)


# What is counted


def test_scores_by_hand() -> None:
    records = [
        record("founded_by", "Founded_By"),
        record("founded_by", "works_for", place="t:2"),
        record("works_for", "is employed by", place="t:3"),
        record("works_for", "NA", place="t:4"),
        record("no_relation", "works_for", place="t:5"),
        record("no_relation", "\n", place="t:6"),
        record("Other", "none", "semeval"),
    ]
    summary = summarise_prompts(a_run(), records, n_rounds=20)
    tacred = summary["datasets"]["tacred"]
    assert (tacred["micro"]["hits"], tacred["micro"]["predicted"], tacred["micro"]["gold"]) == (1, 4, 4)
    assert tacred["micro"]["f"] == 0.25
    assert tacred["macro_f"] == pytest.approx((2 / 3 + 0) / 2)
    assert (tacred["n_outside"], tacred["n_rows"], tacred["false_positive_rate"]) == (1, 6, 0.5)
    assert tacred["intervals"]["micro_f"]["low"] <= 0.25 <= tacred["intervals"]["micro_f"]["high"]
    # Without positive labels there is nothing to average.
    assert summary["datasets"]["semeval"]["micro"]["gold"] == 0
    assert summary["mean_micro_f"] == 0.25
    assert summarise_prompts(a_run(), [], n_rounds=0) == {"datasets": {}, "mean_micro_f": None}


def test_a_label_of_another_data_set_is_an_invention() -> None:
    tally = tally_prompts(a_run(), [record("Other", "founded_by", "semeval")])["semeval"]["t:1"]
    assert (tally.n_outside, tally.n_negative, tally.n_false_alarms) == (1, 1, 1)


# What is asked


def asked(component: Any, rows: Sequence[PromptRow], **more: Any) -> tuple[PromptRun, list[PromptRecord]]:
    run = a_run()
    return run, list(ask_prompts(component, iter(rows), run, **more))


def test_prompts_are_asked_as_they_are(tokenizer: Any) -> None:
    nlp = pipeline()
    engine = scripted(nlp, ScriptedEngine(tokenizer, SCRIPT))
    run, records = asked(nlp.get_pipe(FACTORY), ROWS, system="Answer with the relation.")
    assert [r.place for r in records] == [row.place for row in ROWS]
    assert [r.answer for r in records] == [SCRIPT[pair][0] for pair in SCRIPT]
    assert records[0].score == pytest.approx(0.9)
    whole = f"<|im_start|>system\nAnswer with the relation.<|im_end|>\n<|im_start|>user\n{ROWS[0].prompt}<|im_end|>\n"
    assert f"{whole}<|im_start|>assistant\n" in engine.prompts
    assert (run.counts["n_docs"], run.counts["n_asked"], run.counts["unanswered"]) == (5, 5, [])
    scores = summarise_prompts(run, records, n_rounds=0)
    assert [scores["datasets"][name]["micro"]["f"] for name in ("tacred", "semeval")] == [0.5, pytest.approx(2 / 3)]


@pytest.mark.parametrize("decoding", ["free", "constrained"])
def test_answers_do_not_depend_on_what_is_asked_with_them(tiny_llama: Path, decoding: Any) -> None:
    nlp = pipeline(tiny_llama)
    component, more = nlp.get_pipe(FACTORY), {"decoding": decoding, "max_new_tokens": 4}
    rows = [
        replace(row, prompt=prompt(*pair, sentence), place=f"{row.place}.{i}")
        for i, sentence in enumerate(SENTENCES)
        for row, pair in zip(ROWS, SCRIPT)
    ]
    alone = [record for row in rows for record in asked(component, [row], **more)[1]]
    work = component._shim.engine.work
    before = work.n_tokens, work.n_prompt_tokens
    _, together = asked(component, rows, **more)
    n_computed, n_prompts = work.n_tokens - before[0], work.n_prompt_tokens - before[1]
    assert n_computed < n_prompts / 2  # what prompts begin with is computed once, in whatever order they come
    _, backwards = asked(component, rows[::-1], **more)
    for others in (alone, backwards[::-1]):
        assert [(r.place, r.answer) for r in others] == [(r.place, r.answer) for r in together]
        assert [r.score for r in others] == pytest.approx([r.score for r in together], abs=1e-4)
    if decoding == "constrained":
        assert all(r.answer in LABELS[r.dataset] for r in together)


def test_a_prompt_that_cannot_be_asked_costs_no_other(tiny_llama: Path) -> None:
    nlp = pipeline(model=model_block(tiny_llama, max_pack_tokens=200))
    component = nlp.get_pipe(FACTORY)
    bad = [replace(ROWS[0], prompt="long " * 300, place="t:6"), replace(ROWS[0], prompt="\ud800", place="t:7")]
    run, records = asked(component, [*ROWS[:2], *bad, *ROWS[2:]], max_new_tokens=2)
    assert [r.place for r in records] == [row.place for row in ROWS]
    assert [problem.split(":")[1] for problem in run.counts["unanswered"]] == ["6", "7"]
    for row in bad:
        with pytest.raises(DataError, match=rf"^{row.place}: the prompt cannot be asked: .*Mend the data"):
            asked(component, [row], on_error="raise")


# The command


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "test_0.jsonl"
    path.parent.mkdir()
    rows: list[dict[str, Any]] = [{"relation": r.label, "prompt": r.prompt, "dataset": r.dataset} for r in ROWS]
    rows.insert(1, {"relation": None, "prompt": "?", "dataset": "x"})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def engine(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> list[ScriptedEngine]:
    seen: list[ScriptedEngine] = []

    def load(name: str, settings: dict[str, Any]) -> Any:
        nlp = load_pipeline(name, settings)
        seen.append(scripted(nlp, ScriptedEngine(tokenizer, SCRIPT)))
        return nlp

    monkeypatch.setattr(mixture, "load_pipeline", load)
    return seen


def invoke(*args: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", "mixture", *map(str, args)])


def test_each_data_set_has_a_line(engine: list[ScriptedEngine], table: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "run.jsonl", tmp_path / "figures.json"
    result = invoke(table.parent, "--split", "test_0", "--out", out, "--json", figures, "--rounds", 50)
    assert result.exit_code == 0, result.output
    assert f"Skipped: {table}:2: the column relation has no text: None" in result.stderr
    assert "mean micro F of the data sets: 0.583" in result.stdout
    run, records = read_prompt_records(out)
    assert run.labels == LABELS
    assert (run.settings["decoding"], run.settings["max_new_tokens"], run.counts["n_asked"]) == ("free", 64, 5)
    assert [r.place for r in records] == [f"{table}:{line}" for line in (1, 3, 4, 5, 6)]
    data = json.loads(figures.read_text())
    assert data["split"] == "test_0"
    assert data["datasets"]["tacred"]["micro"]["f"] == 0.5
    # Fewer prompts, the same labels.
    some = invoke(table, "--out", out, "--limit", 1, "--dataset", "tacred", "--quiet")
    assert some.exit_code == 0, some.output
    run, records = read_prompt_records(out)
    assert (run.labels, len(list(records))) == ({"tacred": LABELS["tacred"]}, 1)


def test_bad_rows_are_fatal_by_choice(engine: list[ScriptedEngine], table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    stopped = invoke(table, "--out", out, "--on-error", "raise")
    assert stopped.exit_code == 1
    assert f"{table}:2: the column relation has no text" in stopped.stderr
    assert not engine  # known before a model is loaded
    assert not list(tmp_path.glob("run*"))
    assert invoke(table, "--out", out, "--dataset", "unknown").exit_code == 2
    assert invoke(table, "--out", out, "--system", "schema").exit_code == 2


def test_a_run_that_was_stopped_goes_on(
    tiny_llama: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "tiny.cfg"
    config.write_text(
        f'[components.{FACTORY}]\nfactory = "{FACTORY}"\n\n[components.{FACTORY}.model]\n'
        f'@architectures = "spacy-relx.CausalLM.v1"\nbase = "{tiny_llama}"\ndtype = "float32"\ndevice = "cpu"\n'
    )
    monkeypatch.setattr(finished, "BATCH_SIZE", 2)
    common = [table, "--config", config, "--max-new-tokens", 3, "--rounds", 0, "--out"]
    assert invoke(*common, tmp_path / "whole.jsonl").exit_code == 0
    write, out = PartialRun.write, tmp_path / "run.jsonl"

    def fail(self: PartialRun, record: Any) -> None:
        if record.place == f"{table}:5":
            raise OSError("disk full")
        write(self, record)

    monkeypatch.setattr(PartialRun, "write", fail)
    stopped = invoke(*common, out)
    assert stopped.exit_code == 1
    assert f"2 prompts are in {out}.part; the same command goes on from there." in stopped.stderr
    monkeypatch.setattr(PartialRun, "write", write)
    again = invoke(*common, out)
    assert again.exit_code == 0, again.output
    assert "Going on after the 2 prompts" in again.stderr
    (run, records), (whole, all_records) = map(read_prompt_records, (out, tmp_path / "whole.jsonl"))
    assert list(records) == list(all_records)
    assert {**run.counts, "seconds": 0} == {**whole.counts, "seconds": 0}


def test_files_that_are_no_records(tmp_path: Path) -> None:
    for name, text, message in (
        ("empty", "", "empty:1 is not what `evaluate mixture` writes"),
        ("other", '{"dataset": "x"}', "other:1 is not what"),
        ("text", "some text", "text:1 is not what"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            read_prompt_records(tmp_path / name)
    (tmp_path / "cut").write_text('{"source": "a", "split": null, "labels": {}}\n{"place": "a:1"')
    with pytest.raises(DataError, match="cut:2 is not what"):
        list(read_prompt_records(tmp_path / "cut")[1])
