"""A run that was killed goes on as if nothing had happened: weights, scores, tables and what is saved."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lessons import (
    BEFORE_UPDATE,
    EVERYTHING,
    LABELS,
    LESSONS,
    annotated,
    examples,
    learner,
    masters,
    part,
    session,
    train_config,
    training_block,
    write_corpus,
)
from safetensors.torch import load_file
from spacy.cli._util import app
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from tiny import FACTORY, pipeline
from typer.testing import CliRunner

from spacy_relx.engine import loading
from spacy_relx.errors import DataError, RelxWarning, TrainingError
from spacy_relx.training import checkpoint as checkpoints
from spacy_relx.training import gradient
from spacy_relx.training.replay import run_identity
from spacy_relx.training.session import TrainingSession
from spacy_relx.training.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spacy.language import Language
    from spacy.tokens import Doc

pytestmark = pytest.mark.usefixtures("one_thread")

#: Docs in the order of their training are 4 an epoch, two a batch: 12 steps are 6 epochs, evaluated after 1, 4, 7, 10.
N_STEPS, EVERY = 12, 4


@dataclass
class Run:
    """What a run has left."""

    nlp: Language
    folder: Path
    table: list[list[str]]
    n_computed: int

    @property
    def best(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "model-best" / FACTORY / "adapter" / "adapter_model.safetensors")

    @property
    def last(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "model-last" / FACTORY / "adapter" / "adapter_model.safetensors")

    @property
    def performance(self) -> dict[str, Any]:
        performance: dict[str, Any] = json.loads((self.folder / "model-best" / "meta.json").read_text())["performance"]
        return performance


class Stop(Exception):
    """A run is stopped by hand."""


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    yield
    BEFORE_UPDATE.clear()


def stop_at(step: int, kill: bool = False) -> None:
    """Stop the next run before a step: by an exception, or as the machine would."""

    def check(nlp: Language, info: dict[str, Any]) -> None:
        if info["step"] == step:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Stop

    BEFORE_UPDATE[:] = [check]


def run(
    base: Path,
    folder: Path,
    checkpoint: Path | None,
    *,
    docs: Any = None,
    component: dict[str, Any] | None = None,
    tagger: bool = False,
    training: dict[str, Any] | None = None,
    **loop: Any,
) -> Run:
    """Train with spaCy's loop, dropout and averages; the corpus is written beside the result."""
    folder.mkdir(parents=True, exist_ok=True)
    nlp = learner(base, training=_checkpointed(checkpoint) | (training or {}), **(component or {}))
    if tagger:
        nlp.add_pipe("tagger", first=True)
    corpus = write_corpus(folder.parent / "train.spacy", docs)  # one path for all runs, as for one user
    optimizer = {"@optimizers": "Adam.v1", "learn_rate": 0.02, "L2": 0.01, "use_averages": True}
    config = train_config(
        nlp, corpus, **{"max_steps": N_STEPS - 1, "dropout": 0.3, "optimizer": optimizer, "seed": 3} | loop
    )
    out, n_computed = io.StringIO(), 0
    add = TrainingSession.add

    def counted(*arguments: Any) -> Any:
        nonlocal n_computed
        n_computed += 1
        return add(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingSession, "add", counted)
        try:
            nlp, _ = train(init_nlp(config), folder, stdout=out, stderr=io.StringIO())
        except Stop:
            BEFORE_UPDATE.clear()
    table = [line.split() for line in out.getvalue().splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    return Run(nlp, folder, table, n_computed)


def train_quietly(config: Any) -> None:
    train(init_nlp(config), None, stdout=io.StringIO(), stderr=io.StringIO())


def _checkpointed(checkpoint: Path | None) -> dict[str, Any]:
    return {} if checkpoint is None else {"checkpoint": str(checkpoint), "checkpoint_every": EVERY}


def assert_same_run(found: Run, expected: Run) -> None:
    assert found.table == expected.table
    assert found.performance == expected.performance
    ours, theirs = masters(found.nlp), masters(expected.nlp)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for mine, other in ((found.best, expected.best), (found.last, expected.last)):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in other)


