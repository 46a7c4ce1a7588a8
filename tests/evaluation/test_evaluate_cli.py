"""The command `evaluate` and what is under it, with a scripted engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from letters import record, run
from spacy.tokens import Doc, DocBin, Span
from tiny import FACTORY, ScriptedEngine, load_tokenizer, scripted
from typer.testing import CliRunner

from spacy_relx import relation
from spacy_relx.cli import app
from spacy_relx.cli._pipeline import load_pipeline
from spacy_relx.cli.evaluate import ask, prompts
from spacy_relx.data import dataset, read_docs
from spacy_relx.evaluation.partial import PartialRun
from spacy_relx.evaluation.records import read_records, write_records

if TYPE_CHECKING:
    from spacy_relx.evaluation.records import PairRecord, RunInfo

SEMEVAL = Path(__file__).parents[1] / "data" / "files" / "semeval.TXT"
relation.register()
WORDS = ["Ann", "works", "for", "Acme", "in", "Rome", "."]

pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*args: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, args)])


@pytest.fixture(scope="module")
def tokenizer(embedded_base: Path) -> Any:
    return load_tokenizer(embedded_base)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    nlp, docs = spacy.blank("en"), DocBin(store_user_data=True)
    for i in range(4):
        doc = Doc(nlp.vocab, WORDS, sent_starts=[True] + [False] * 6)
        doc.ents = [Span(doc, 0, 1, "Peop"), Span(doc, 3, 4, "Org"), Span(doc, 5, 6, "Loc")]
        doc._.relations = [((0, 1), "Work_For", (3, 4)), ((3, 4), "OrgBased_In", (5, 6))]
        doc.user_data["id"] = f"s{i}"
        doc.spans["gold"] = list(doc.ents)
        docs.add(doc)
    docs.to_disk(tmp_path / "conll.spacy")
    return tmp_path / "conll.spacy"


class BothWays(ScriptedEngine):
    """Writes the label that it ranks first, with one score for all."""

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        ranked = self.script
        self.script = lambda head, tail: (max(scores := ranked(head, tail), key=scores.__getitem__), 0.5)
        try:
            return super().decode(*args, **kwargs)
        finally:
            self.script = ranked


@pytest.fixture
def engine(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give the command's pipelines an engine that knows one relation well; return what it was asked to load."""
    seen: list[Any] = []

    def load(name: str, settings: dict[str, Any]) -> Any:
        nlp = load_pipeline(name, settings)
        script = {
            ("Ann", "Acme"): {"Work_For": 0.9, "Live_In": 0.1},
            ("Acme", "Rome"): {"Live_In": 0.6, "OrgBased_In": 0.4},
        }
        nothing = {"no_relation": 1.0}
        fake = scripted(nlp, BothWays(tokenizer, lambda head, tail: script.get((head, tail), nothing)))
        seen.append((name, settings, fake))
        return nlp

    for module in (ask, prompts):
        monkeypatch.setattr(module, "load_pipeline", load)
    return seen


