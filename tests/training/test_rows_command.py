"""`spacy relx rows`: Docs or finished prompts in, rows for training out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from spacy.tokens import DocBin
from tiny import FACTORY, TEXT, pipeline
from typer.testing import CliRunner

from spacy_relx.cli import app
from spacy_relx.data.mixtures import PromptRow, group_of
from spacy_relx.training.rows import RowGroup, read_rows

if TYPE_CHECKING:
    from click.testing import Result

MIXTURE = Path(__file__).parents[1] / "data" / "files" / "mixture.jsonl"


def run(*args: Any) -> Result:
    return CliRunner().invoke(app, ["rows", *map(str, args)])


def messages(result: Result) -> str:
    return " ".join(result.stderr.split())


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    entries = {"works_for": {"head": ["PERSON"], "tail": ["ORG"]}, "based_in": {"head": ["ORG"], "tail": ["GPE"]}}
    path.write_text(json.dumps({"labels": entries, "no_relation": "Other"}))
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """Two Docs, the first without sentence boundaries."""
    nlp = pipeline()
    docs = []
    for text, drop in ((TEXT, ["sentencizer"]), ("Ada Lovelace works for Apple. Apple is in Cupertino.", [])):
        with nlp.select_pipes(disable=[FACTORY, *drop]):
            doc = nlp(text)
        first = {ent.text: ent for ent in reversed(doc.ents)}
        doc._.relations = [(first["Ada Lovelace"], "works_for", first["Apple"])]
        if drop:
            doc._.relations = [(first["Apple"], "based_in", first["Cupertino"])]
        docs.append(doc)
    docs[1]._.relations = [
        *docs[1]._.relations,
        (docs[1].ents[0], "works_for", docs[1].ents[2]),
    ]
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "train.spacy")
    return tmp_path / "train.spacy"


def answers(path: Path) -> list[str]:
    return [answer for group in read_rows(path) for _, answer in group.rows]


def test_rows_of_docs(train: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rows.jsonl"
    result = run(train, out, "--labels", labels)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(out)
    groups = list(read_rows(out))
    # Apple in Cupertino, its negative; Ada and Apple in the first Doc's second sentence; and the second Doc's two.
    assert answers(out) == ["Other", "based_in", "Other", "works_for", "Other"]
    assert groups[0].labels == ("works_for", "based_in", "Other")
    assert "based_in, works_for" in groups[0].turns[0][1]
    told = messages(result)
    assert "4 contexts, 4 groups, 5 rows, 2 positive, 3 negative answers: Other 3, based_in 1, works_for 1" in told
    assert "1 skipped: the pair is never asked about" in told
    assert not list(out.parent.glob("*.part"))


def test_limit_epochs_seed_and_mixture(train: Path, labels: Path, tmp_path: Path) -> None:
    settings = tmp_path / "mixture.json"
    settings.write_text('{"negatives_alone": 0, "shuffle_labels": 1, "seed": 3}')

    def write(name: str, *args: Any) -> str:
        result = run(train, tmp_path / name, "--labels", labels, "--quiet", *args)
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        return (tmp_path / name).read_text()

    once = write("a.jsonl", "-m", settings)
    assert len(once.splitlines()) == 2
    assert write("b.jsonl", "-m", settings) == once
    assert write("c.jsonl", "-m", settings, "--epochs", 2).startswith(once)
    assert len(write("d.jsonl", "-m", settings, "-m", "negatives_alone=1").splitlines()) == 4
    assert len(write("e.jsonl", "-m", settings, "--limit", 1).splitlines()) == 1
    assert len({write(f"{seed}.jsonl", "-m", settings, "--seed", seed) for seed in range(6)}) > 1


def test_component_settings(train: Path, labels: Path, tmp_path: Path) -> None:
    config = tmp_path / "relx.cfg"
    config.write_text(
        f'[components.{FACTORY}]\nfactory = "{FACTORY}"\n[components.{FACTORY}.model]\n'
        '@architectures = "spacy-relx.CausalLM.v1"\nbase = "nowhere/at-all"\n'
        f'[components.{FACTORY}.prompt]\n@misc = "spacy-relx.GenTunePrompt.v1"\nsystem = "training"\ncue = "Answer:"\n'
    )
    out = tmp_path / "rows.jsonl"
    assert run(train, out, "--labels", labels, "--config", config, "--no-relation", "null").exit_code == 0
    assert answers(out) == ["based_in", "works_for"]
    group = next(read_rows(out))
    assert group.turns[0][1].startswith("You are an expert")
    assert group.rows[0][0].endswith("\nAnswer:")
    assert run(train, out, "--labels", labels, "--undirected", "--no-relation", "none").exit_code == 0
    assert answers(out) == ["none", "based_in", "none", "works_for", "none"]


def test_spans_of_a_group(train: Path, labels: Path, tmp_path: Path) -> None:
    result = run(train, tmp_path / "rows.jsonl", "--labels", labels, "--spans-key", "gold")
    assert result.exit_code == 1
    assert "is not in the span group 'gold'" in messages(result)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-m", "negativs=2"], "--mixture has no setting 'negativs'. Did you mean 'negatives'?"),
        (["-m", "examples=2"], "mixture.examples is 2. Expected a list"),
        (["-m", "wordings=nowhere"], "mixture.wordings is 'nowhere'"),
        (["-m", "nowhere.json"], "No such file"),
        (["--labels", "conll04"], "whose label is not in the schema 'conll04'"),
    ],
)
def test_errors(train: Path, labels: Path, tmp_path: Path, args: list[str], message: str) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("what was there")
    result = run(train, out, *([] if "--labels" in args else ["--labels", labels]), *args)
    assert result.exit_code == 1
    assert message in messages(result)
    assert out.read_text() == "what was there"
    assert not list(tmp_path.glob("*.part"))


def test_nothing_to_write(labels: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    DocBin(docs=[nlp("Nobody is here.")], store_user_data=True).to_disk(tmp_path / "empty.spacy")
    result = run(tmp_path / "empty.spacy", tmp_path / "rows.jsonl", "--labels", labels)
    assert result.exit_code == 1
    assert "There are no rows to write" in messages(result)
    assert "does not exist" in messages(run(tmp_path / "no.spacy", tmp_path / "rows.jsonl", "--labels", labels))
    assert run(tmp_path / "empty.spacy", tmp_path / "rows.txt").exit_code == 2
    assert run(tmp_path / "rows.jsonl", tmp_path / "rows.jsonl").exit_code == 2


def test_finished_prompts(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = run(MIXTURE, out, "--prompts", "--system", "training")
    assert result.exit_code == 0, result.stderr
    groups = list(read_rows(out))
    assert [group.rows for group in groups] == [(("Which?\nAnswer:", "founded_by"),), (("What?", "Other"),)]
    assert groups[0].turns[0][0] == "system"
    assert groups[0].turns[0][1].startswith("You are an expert")
    assert "2 groups, 2 rows" in messages(result)
    assert "1 skipped: the column relation has no text" in messages(result)
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "train_0.jsonl").write_bytes(MIXTURE.read_bytes())
    assert run(tmp_path / "published", out, "--prompts", "--split", "train_0", "--limit", 1).exit_code == 0
    assert list(read_rows(out)) == [RowGroup((), (("Which?\nAnswer:", "founded_by"),))]
    assert "no files of the split 'dev_0'" in messages(
        run(tmp_path / "published", out, "--prompts", "--split", "dev_0")
    )


def test_a_finished_prompt_stays_as_it_is() -> None:
    row = PromptRow("Which?\nAnswer: ", "founded_by", "tacred")
    assert group_of(row) == RowGroup((), (("Which?\nAnswer: ", "founded_by"),))
    assert group_of(row, "Be brief.").turns == (("system", "Be brief."),)
