"""Pictures of a run, from the logs that training leaves."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from lessons import learner, train_config, write_corpus
from script_loader import load_script
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from tiny import FACTORY
from typer import Typer
from typer.testing import CliRunner

from spacy_relx.training import curves

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was drawn: losses, other losses, scores."""
    found: list[Any] = []
    draw = curves._draw

    def keep(path: Path, *what: Any) -> Any:
        found.append(what)
        return draw(path, *what)

    monkeypatch.setattr(curves, "_draw", keep)
    return found


@pytest.mark.usefixtures("one_thread")
def test_a_run_of_spacy_train_is_drawn_from_its_log(tiny_llama: Path, tmp_path: Path, drawn: list[Any]) -> None:
    log = tmp_path / "out" / "log.jsonl"
    logger = {"@loggers": "spacy.ConsoleLogger.v3", "output_file": str(log)}
    config = train_config(learner(tiny_llama), write_corpus(tmp_path / "train.spacy"), logger=logger, max_steps=7)
    train(init_nlp(config), None, stdout=io.StringIO(), stderr=io.StringIO())
    assert curves.draw_spacy_run(log, FACTORY) == tmp_path / "out" / "curves.svg"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    ((losses, others, scores),) = drawn
    assert losses.steps == scores.steps == [0, 3, 6]
    assert others == []
    of_steps = [line["losses"][FACTORY] for line in lines]
    assert losses.values == [of_steps[0], of_steps[1] / 3, of_steps[2] / 3]
    assert losses.values[0] > losses.values[-1]
    assert scores.values == [line["score"] for line in lines]


def test_a_run_on_rows_is_drawn(tmp_path: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = [{"step": n, "loss": 100.0 / n} for n in range(1, 301)]
    for n in (150, 300):
        lines[n - 1]["dev"] = {"loss": 2.0, "accuracy": 0.5 + n / 1000}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = curves.draw_rows_run(tmp_path)
    assert path == tmp_path / "curves.svg"
    assert path.read_text().startswith("<?xml")
    ((losses, (dev,), scores),) = drawn
    assert (len(losses.values), dev.steps, scores.values) == (300, [150, 300], [0.65, 0.8])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert curves.draw_rows_run(tmp_path) is None


def test_means_are_of_what_came_before() -> None:
    assert curves._means([4.0, 2.0, 0.0, 4.0], 2) == [4.0, 3.0, 1.0, 2.0]


@pytest.mark.parametrize("status", [0, 1])
def test_the_script_keeps_a_log_and_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    script, commands = load_script("train"), []
    log = tmp_path / "log.jsonl"
    log.write_text("of a run that was killed")

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        assert not log.exists()  # spaCy's logger would not touch it
        log.write_text(json.dumps({"step": 0, "losses": {FACTORY: 3.0}, "score": 0.25}) + "\n")
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", run)
    app = Typer()
    app.command()(script.main)
    done = CliRunner().invoke(app, ["conll04", "--output", str(tmp_path)])
    assert done.exit_code == status
    assert commands[0][commands[0].index("--paths.log") + 1] == str(log)
    assert (tmp_path / "curves.svg").exists() == (status == 0)
    assert ("Losses and scores: " in done.output) == (status == 0)