def test_given_pairs(engine: list[Any], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    result = invoke("--data", data, "--labels", "conll04", "--dataset", "conll04", "--out", out, "--train", data)
    assert result.exit_code == 0, result.output
    assert "protocol given" in result.stdout
    assert "0.500 [" in result.stdout
    assert "4 sentences (8 pairs) are in the training data too, 4 of them word for word" in result.stdout
    assert engine[0][:2] == (
        "blank:en",
        {"labels": {"@misc": "spacy-relx.Schema.v1", "name": "conll04"}, "no_relation": None},
    )
    info, records = read_records(out)
    assert (info.dataset, info.split, info.protocol, info.negative) == ("conll04", "test", "given", None)
    assert [r.answer for r in records] == ["Work_For", "Live_In"] * 4
    again = invoke("score", out, "--per-label", "--json", tmp_path / "scores.json", "--rounds", 50)
    assert again.exit_code == 0, again.output
    assert "OrgBased_In" in again.stdout
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["micro"]["hits"], scores["micro"]["predicted"], scores["micro"]["gold"]) == (4, 8, 8)
    assert scores["intervals"]["micro_f"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert scores["calibration"]["equal_mass"]["n"] == 8
    forced = invoke("score", out, "--without-negative", "--rounds", 0)
    assert forced.exit_code == 0, forced.output
    assert "0.500" in forced.stdout
    strict = invoke("score", out, "--threshold", "0.7", "--json", tmp_path / "strict.json", "--rounds", 0)
    assert strict.exit_code == 0, strict.output
    assert json.loads((tmp_path / "strict.json").read_text())[0]["micro"]["p"] == 1.0


def test_all_pairs_have_a_negative_and_a_table_of_their_own(engine: list[Any], data: Path, tmp_path: Path) -> None:
    given, pairs = tmp_path / "given.jsonl", tmp_path / "all.jsonl"
    assert invoke("--data", data, "--labels", "conll04", "--out", given, "--quiet").exit_code == 0
    common = ["--data", data, "--labels", "conll04", "--protocol", "gold_entities", "--out", pairs, "--limit", 2]
    result = invoke(*common, "--decoding", "free", "--spans-key", "gold")
    assert result.exit_code == 0, result.output
    info, records = read_records(pairs)
    assert (info.negative, info.settings["decoding"], info.counts["n_docs"]) == ("no_relation", "free", 2)
    assert info.settings["candidates"]["spans_key"] == "gold"
    assert sum(r.answer is not None for r in records) == 4
    tables = invoke("score", given, pairs, "--rounds", 0).stdout
    assert tables.index("protocol given") < tables.index("protocol gold_entities")


def test_the_published_way_has_tables_of_its_own(engine: list[Any], data: Path, tmp_path: Path) -> None:
    given, published, train = tmp_path / "given.jsonl", tmp_path / "published.jsonl", tmp_path / "train.spacy"
    docs = list(DocBin().from_disk(data).get_docs(spacy.blank("en").vocab))
    DocBin(docs=docs[:1], store_user_data=True).to_disk(train)
    # A label that only the last document has is listed all the same.
    docs[-1]._.relations = [*docs[-1]._.relations, ((0, 1), "Live_In", (5, 6))]
    DocBin(docs=docs, store_user_data=True).to_disk(data)
    assert invoke("--data", data, "--labels", "conll04", "--out", given, "--quiet").exit_code == 0
    common = ["--data", data, "--published", "--dataset", "conll04", "--limit", 2, "--out", published]
    result = invoke(*common, "--demonstrations", train, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "protocol given, asked as published" in result.stdout
    info, records = read_records(published)
    assert (info.protocol, info.way) == ("given", "published")
    assert info.labels == ("Live_In", "OrgBased_In", "Work_For")
    assert info.settings["published"] == {"demonstrations": str(train), "seed": 3}
    assert info.settings["prompt"]["max_new_tokens"] == 64
    assert {example["label"] for example in info.settings["prompt"]["examples"]} == {"OrgBased_In", "Work_For"}
    assert [r.answer for r in records] == ["Work_For", "Live_In"] * 2
    tables = invoke("score", given, published, "--rounds", 0).stdout
    assert (tables.count("protocol given"), tables.count("protocol given, asked as published")) == (2, 1)
    again = ["--data", data, "--labels", "conll04", "--dataset", "conll04", "--out", given, "--limit", 2]
    assert invoke(*again).exit_code == 0
    compared = invoke("compare", given, published, "--rounds", 50)
    assert compared.exit_code == 0, compared.output
    assert "published.jsonl (asked as published)" in compared.stdout
    assert "given.jsonl (asked" not in compared.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--published needs --demonstrations"),
        (["--demonstrations", "DATA"], "--demonstrations is the --data"),
        (["--demonstrations", "x.spacy", "--protocol", "gold_entities"], "and --protocol is gold_entities"),
        (["--demonstrations", "x.spacy", "--labels", "conll04", "--types"], "settles what --labels, --types would set"),
        (["--demonstrations", "x.spacy", "--decoding", "free"], "settles what --decoding would set"),
    ],
)
def test_the_published_way_settles_the_rest(options: list[str], message: str, data: Path, tmp_path: Path) -> None:
    options = [str(data) if option == "DATA" else option for option in options]
    refused = invoke("--data", data, "--out", tmp_path / "x.jsonl", "--published", *options)
    assert refused.exit_code == 2
    assert message in " ".join(refused.output.replace("\u2502", " ").split())
    alone = invoke("--data", data, "--out", tmp_path / "x.jsonl", "--demonstrations", data)
    assert alone.exit_code == 2