@contextmanager
def on_one_thread() -> Iterator[None]:
    """As the tests have it: fixtures of a module are made before, and sums of several threads are others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with on_one_thread():
        return run(tiny_llama, tmp_path_factory.mktemp("undisturbed") / "out", None)


@pytest.fixture(scope="module")
def halfway(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that was stopped before its tenth step."""
    folder = tmp_path_factory.mktemp("halfway")
    stop_at(9)
    with on_one_thread():
        stopped = run(tiny_llama, folder / "out", folder / "checkpoint")
    BEFORE_UPDATE.clear()
    assert stopped.n_computed == 9
    return folder / "checkpoint"


@pytest.fixture
def checkpoint(halfway: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(halfway, tmp_path / "checkpoint"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Going on.


def test_the_undisturbed_run_says_something(undisturbed: Run) -> None:
    """What the other tests compare with differs from step to step and has its best before its end."""
    assert [row[1] for row in undisturbed.table] == ["0", "3", "6", "9"]
    assert len({row[2] for row in undisturbed.table}) == 4
    assert undisturbed.n_computed == N_STEPS
    assert any(not torch.equal(undisturbed.best[name], undisturbed.last[name]) for name in undisturbed.best)


def test_checkpoints_change_nothing(tiny_llama: Path, tmp_path: Path, undisturbed: Run) -> None:
    done = run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint")
    assert_same_run(done, undisturbed)
    assert done.n_computed == N_STEPS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out", "train.spacy"]
    # What is done needs no computing at all, and is there again.
    again = run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint")
    assert again.n_computed == 0
    assert_same_run(again, undisturbed)


@pytest.mark.parametrize("killed_at", [2, 4, 9])
def test_a_stopped_run_goes_on(tiny_llama: Path, tmp_path: Path, undisturbed: Run, killed_at: int) -> None:
    stop_at(killed_at)
    assert run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint").n_computed == killed_at
    done = run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint")
    assert_same_run(done, undisturbed)
    assert done.n_computed == N_STEPS - killed_at // EVERY * EVERY


def test_a_run_that_is_stopped_again_and_again_goes_on(tiny_llama: Path, tmp_path: Path, undisturbed: Run) -> None:
    for step in (5, 2, 9):  # 2 is on the way back
        stop_at(step)
        run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint")
    assert_same_run(run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint"), undisturbed)


def test_a_killed_process_goes_on(tiny_llama: Path, tmp_path: Path, undisturbed: Run) -> None:
    child = os.fork()
    if not child:
        try:
            stop_at(6, kill=True)
            run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done = run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint")
    assert_same_run(done, undisturbed)
    assert done.n_computed == N_STEPS - EVERY


def test_evaluations_on_the_way_back_ask_nothing(tiny_llama: Path, tmp_path: Path, checkpoint: Path) -> None:
    asked = []

    def count(nlp: Language, info: dict[str, Any]) -> None:
        shim = part(nlp)._shim
        asked.append(shim.engine.work.n_prompts if shim.is_loaded else 0)

    BEFORE_UPDATE[:] = [count]
    run(tiny_llama, tmp_path / "out", checkpoint)
    assert asked[:9] == [0] * 9  # the evaluations after 1, 4 and 7 steps
    assert asked[-1] > 0


@pytest.mark.parametrize("max_steps", [5, 15])
def test_the_end_may_be_moved(tiny_llama: Path, tmp_path: Path, checkpoint: Path, max_steps: int) -> None:
    changed = {"max_steps": max_steps, "patience": 100, "logger": {"@loggers": "spacy.ConsoleLogger.v2"}}
    done = run(tiny_llama, tmp_path / "out", checkpoint, **changed)
    assert done.n_computed == max(0, max_steps + 1 - 8)
    assert done.table[-1][1] == str(max_steps // 3 * 3)
    if max_steps > N_STEPS:
        expected = run(tiny_llama, tmp_path / "other" / "out", None, **changed)
        assert_same_run(done, expected)


def test_of_equals_the_last_is_the_best(tiny_llama: Path, tmp_path: Path) -> None:
    """As spaCy has it: each evaluation that is as good as the best so far replaces it."""
    # Nothing is ever found, so that all scores are 0; the last evaluation is that of step 6, on the way back.
    settings: dict[str, Any] = {"component": {"threshold": 1.0}, "max_steps": 8}
    expected = run(tiny_llama, tmp_path / "expected" / "out", None, **settings)
    stop_at(8)
    run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings)
    assert_same_run(run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings), expected)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"@optimizers": "SGD.v1", "learn_rate": 0.05},
        {"@optimizers": "RAdam.v1", "learn_rate": 0.01, "use_averages": False},
        {
            "@optimizers": "Adam.v1",
            "learn_rate": {
                "@schedules": "warmup_linear.v1",
                "warmup_steps": 3,
                "total_steps": 12,
                "initial_rate": 0.02,
            },
        },
    ],
    ids=["sgd", "radam", "schedule"],
)
def test_other_optimizers_go_on(tiny_llama: Path, tmp_path: Path, optimizer: dict[str, Any]) -> None:
    loop = {"optimizer": optimizer, "max_steps": 6}
    expected = run(tiny_llama, tmp_path / "expected" / "out", None, **loop)
    stop_at(5)
    run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **loop)
    done = run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **loop)
    assert done.n_computed == 3
    assert_same_run(done, expected)


