"""Every script and the command at tiny size: they run, and the results hold what they promise. No times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from spacy_relx.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("one_thread")

PROVENANCE = {"command", "date", "commit", "machine", "threads", "versions", "model"}
MEASURED = {
    *("documents", "pairs", "pairs_per_second", "documents_per_second"),
    *("tokens", "limit", "rivals", "time", "memory"),
}
SUMMARY = {"n", "median", "min", "max"}
CONFIG = """
[components.llama_relation_extractor]
factory = "llama_relation_extractor"

[components.llama_relation_extractor.model]
@architectures = "spacy-relx.CausalLM.v1"
base = "{base}"
dtype = "float32"
device = "cpu"
"""


def test_exactness(run_script: Run, tiny_llama: Path) -> None:
    result = run_script("exactness", "--base", tiny_llama, "--pairs", 4)
    assert set(result) >= PROVENANCE
    assert result["pairs"] == result["equal_best_labels"] == 4
    assert result["largest_difference_of_a_score"] < 1e-4


def test_scale(run_script: Run, tiny_llama: Path) -> None:
    sizes = ("--documents", 4, "--rounds", 2, "--clients", 1, 3, "--dtype", "float32", "--device", "cpu")
    result = run_script("scale", "--base", tiny_llama, *sizes, "--no-ray")
    assert set(result) >= PROVENANCE
    assert (result["documents"], result["pairs"] > 4) == (4, True)
    assert result["measured"].pop("ray") is None
    assert result["startup_seconds"].pop("ray") is None
    assert result["not_run"] == {"ray": "left out with --no-ray"}
    assert set(result["measured"]) == {"one_process", "service_1_client", "service_3_clients"}
    assert set(result["startup_seconds"]) == {"one_process", "service"}
    for way in result["measured"].values():
        assert set(way["pairs_per_second"]) == set(way["documents_per_second"]) == SUMMARY
    for name in ("service_1_client", "service_3_clients"):
        assert 0 < result["measured"][name]["p50_ms"] <= result["measured"][name]["p95_ms"]
        # Of a symmetric relation that both directions of a pair were given, one is kept.
        assert 0 < result["same_answers"][name]["answers"] <= result["pairs"]
        assert result["same_answers"][name]["other_labels"] == result["same_answers"][name]["scores_apart"] == 0
        assert result["same_answers"][name]["largest_difference_of_a_score"] <= result["tolerance_of_scores"]


def test_scale_without_ray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import scale

    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install" in scale.why_no_ray(None)
    with pytest.raises(SystemExit):
        scale.main(["--ray"])
    assert "Ray is not installed: pip install 'spacy-relx[ray]'" in capsys.readouterr().err


def test_compared_answers_by_hand() -> None:
    from scale import compare

    ours = {(0, 1): ("a", 0.5), (0, 2): ("b", 0.5), (0, 3): ("c", 0.5), (0, 4): ("d", 0.5)}
    others = {(0, 1): ("a", 0.75), (0, 2): ("x", 0.5), (0, 3): ("c", 0.5), (0, 5): ("d", 0.5)}
    # The second has another label, the fourth is not there, and one is there that should not be.
    wanted = {"answers": 4, "other_labels": 3, "scores_apart": 1, "largest_difference_of_a_score": 0.25}
    assert compare(ours, others, 0.1) == wanted


def test_suite(run_script: Run, tiny_llama: Path, tmp_path: Path) -> None:
    plot = tmp_path / "suite.svg"
    sizes = (
        "--limit",
        2,
        "--rounds",
        1,
        "--rival-documents",
        1,
        "--sweep-pairs",
        2,
        "--dtype",
        "float32",
        "--shots",
        0,
    )
    sweeps = ("--sweeps", "shots,quantization")
    rivals = ("--rivals", "card,batched,llama.cpp,vllm", "--environments", tmp_path)
    result = run_script(
        *("suite", "--base", tiny_llama, "--dtype", "float32", *sizes, *rivals, *sweeps, "--plot", plot)
    )
    assert set(result) >= {*PROVENANCE, "main", "not_run", "sweeps", "load_seconds"}
    assert set(result["main"]) == {*MEASURED, "first_answer_seconds", "documents_a_pass"}
    assert set(result["main"]["rivals"]) == {"card", "batched"}
    assert set(result["main"]["rivals"]["card"]["ours_is_times_as_fast"]) == SUMMARY
    assert set(result["not_run"]) == {"llama.cpp", "vllm"}
    assert [row["value"] for row in result["sweeps"]["shots"]] == [0, 2, 4, 8]
    for row in (row for rows in result["sweeps"].values() for row in rows):
        assert "not_run" in row or set(row) >= MEASURED, row
    assert "<svg" in plot.read_text(encoding="utf8")


def test_suite_with_documents_that_share_packs(run_script: Run, tiny_llama: Path) -> None:
    options = ("--base", tiny_llama, "--dtype", "float32", "--limit", 3, "--rounds", 1, "--shots", 0)
    passes, tokens = [], []
    for documents in (1, 3):
        nothing_else = ("--rivals", "none", "--sweeps", "none", "--documents-a-pass", documents)
        main = run_script("suite", *options, *nothing_else)["main"]
        assert (main["documents"], main["documents_a_pass"]) == (3, documents)
        passes.append(main["tokens"]["forward_passes"])
        tokens.append(main["tokens"]["in_prompts"])
    assert passes == [3, 1]
    assert tokens[0] == tokens[1]


def test_suite_refuses_unknown_names(tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import suite

    with pytest.raises(SystemExit):
        suite.main(["--rivals", "card,nobody"])
    assert "nobody: expected some of card, batched" in capsys.readouterr().err


def test_gpu_script_on_a_processor(run_script: Run) -> None:
    result = run_script("gpu", "--tiny")
    assert set(result) >= {*PROVENANCE, "packs", "not_run", "default_pack", "weights_and_adapter_mib"}
    assert result["model"]["quantization"] == "nf4"
    assert result["model"]["lora_rank"] == 4
    assert set(result["packs"]) == {"256", "1024"}
    assert all(set(pack) == MEASURED for pack in result["packs"].values())
    assert set(result["packs"]["256"]["rivals"]) == {"batched 2", "card"}
    assert set(result["packs"]["256"]["time"]["shares"]) == {
        *("quantised matrix products", "adapter", "attention", "rest of model", "outside the model")
    }
    assert set(result["dequantise_all_matrices_seconds"]) == SUMMARY
    assert "vllm" in result["not_run"]
    # Two layers of 4 x 64 x 64 (two of them half) and 3 x 64 x 128.
    assert result["packs"]["256"]["limit"]["matrix_parameters"] == 2 * (3 * 64 * 64 + 3 * 64 * 128)


def test_gpu_script_needs_no_spacy() -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2] / 'benchmarks')!r})\n"
        "sys.modules |= {'spacy': None, 'thinc': None}\n"
        "import spacy_relx.engine.packed, gpu\n"
        "print(gpu._arguments([]).packs)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout.split() == ["[8192,", "2048,", "16384,", "32768]"], done.stderr


def test_the_flagships_shape() -> None:
    import random_llama
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**random_llama.SHAPES["Llama-3.2-3B"])
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_212_749_824  # as the checkpoint has
    rotary = type(model.get_decoder().rotary_emb)(config)
    assert rotary.inv_freq.shape == (64,)
    assert rotary.inv_freq[-1] < 1 / 500_000  # stretched by Llama 3's rule, not the plain one


def test_outside(run_script: Run, tiny_llama: Path) -> None:
    arguments = ("--base", tiny_llama, "--entities", 3, "--pairs", 12, "--rounds", 1, "--spots", 5)
    result = run_script("outside", *arguments)
    assert set(result) >= PROVENANCE
    (row,) = result["entities"].values()
    assert (row["pairs"], row["documents"]) == (12, 2)
    assert set(row["pairs_per_second_per_core"]) == SUMMARY
    assert set(row["stages"]) == {"pairs, prompts, tokens", "trees and search", "results"}
    assert row["share_of_the_time"].keys() == {"beside 50 pairs/s", "beside 3000 pairs/s"}
    assert row["pooled"].keys() == {"pairs_per_second_per_core", "share_of_the_time"}
    assert "engine, all of it" in row["steps_microseconds_a_pair"]
    assert len(result["hot_spots"]) == 5
    assert all(set(spot) >= {"function", "where", "share", "calls"} for spot in result["hot_spots"])


def test_growth(run_script: Run, tiny_llama: Path, tmp_path: Path) -> None:
    plot = tmp_path / "growth.svg"
    sizes = ("--entities", 2, 8, 16, "--documents", 1, 2, "--model-documents", 1, 2)
    many = ("--many", 4, "--model-many", 2, "--samples", 2, "--rounds", 1)
    result = run_script("growth", "--base", tiny_llama, "--dtype", "float32", *sizes, *many, "--plot", plot)
    assert set(result) >= {*PROVENANCE, "entities", "documents", "memory", "exponents"}
    for engine in ("zero-cost", "model"):
        pairs = [row["pairs"] for row in result["entities"][engine]]
        # All pairs of a short text; a window's share of those of a long one.
        assert pairs[0] == 2
        assert pairs[1] <= 8 * 7
        assert pairs[2] < 16 * 15
        assert len(result["memory"][engine]) == 2
        assert set(result["exponents"][engine]) == {"pairs", "documents"}
    assert "<svg" in plot.read_text(encoding="utf8")


def test_shares_by_hand() -> None:
    from outside import beside

    # Ten pairs in a second are 0.1 s a pair; an engine of 50 a second takes 0.02 s beside it.
    assert beside(10, [1.0])["beside 50 pairs/s"] == round(0.1 / 0.12, 4)


def test_exponents_by_hand() -> None:
    from growth import exponent

    rows = [{"n": 1, "seconds": 3.0}, {"n": 2, "seconds": 12.0}, {"n": 4, "seconds": 48.0}]
    assert exponent(rows, "n") == 2.0
    assert exponent(rows[:1], "n") is None


@pytest.mark.parametrize("shots", [0, 2])
def test_the_command(tmp_path: Path, tiny_llama: Path, shots: int) -> None:
    config, out = tmp_path / "tiny.cfg", tmp_path / "out.json"
    config.write_text(CONFIG.format(base=tiny_llama), encoding="utf8")
    sizes = ["--limit", "2", "--entities", "3", "--rounds", "1", "--rival-pairs", "2", "--shots", str(shots)]
    done = CliRunner().invoke(app, ["benchmark", "--config", str(config), *sizes, "--out", str(out), "--debug"])
    assert done.exit_code == 0, done.output
    assert "share of the matrix-product limit" in done.output
    assert "Where the time goes" in done.output
    result = json.loads(out.read_text(encoding="utf8"))
    expected = {*PROVENANCE, *MEASURED, "load_seconds", "first_answer_seconds", "data", "labels", "shots"}
    assert set(result) == expected
    assert set(result["rivals"]) == {"card", "batched"}
    assert {"pairs, prompts, tokens", "trees and search", "results", "matrix products", "attention"} <= set(
        result["time"]["shares"]
    )
    assert result["model"]["dtype"] == "float32"


def test_the_command_reads_documents(tmp_path: Path, tiny_llama: Path) -> None:
    import spacy
    from spacy.tokens import DocBin

    from spacy_relx.benchmark.component import to_docs
    from spacy_relx.benchmark.documents import made_up

    nlp = spacy.blank("en")
    docs = to_docs(made_up(3, 3), nlp.vocab)
    docs[1].ents = []
    data, config, out = tmp_path / "docs.spacy", tmp_path / "tiny.cfg", tmp_path / "out.json"
    DocBin(docs=docs).to_disk(data)
    config.write_text(CONFIG.format(base=tiny_llama), encoding="utf8")
    common = ["--config", str(config), "--data", str(data), "--rounds", "1", "--quiet"]
    done = CliRunner().invoke(app, ["benchmark", *common, "--rivals", "none", "--out", str(out)])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text(encoding="utf8"))
    assert (result["data"], result["documents"], result["rivals"]) == ("docs.spacy", 2, {})

    done = CliRunner().invoke(app, ["benchmark", *common, "--labels", "conll04"])
    assert done.exit_code == 1
    assert "no pair that the labels' entity types allow" in done.output

    DocBin(docs=[docs[1]]).to_disk(data)
    done = CliRunner().invoke(app, ["benchmark", *common])
    assert done.exit_code == 1
    assert "no document with two entities" in done.output


def test_the_command_refuses_unknown_rivals() -> None:
    done = CliRunner().invoke(app, ["benchmark", "--rivals", "nobody"])
    assert done.exit_code == 1
    assert "Expected card, batched, or none." in done.output