@pytest.fixture
def tiny_config(tiny_llama: Path, tmp_path: Path) -> Path:
    """A config whose model is a tiny one that is really asked."""
    path = tmp_path / "tiny.cfg"
    path.write_text(
        f'[components.{FACTORY}]\nfactory = "{FACTORY}"\n\n[components.{FACTORY}.model]\n'
        f'@architectures = "spacy-relx.CausalLM.v1"\nbase = "{tiny_llama}"\ndtype = "float32"\ndevice = "cpu"\n'
    )
    return path


def test_predicted_entities(tiny_config: Path, data: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    names = {"PERSON": "Ann", "ORG": "Acme", "GPE": "Rome"}
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": kind, "pattern": name} for kind, name in names.items()])
    nlp.to_disk(tmp_path / "finder")
    common = ["--data", data, "--labels", "conll04", "--config", tiny_config, "--protocol", "predicted_entities"]
    common += ["--pipeline", tmp_path / "finder", "--out", tmp_path / "run.jsonl"]
    alone = invoke(*common)
    assert alone.exit_code == 0, alone.output
    assert "No pair was asked about" in alone.stderr
    types = [word for pair in ("PERSON=Peop", "ORG=Org", "GPE=Loc") for word in ("--entity-type", pair)]
    result = invoke(*common, *types)
    assert result.exit_code == 0, result.output
    assert "No pair" not in result.stderr
    info, records = read_records(tmp_path / "run.jsonl")
    assert info.settings["entity_types"] == {"PERSON": "Peop", "ORG": "Org", "GPE": "Loc"}
    asked = [r for r in records if r.doc == "s0"]
    assert {(r.head.text, r.tail.text) for r in asked} == {("Ann", "Acme"), ("Ann", "Rome"), ("Acme", "Rome")}
    assert {r.gold_types for r in asked if r.gold} == {("Peop", "Org"), ("Org", "Loc")}
    wrong = invoke(*common, "--entity-type", "PERSON")
    assert wrong.exit_code == 1
    assert "Expected PREDICTED=GOLD" in wrong.stderr


def recorded(out: Path, *args: Any) -> tuple[RunInfo, list[PairRecord]]:
    result = invoke("--out", out, *args, "--quiet")
    assert result.exit_code == 0, result.output
    info, records = read_records(out)
    return info, list(records)


def test_pairs_in_text_order_are_the_given_pairs_where_labels_name_the_direction(
    tiny_config: Path, tmp_path: Path
) -> None:
    docs = list(read_docs(dataset("semeval2010_task8"), SEMEVAL, spacy.blank("en")))
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "semeval.spacy")
    common = ["--data", tmp_path / "semeval.spacy", "--labels", "semeval2010_task8", "--config", tiny_config]
    _, given = recorded(tmp_path / "given.jsonl", *common, "--protocol", "given")
    every = [*common, "--protocol", "gold_entities"]
    info, once = recorded(tmp_path / "once.jsonl", *every, "--undirected")
    assert info.settings["candidates"]["directed"] is False
    assert info.counts["n_asked"] == len(docs) == len(once)
    assert all(r.head.end <= r.tail.start for r in once)
    # The same prompts in the same order: the same records, to the last digit.
    assert once == given
    info, both = recorded(tmp_path / "both.jsonl", *every)
    assert info.counts["n_asked"] == len(both) == 2 * len(docs)
    assert {(r.doc, r.head.start, r.tail.start) for r in both} > {(r.doc, r.head.start, r.tail.start) for r in once}


def test_overlapping_mentions_are_asked_about_in_the_span_group(tiny_config: Path, tmp_path: Path) -> None:
    doc = Doc(spacy.blank("en").vocab, ["Ann", "leads", "Acme", "Rome", "."], sent_starts=[True] + [False] * 4)
    ann, firm, place = Span(doc, 0, 1, "Peop"), Span(doc, 2, 4, "Org"), Span(doc, 3, 4, "Loc")
    doc.ents = [ann, firm]
    doc.spans["gold"] = [ann, firm, place]
    doc._.relations = [((2, 4), "OrgBased_In", (3, 4)), ((0, 1), "Live_In", (3, 4)), ((0, 1), "Work_For", (2, 4))]
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "nested.spacy")
    common = ["--data", tmp_path / "nested.spacy", "--labels", "conll04", "--config", tiny_config]
    every = [*common, "--protocol", "gold_entities", "--no-types"]
    info, flat = recorded(tmp_path / "flat.jsonl", *every)
    assert (info.counts["n_asked"], info.counts["n_not_enumerated"]) == (2, 2)
    info, nested = recorded(tmp_path / "nested.jsonl", *every, "--spans-key", "gold")
    assert (info.counts["n_asked"], info.counts["n_not_enumerated"]) == (6, 0)
    asked = {(r.head.text, r.tail.text): r for r in nested}
    assert len(asked) == 6
    assert asked["Acme Rome", "Rome"].gold == ("OrgBased_In",)
    assert {pair for pair, r in asked.items() if r.gold} == {(r.head.text, r.tail.text) for r in flat if r.gold}
    # The pairs of entities are answered as they were without the mention inside one.
    alone = next(r for r in flat if r.enumerated and r.gold)
    assert dict(asked[alone.head.text, alone.tail.text].scores) == pytest.approx(dict(alone.scores), abs=1e-5)