def test_accumulated_and_empty_steps_go_on(tiny_llama: Path, tmp_path: Path) -> None:
    """The first steps have no rows, so that the optimiser knows nothing when the first checkpoint is written."""
    settings: dict[str, Any] = {
        "docs": annotated({"Nothing is here.": [], "Nobody is there.": []} | dict(list(LESSONS.items())[1:3])),
        "training": {"checkpoint_every": 1},
        "accumulate_gradient": 2,
        "max_steps": 4,
        "batcher": {"@batchers": "spacy.batch_by_sequence.v1", "size": 1},
    }
    expected = run(tiny_llama, tmp_path / "expected" / "out", None, **settings)
    for step in (1, 2, 3):
        stop_at(step)
        run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings)
    assert_same_run(run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings), expected)


# Another run's checkpoint.


@pytest.mark.parametrize(("decoding", "changed"), [("constrained", set()), ("free", {"decoding settings"})])
def test_the_length_of_free_answers_belongs_to_runs_that_write_them(decoding: str, changed: set[str]) -> None:
    def identity(max_new_tokens: int) -> dict[str, str]:
        prompt = {"@misc": "spacy-relx.GenTunePrompt.v1", "max_new_tokens": max_new_tokens}
        settings = pipeline(decoding=decoding, prompt=prompt).get_pipe(FACTORY).settings
        return run_identity(TrainingSettings(), settings, [], loop={}, model={}, evaluation=[])

    short, long = identity(16), identity(64)
    assert {name for name in short if short[name] != long[name]} == changed


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"docs": lambda: annotated()[:2]}, "training data, evaluation data"),
        ({"component": {"labels": [*LABELS, "married to"]}}, "labels, training data"),
        ({"component": {"prompt": {"@misc": "spacy-relx.GenTunePrompt.v1", "system": "generic"}}}, "prompt"),
        ({"training": {"mixture": EVERYTHING | {"seed": 1}}}, "training settings"),
        ({"training": {"rank": 8}}, "training settings"),
        ({"training": {"seed": 8}}, "training settings"),
        ({"dropout": 0.2}, r"\[training\] settings"),
        ({"seed": 4}, r"\[training\] settings"),
        ({"eval_frequency": 2}, r"\[training\] settings"),
        ({"component": {"model": {"dtype": "bfloat16"}}}, "model"),
        ({"component": {"threshold": 0.9}}, "decoding settings"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_the_checkpoint_of_another_run_is_refused(
    tiny_llama: Path, tmp_path: Path, checkpoint: Path, changed: dict[str, Any], named: str
) -> None:
    before = files(checkpoint)
    changed = {key: value() if callable(value) else value for key, value in changed.items()}
    with pytest.raises(TrainingError, match=rf"checkpoint belongs to a run with other {named}\. Remove it to begin"):
        run(tiny_llama, tmp_path / "out", checkpoint, **changed)
    assert files(checkpoint) == before


def test_all_that_differs_is_named(tiny_llama: Path, tmp_path: Path, checkpoint: Path) -> None:
    docs = annotated({"Ada Lovelace left Apple.": [("Ada Lovelace", "left", "Apple")]})
    named = r"other labels, training data, evaluation data, \[training\] settings\."
    with pytest.raises(TrainingError, match=named):
        run(tiny_llama, tmp_path / "out", checkpoint, docs=docs, component={"labels": ["left"]}, dropout=0.0)


def test_other_evaluation_data_are_refused(tiny_llama: Path, tmp_path: Path, checkpoint: Path) -> None:
    """Its scores would stand in one table with those of the old ones."""
    nlp = learner(tiny_llama, training=_checkpointed(checkpoint))
    corpus = write_corpus(tmp_path / "train.spacy")
    other = write_corpus(tmp_path / "dev.spacy", annotated()[:1])
    optimizer = {"@optimizers": "Adam.v1", "learn_rate": 0.02, "L2": 0.01, "use_averages": True}
    loop: dict[str, Any] = {"max_steps": N_STEPS - 1, "dropout": 0.3, "optimizer": optimizer, "seed": 3}
    with pytest.raises(TrainingError, match="other evaluation data"):
        train_quietly(train_config(nlp, corpus, other, **loop))
    train_quietly(train_config(nlp, corpus, corpus, **loop))


def test_a_setting_behind_a_variable_counts(tiny_llama: Path, tmp_path: Path) -> None:
    def config(seed: int) -> Any:
        nlp = learner(tiny_llama, training=_checkpointed(tmp_path / "checkpoint"))
        made = train_config(nlp, write_corpus(tmp_path / "train.spacy"), seed="${system.seed}", max_steps=4)
        made["system"]["seed"] = seed
        return made

    train_quietly(config(1))
    assert (tmp_path / "checkpoint").is_dir()
    train_quietly(config(1))
    with pytest.raises(TrainingError, match=r"other \[training\] settings"):
        train_quietly(config(2))


@pytest.mark.parametrize("command", [("debug", "data"), ("init", "labels")], ids=" ".join)
def test_who_does_not_train_is_not_refused(
    tmp_path: Path, checkpoint: Path, command: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: Any, progress: Any = None, trainable: bool = False) -> Any:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(loading, "load_model", refuse)
    before = files(checkpoint)
    corpus = write_corpus(tmp_path / "train.spacy", annotated()[:2] * 60)  # fewer are an error of `debug data`
    config = train_config(learner("nowhere/at-all", training=_checkpointed(checkpoint)), corpus)
    config.to_disk(tmp_path / "train.cfg")
    arguments = [*command, str(tmp_path / "train.cfg"), *([str(tmp_path / "labels")] if command[0] == "init" else [])]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    # Training with the same config is refused, before any weights are loaded.
    with pytest.raises(TrainingError, match="belongs to a run with other model"):
        train_quietly(config)
    assert files(checkpoint) == before


# Damage.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b""),
        ("state.json", b'{"identity": {}'),
        ("state.json", b"{}"),
        ("state.json", b"[1]"),
        ("state.json", None),
        ("state.safetensors", b""),
        ("state.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{"),
        ("state.safetensors", None),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    tiny_llama: Path, tmp_path: Path, checkpoint: Path, name: str, content: bytes | None
) -> None:
    if content is None:
        (checkpoint / name).unlink()
    else:
        (checkpoint / name).write_bytes(content)
    before = files(checkpoint)
    with pytest.raises(TrainingError, match=rf"checkpoint.*{checkpoint}.*[Rr]emove it"):
        run(tiny_llama, tmp_path / "out", checkpoint)
    assert files(checkpoint) == before


