"""spaCy's own commands on pipelines and configs with the relation extractor: each is really run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from spacy.cli.find_threshold import find_threshold
from spacy.tokens import DocBin
from tiny import FACTORY, TEXT, pipeline

from spacy_relx.readers import make_docbin_reader

if TYPE_CHECKING:
    from spacy.language import Language

CONFIGS = Path(__file__).parents[1] / "configs"
TEXTS = (TEXT, "Apple is in Cupertino.", "Nothing is here.", "Steve Jobs met Ada Lovelace at Apple.")

pytestmark = pytest.mark.usefixtures("one_thread")


def run_spacy(*arguments: Any, fails: bool = False) -> str:
    """Run spaCy's command line without a network; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "spacy", *map(str, arguments)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def nlp(tiny_llama: Path) -> Language:
    """A pipeline that answers all pairs, with scores well apart."""
    return pipeline(tiny_llama)


@pytest.fixture(scope="module")
def saved(nlp: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def scores(nlp: Language) -> list[float]:
    return sorted(relation.score for doc in nlp.pipe(TEXTS) for relation in doc._.relations)


@pytest.fixture(scope="module")
def corpus(nlp: Language, scores: list[float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents whose gold relations are the better-scored half of the pipeline's answers."""
    middle = scores[len(scores) // 2]
    docs = list(nlp.pipe(TEXTS))
    for doc in docs:
        doc._.relations = [relation for relation in doc._.relations if relation.score >= middle]
    path = tmp_path_factory.mktemp("corpus") / "dev.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def expected(nlp: Language, corpus: Path) -> dict[str, Any]:
    return nlp.evaluate(list(make_docbin_reader(corpus)(nlp)))


def test_fill_config_completes_a_few_lines(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "base.cfg").write_text(
        f'[nlp]\nlang = "en"\npipeline = ["sentencizer", "{FACTORY}"]\n\n[components]\n\n'
        f'[components.sentencizer]\nfactory = "sentencizer"\n\n[components.{FACTORY}]\nfactory = "{FACTORY}"\n'
    )
    run_spacy("init", "fill-config", tmp_path / "base.cfg", tmp_path / "full.cfg")
    component = spacy.util.load_config(tmp_path / "full.cfg")["components"][FACTORY]
    assert component["model"] == {"@architectures": "spacy-relx.SmolLM2.v1"} | {
        key: component["model"][key] for key in component["model"] if key != "@architectures"
    }
    assert component["top_k"] == 1
    printed = run_spacy("debug", "config", tmp_path / "full.cfg", "--paths.train", corpus, "--paths.dev", corpus)
    assert "Config is valid" in printed


def test_debug_data_reads_the_corpus(nlp: Language, corpus: Path, tmp_path: Path) -> None:
    docs = list(DocBin().from_disk(corpus).get_docs(nlp.vocab))
    DocBin(docs=docs * 30, store_user_data=True).to_disk(tmp_path / "train.spacy")  # fewer than 100 are an error
    paths = ("--paths.train", tmp_path / "train.spacy", "--paths.dev", corpus)
    printed = run_spacy("debug", "data", CONFIGS / "smollm2.cfg", *paths, "--no-format")
    assert "Corpus is loadable" in printed
    assert FACTORY in printed
    assert f"{30 * len(TEXTS)} training docs" in printed
    assert f"{len(TEXTS)} evaluation docs" in printed


@pytest.mark.parametrize("command", [["evaluate"], ["benchmark", "accuracy"]])
def test_evaluate_writes_the_relation_scores(
    command: list[str], nlp: Language, saved: Path, corpus: Path, tmp_path: Path
) -> None:
    run_spacy(*command, saved, corpus, "--output", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["rel_micro_f"] == pytest.approx(expected(nlp, corpus)["rel_micro_f"])
    assert 0 < scores["rel_micro_f"] < 1
    assert scores["rel_micro_r"] == 1.0
    assert scores["rel_per_type"]


def test_benchmark_speed_runs(saved: Path, corpus: Path) -> None:
    few = ("--batches", 30, "--batch-size", 1, "--warmup", 1, "--no-shuffle")  # 30 are its least
    printed = run_spacy("benchmark", "speed", saved, corpus, *few)
    assert "words/s" in printed.lower() or "wps" in printed.lower()


def test_find_threshold_finds_what_divides_right_from_wrong(
    saved: Path, corpus: Path, scores: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    best, f, by_threshold = find_threshold(str(saved), corpus, FACTORY, "threshold", "rel_micro_f", n_trials=5)
    assert list(by_threshold) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert f == max(by_threshold.values())
    assert len(set(by_threshold.values())) > 1
    assert by_threshold[best] == f
    # Half of the answers are right, and those have the higher scores.
    assert best > 0
    assert by_threshold[0.0] == pytest.approx(expected(spacy.load(saved), corpus)["rel_micro_f"])


def test_the_component_takes_a_threshold_through_cfg(nlp: Language) -> None:
    component = nlp.get_pipe(FACTORY).with_settings()
    component.cfg = {**component.cfg, "threshold": 0.9}
    assert component.default_threshold == 0.9
    assert nlp.get_pipe(FACTORY).default_threshold == 0.0
    with pytest.raises(ValueError, match="Only threshold"):
        component.cfg = {**component.cfg, "attr": "links"}
    with pytest.raises(ValueError, match="threshold"):
        component.cfg = {**component.cfg, "threshold": 7}


def test_a_wheel_is_installed_and_answers_as_before(nlp: Language, saved: Path, tmp_path: Path) -> None:
    # `python -m build` fetches setuptools for an environment of its own; where it cannot, spaCy builds in this one.
    run_spacy("package", saved, tmp_path, "--name", "relx_tiny", "--version", "1.2.3", "--build", "wheel")
    source = tmp_path / "en_relx_tiny-1.2.3"
    meta = json.loads((source / "meta.json").read_text())
    # spaCy finds the packages of installed modules; one that is installed from its checkout is not among them.
    if "spacy_relx" in packages_distributions():
        assert any(line.startswith("spacy-relx") for line in meta["requirements"])
    (wheel,) = (source / "dist").glob("*.whl")
    assert wheel.name == "en_relx_tiny-1.2.3-py3-none-any.whl"
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    done = subprocess.run([*pip, "--target", site, wheel], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    code = (
        "import json, sys, spacy\n"
        "nlp = spacy.load('en_relx_tiny')\n"
        "docs = nlp.pipe(json.load(sys.stdin))\n"
        "answers = [[[*r.to_dict().values()] for r in doc._.relations] for doc in docs]\n"
        "print(json.dumps([nlp.path.as_posix(), nlp.meta['version'], answers], default=str))\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    path, version, answers = json.loads(loaded.stdout)
    assert Path(path).is_relative_to(site)
    assert version == "1.2.3"
    here = [[[*r.to_dict().values()] for r in doc._.relations] for doc in nlp.pipe(TEXTS)]
    assert any(here)
    assert answers == json.loads(json.dumps(here, default=str))