@pytest.fixture
def many(data: Path) -> Path:
    """Seventy documents, so that there are three batches, with a label that the schema lacks."""
    vocab = spacy.blank("en").vocab
    docs = [doc for _ in range(18) for doc in DocBin().from_disk(data).get_docs(vocab)][:70]
    docs[3]._.relations = [*docs[3]._.relations, ((0, 1), "Unknown", (5, 6))]
    DocBin(docs=docs, store_user_data=True).to_disk(data.with_name("many.spacy"))
    return data.with_name("many.spacy")


def same_but_time(path: Path) -> list[Any]:
    first, *rest = path.read_text().splitlines()
    info = json.loads(first)
    assert info["counts"].pop("seconds") > 0
    return [info, *rest]


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def stop_after(n: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run raise when it has written `n` records."""
    write, n_written = PartialRun.write, 0

    def stop(self: PartialRun, record: Any) -> None:
        nonlocal n_written
        write(self, record)
        n_written += 1
        if n_written == n:
            monkeypatch.setattr(PartialRun, "write", write)
            raise error

    monkeypatch.setattr(PartialRun, "write", stop)


def test_a_run_that_was_killed_goes_on(
    tiny_config: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--data", many, "--labels", "conll04", "--config", tiny_config, "--protocol", "gold_entities"]
    whole, out, part = tmp_path / "whole.jsonl", tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    assert invoke(*common, "--out", whole, "--quiet").exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("whole*")) == ["whole.jsonl"]
    n_pairs = len(whole.read_text().splitlines()) - 1
    in_third_batch = n_pairs * 66 // 70
    stop_after(in_third_batch, Killed(), monkeypatch)
    with pytest.raises(Killed):
        invoke(*common, "--out", out)
    assert not out.exists()
    # What is behind the last whole line was cut off, as by a power failure.
    with part.open("ab") as file:
        file.write(b'{"doc": "s')
    again = invoke(*common, "--out", out)
    assert again.exit_code == 0, again.output
    assert f"Going on after the 64 documents in {part}." in again.stderr
    assert same_but_time(out) == same_but_time(whole)
    assert not list(tmp_path.glob("run.jsonl.*"))
    info, _ = read_records(out)
    assert info.counts["gold_labels_outside_schema"] == {"Unknown": 1}


def test_a_failure_says_what_is_kept_and_another_run_starts_anew(
    engine: list[Any], many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part = tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    common = ["--data", many, "--labels", "conll04", "--out", out]
    for error, code in ((KeyboardInterrupt(), 130), (OSError("disk full"), 1)):
        stop_after(70, error, monkeypatch)
        stopped = invoke(*common)
        assert stopped.exit_code == code
        assert f"documents are in {part}; the same command goes on from there." in stopped.stderr
    assert not out.exists()
    for change, reason, n_docs in ((["--split", "dev"], "another split", 70), (["--limit", "69"], "another limit", 69)):
        stop_after(5, OSError("disk full"), monkeypatch)
        assert invoke(*common).exit_code == 1
        changed = invoke(*common, *change, "--quiet")
        assert changed.exit_code == 0, changed.output
        assert f"{part} is not continued: it was begun with {reason}. Starting anew." in changed.stderr
        assert len(list(read_records(out)[1])) == 2 * n_docs + 1
    part.write_text("something else")
    assert "not the part of an evaluation" in invoke(*common, "--quiet").stderr
    assert not part.exists()
    with PartialRun(out, {}):
        twice = invoke(*common)
        assert twice.exit_code == 1
        assert "Another run is writing" in twice.stderr


def test_threshold(data: Path, tmp_path: Path) -> None:
    schema = {"name": "letters", "no_relation": "no_relation", "labels": {"r": {}, "s": {}, "t": {}}}
    records = [record("ab", "r", "r", 0.8), record("ac", (), "r", 0.4), record("ad", "s", "s", 0.3)]
    dev, test = tmp_path / "dev.jsonl", tmp_path / "test.jsonl"
    write_records(dev, run(schema=schema), records)
    write_records(test, run(split="test"), records)
    out, labels = tmp_path / "thresholds.json", tmp_path / "labels.json"
    result = invoke("threshold", dev, "--out", out, "--labels-out", labels, "--min-gold", 1)
    assert result.exit_code == 0, result.output
    assert "by label" in result.stdout
    assert json.loads(out.read_text())["labels"] == {"r": 0.6, "s": 0.15}
    assert json.loads(labels.read_text())["labels"]["r"] == {"threshold": 0.6}
    scored = invoke("score", test, "--thresholds", out, "--json", tmp_path / "s.json", "--rounds", 0)
    assert scored.exit_code == 0, scored.output
    assert json.loads((tmp_path / "s.json").read_text())[0]["micro"]["f"] == 1.0
    refused = invoke("threshold", test)
    assert refused.exit_code == 1
    assert "Expected a development set" in refused.stderr
    wrong = invoke("score", test, "--thresholds", data)
    assert wrong.exit_code == 1
    assert "holds no thresholds" in wrong.stderr


def test_compare(tmp_path: Path) -> None:
    for name, answer in (("a", None), ("b", "r")):
        write_records(tmp_path / f"{name}.jsonl", run(), [record("ab", "r", answer, doc=str(i)) for i in range(12)])
    write_records(tmp_path / "c.jsonl", run("gold_entities"), [record("ab", "r", "r")])
    paths = [tmp_path / f"{name}.jsonl" for name in "abc"]
    result = invoke("compare", *paths[:2], "--rounds", 200, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out.json").read_text())["p_value"] < 0.02
    other = invoke("compare", paths[0], paths[2])
    assert other.exit_code == 1
    assert "Expected two runs of one task" in other.stderr


def test_prompts(engine: list[Any], data: Path, tmp_path: Path) -> None:
    common = ["prompts", "--data", data, "--labels", "conll04", "--limit", 2, "--decoding", "constrained"]
    result = invoke(*common, "--train", data, "--out", tmp_path / "runs", "--system", "generic", "--system", "schema")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "runs").glob("*.jsonl"))) == 8
    assert result.stdout.count("0.500 [0.500, 0.500]") == 8
    assert "2 documents, 4 pairs, cpu" in result.stdout
    assert len(engine) == 1  # one pipeline for all variants
    without = invoke(*common, "--system", "training", "--cue", "Answer:")
    assert without.exit_code == 0, without.output
    assert without.stdout.count("training") == 1
    assert invoke(*common, "--system", "polite").exit_code == 2


def test_what_is_missing_is_named(engine: list[Any], data: Path, tmp_path: Path) -> None:
    assert invoke().exit_code == 2
    missing = invoke("--data", tmp_path / "no.spacy", "--out", tmp_path / "x.jsonl")
    assert missing.exit_code == 1
    assert "does not exist" in missing.stderr
    other = invoke("--data", data, "--labels", "nyt11", "--out", tmp_path / "x.jsonl", "--quiet")
    assert other.exit_code == 0, other.output
    assert "8 gold relations have labels that the schema lacks" in other.stderr
    bare = DocBin(docs=[spacy.blank("en")("Nothing here.")])
    bare.to_disk(tmp_path / "bare.spacy")
    empty = invoke("--data", tmp_path / "bare.spacy", "--out", tmp_path / "x.jsonl")
    assert "no gold relations in 1 documents" in empty.stderr


def test_help_needs_nothing_heavy() -> None:
    for command in ([], ["score"], ["threshold"], ["compare"], ["prompts"], ["mixture"]):
        assert "Usage:" in invoke(*command, "--help").output
    code = (
        "import sys\nfrom spacy_relx.cli import app\n"
        "assert not {'spacy_relx.pipeline', 'spacy_relx.evaluation.run', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