def test_a_folder_with_other_files_is_never_replaced(tiny_llama: Path, tmp_path: Path) -> None:
    """Its content would be gone with the first checkpoint."""
    (tmp_path / "out" / "model-best").mkdir(parents=True)
    (tmp_path / "notes").write_text("mine")
    for folder in (tmp_path, tmp_path / "out", tmp_path / "notes"):
        with pytest.raises(TrainingError, match=r"Set training\.checkpoint to another folder"):
            run(tiny_llama, tmp_path / "other" / "out", folder)
    assert (tmp_path / "out" / "model-best").is_dir()
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize("moment", ["while it is written", "between the renames", "before the old one is removed"])
def test_a_kill_while_a_checkpoint_is_written(
    tiny_llama: Path, tmp_path: Path, checkpoint: Path, undisturbed: Run, moment: str
) -> None:
    old, new = tmp_path / ".checkpoint-old", tmp_path / ".checkpoint.new-x1y2z3a4"
    if moment == "while it is written":
        new.mkdir()
        (new / "state.safetensors").write_bytes(b"half")
    elif moment == "between the renames":
        checkpoint.rename(old)
        shutil.copytree(old, new)
    else:
        shutil.copytree(checkpoint, old)
        (old / "state.json").write_text("{")  # it is being removed
    done = run(tiny_llama, tmp_path / "out", checkpoint)
    assert done.n_computed == N_STEPS - 8
    assert_same_run(done, undisturbed)
    assert not old.exists()
    assert not new.exists()


