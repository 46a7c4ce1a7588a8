"""`annotate --engine ray`: options on their way to Ray, which is not started here."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from spacy_relx.cli import app
from spacy_relx.corpus import Summary
from spacy_relx.distributed import ray_data

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    seen: list[tuple[Any, ...]] = []

    def annotate_on_ray(make_pipeline: Any, source: Any, output: Any, **options: Any) -> Summary:
        seen.append((make_pipeline, source, output, options))
        return Summary(5, 2, 0, None)

    monkeypatch.setattr(ray_data, "annotate_on_ray", annotate_on_ray)
    return seen


def run(*args: object) -> Any:
    return CliRunner().invoke(app, ["annotate", *map(str, args), "--engine", "ray"])


def test_options_reach_ray(asked: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": ["met"]}))
    sizes = ("--actors", 8, "--gpus-per-actor", 1, "--block-size", 50, "--form", "parquet", "--text-key", "body")
    result = run("in", "out", "--pipeline", "blank:en", "--labels", "labels.json", *sizes)
    assert result.exit_code == 0, result.output
    assert "5 documents in out, 2 of them before; 0 failed." in result.stderr
    (made, source, output, options) = asked[0]
    assert made.args[0] == "blank:en"
    assert made.args[1]["labels"]["path"] == str(tmp_path / "labels.json")  # an actor may work in another folder
    assert (source, output) == ("in", "out")
    wanted = {"n_actors": 8, "gpus_per_actor": 1.0, "block_size": 50, "form": "parquet", "text_key": "body"}
    assert wanted.items() <= options.items()
    assert "labels_sha256" in options["options"]


@pytest.mark.parametrize(
    "args", [("-", "out"), ("in", "-"), ("in", "out", "--n-process", 2), ("in", "out", "--on-error", "raise")]
)
def test_what_does_not_go_with_ray(asked: list[tuple[Any, ...]], args: tuple[object, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert not asked


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    result = run(tmp_path / "in.jsonl", tmp_path / "out", "--pipeline", "blank:en")
    assert result.exit_code == 1
    assert "Ray Data needs ray. Install it with `pip install 'spacy-relx[ray]'`." in result.stderr