def test_a_full_disk_keeps_the_old_checkpoint(
    tiny_llama: Path, tmp_path: Path, checkpoint: Path, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(checkpoint)

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(TrainingError, match=r"checkpoint cannot be written.*No space left.*goes on from the last"):
            run(tiny_llama, tmp_path / "out", checkpoint)
    assert files(checkpoint) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out", "train.spacy"]
    assert_same_run(run(tiny_llama, tmp_path / "out", checkpoint), undisturbed)


# Bad data, and training that goes wrong: a clear error, and the last good checkpoint is there to go on from.


def outside() -> list[Doc]:
    docs = annotated()
    docs[1].ents = docs[1].ents[:1]
    return docs


@pytest.mark.parametrize(
    ("docs", "component", "error", "message"),
    [
        (annotated, {"labels": LABELS[:2]}, DataError, r"works for.*Expected one of: based in, founded by"),
        (outside, {}, DataError, r"number 1 has the relation.*is not an entity of the Doc"),
        (lambda: annotated(dict.fromkeys(LESSONS, ())), {}, DataError, r"no gold relations.*relx convert"),
        (list, {}, ValueError, r"Could not create any training batches: check your input"),  # spaCy's own
    ],
    ids=["a label that the schema lacks", "a relation outside the entities", "no relations", "no Docs"],
)
def test_bad_data_leave_the_checkpoint(
    tiny_llama: Path,
    tmp_path: Path,
    checkpoint: Path,
    undisturbed: Run,
    docs: Callable[[], list[Doc]],
    component: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    before = files(checkpoint)
    with pytest.raises(error, match=message):
        run(tiny_llama, tmp_path / "out", checkpoint, docs=docs(), component=component)
    assert files(checkpoint) == before
    assert_same_run(run(tiny_llama, tmp_path / "out", checkpoint), undisturbed)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_leaves_the_checkpoint(
    tiny_llama: Path, tmp_path: Path, checkpoint: Path, undisturbed: Run, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(checkpoint)
    loss = gradient.pack_loss

    def spoiled(*arguments: Any, **keywords: Any) -> torch.Tensor:
        value = loss(*arguments, **keywords)
        # The square root has no finite slope at 0, where its value is 0.
        return value * math.nan if what == "loss" else value + (value - value.detach()).abs().sqrt()

    with monkeypatch.context() as patch:
        patch.setattr(gradient, "pack_loss", spoiled)
        message = rf"The (loss of a pack|norm of the {what}).* is nan.*Lower the learning rate.*checkpoint is intact"
        with pytest.raises(TrainingError, match=message):
            run(tiny_llama, tmp_path / "out", checkpoint)
    assert files(checkpoint) == before
    assert_same_run(run(tiny_llama, tmp_path / "out", checkpoint), undisturbed)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_adapter_that_is_not_finite_is_no_checkpoint(tmp_path: Path, value: float) -> None:
    checkpoint = checkpoints.Checkpoint(tmp_path / "checkpoint", {}, "give another folder")
    masters, device = {"a": torch.zeros(2)}, torch.device("cpu")
    checkpoint.write({}, {}, masters, device)
    before = files(checkpoint.folder)
    masters["a"][1] = value
    with pytest.raises(TrainingError, match=r"The adapter's a has numbers that are not finite.*is intact"):
        checkpoint.write({}, {}, masters, device)
    assert files(checkpoint.folder) == before


# Beside other components.


def test_what_is_best_is_spacys_choice(tiny_llama: Path, tmp_path: Path) -> None:
    """The score weights decide, not one figure."""
    weights = {"rel_micro_f": 0.0, "rel_micro_p": 0.0, "rel_macro_f": -1.0}
    settings: dict[str, Any] = {"score_weights": weights, "max_steps": 8}
    expected = run(tiny_llama, tmp_path / "expected" / "out", None, **settings)
    stop_at(8)
    run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings)
    assert_same_run(run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings), expected)


def test_another_component_learns_the_same_again(tiny_llama: Path, tmp_path: Path) -> None:
    """What it does is no secret of the checkpoint: it is computed again, and meets no other random numbers."""
    docs = annotated()
    for doc in docs:
        for token in doc:
            token.tag_ = "NAME" if token.text.istitle() else "WORD"
    weights = {"rel_micro_f": 1.0, "tag_acc": 0.0}
    settings: dict[str, Any] = {"docs": docs, "tagger": True, "score_weights": weights, "max_steps": 9}
    expected = run(tiny_llama, tmp_path / "expected" / "out", None, **settings)
    stop_at(8)
    run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings)
    done = run(tiny_llama, tmp_path / "out", tmp_path / "checkpoint", **settings)
    assert done.n_computed == 2
    assert_same_run(done, expected)
    assert (done.folder / "model-best/tagger/model").read_bytes() == (
        expected.folder / "model-best/tagger/model"
    ).read_bytes()


def test_a_component_that_is_not_initialised_says_that_it_keeps_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    """spaCy does not initialise what comes from another pipeline."""
    nlp = learner(tiny_llama, training=_checkpointed(tmp_path / "checkpoint"))
    with pytest.warns(RelxWarning, match="not initialised with training data, so no checkpoint"):
        nlp.update(examples())
    nlp.update(examples())  # says it no more: warnings are errors here
    assert not (tmp_path / "checkpoint").exists()


def test_the_adapter_in_the_component_is_that_of_the_step(tiny_llama: Path, tmp_path: Path, checkpoint: Path) -> None:
    updates = []
    BEFORE_UPDATE[:] = [lambda nlp, info: updates.append(session(nlp).n_updates if info["step"] else 0)]
    run(tiny_llama, tmp_path / "out", checkpoint)
    assert updates[8:] == [8, 9, 10, 11]
    assert training_block()["rank"] == session(run(tiny_llama, tmp_path / "out", checkpoint).nlp).weights.rank
