"""Training without spaCy: learning, the log, and going on after a kill."""

from __future__ import annotations

import errno
import json
import math
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

from spacy_relx.engine import decoder
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.spec import ModelSpec
from spacy_relx.errors import ConfigError, DataError, TrainingError
from spacy_relx.training import __main__ as command
from spacy_relx.training import checkpoint as checkpoints
from spacy_relx.training import gradient, lora
from spacy_relx.training.encode import Encoder
from spacy_relx.training.lora_settings import LoraSettings
from spacy_relx.training.rows import RowGroup, read_rows, write_rows
from spacy_relx.training.steps import Steps
from spacy_relx.training.trainer import Trainer, TrainerSettings

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("founded_by", "works_for", "no_relation")
TURNS = (("system", "Choose one of founded_by, works_for, no_relation."),)
GROUPS = [
    RowGroup(
        TURNS,
        (
            (f"Sentence: {a} of {b}.\nEntity 1: {a}\nEntity 2: {b}\nRelation:", label),
            (f"Sentence: {a} of {b}.\nEntity 1: {b}\nEntity 2: {a}\nRelation:", "no_relation"),
        ),
        LABELS,
    )
    for a, b, label in (("Ada", "Acme", "works_for"), ("Delta", "Bob", "founded_by"), ("Cy", "Orion", "works_for"))
]
LORA = LoraSettings(8, 16)
gradient_loss = gradient.pack_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def load(base: Path) -> Any:
    return load_model(ModelSpec(str(base), dtype="float32", device="cpu", merge_adapter=False))


def train(base: Path, folder: Path, groups: Any = GROUPS, tell: Any = None, **settings: Any) -> dict[str, Any]:
    plan = TrainerSettings(**{"learning_rate": 1e-3, "batch_rows": 2, "epochs": 4, "checkpoint_every": 3} | settings)
    return Trainer(load(base), groups, folder, plan, LORA, GROUPS).run(tell)


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_it_learns_and_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    last = train(tiny_llama, tmp_path, epochs=30, learning_rate=1e-2, warmup=0.1, dropout=0.0, evaluate_every=30)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, 91))
    assert last == log[-1]
    assert last["loss"] < 0.2 * log[0]["loss"]
    first = log[29]["dev"]
    assert last["dev"]["loss"] < 0.7 * first["loss"]
    assert last["dev"]["accuracy"] > 0.5  # half of the answers are no_relation
    assert last["dev"]["n_rows"] == 6
    assert log[0]["learning_rate"] == pytest.approx(1e-2 / 9)
    assert max(line["learning_rate"] for line in log) == pytest.approx(1e-2)
    assert weights_in(tmp_path / "best").keys() == weights_in(tmp_path / "adapter").keys()
    back = load_model(ModelSpec(str(tiny_llama), str(tmp_path / "adapter"), dtype="float32", device="cpu"))
    assert back.adapter_info["metadata"]["n_steps"] == 90


def test_a_killed_run_goes_on_as_if_nothing_had_been(tiny_llama: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    train(tiny_llama, whole, evaluate_every=4)

    class Killed(Exception):
        pass

    def kill(line: dict[str, Any]) -> None:
        if line["step"] == 8:  # two steps after the last checkpoint
            raise Killed

    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        train(tiny_llama, cut, tell=kill, evaluate_every=4)
    assert not (cut / "adapter").exists()
    steps: list[int] = []
    train(tiny_llama, cut, tell=lambda line: steps.append(line["step"]), evaluate_every=4)
    assert steps == [7, 8, 9, 10, 11, 12]
    for name, value in weights_in(whole / "adapter").items():
        assert torch.equal(weights_in(cut / "adapter")[name], value), name
    logs = [[json.loads(x) for x in (folder / "log.jsonl").read_text().splitlines()] for folder in (whole, cut)]
    assert [(line["step"], line["loss"], line.get("dev")) for line in logs[0]] == [
        (line["step"], line["loss"], line.get("dev")) for line in logs[1]
    ]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # of Python 3.12, where Linux forks
def test_workers_make_the_same_packs(tiny_llama: Path, tmp_path: Path) -> None:
    train(tiny_llama, tmp_path / "plain")
    assert train(tiny_llama, tmp_path / "ahead", workers=1)["step"] == 12
    expected = weights_in(tmp_path / "plain" / "adapter")
    for name, value in weights_in(tmp_path / "ahead" / "adapter").items():
        assert torch.equal(value, expected[name]), name
    with pytest.raises(ConfigError, match="workers is -1"):
        TrainerSettings(workers=-1)


def test_steps_go_to_a_worker_on_systems_that_do_not_fork(tiny_llama: Path) -> None:
    steps = Steps(GROUPS, [[0, 1], [2]], Encoder(load(tiny_llama).tokenizer, {"date": "today"}, 99), 64)
    there = pickle.loads(pickle.dumps(steps))
    for number in (0, 1):
        for (rows, pack), (others, other) in zip(steps[number], there[number], strict=True):
            assert rows == others
            assert pack.tokens.tolist() == other.tokens.tolist()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_goes_wrong_in_a_worker_is_said_as_without_one(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^A row has \d+ tokens, but at most 20 fit: 'Sentence"):
        train(tiny_llama, tmp_path, workers=1, max_pack_tokens=20)


def test_gradient_checkpointing_is_the_same_training(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be set when a run goes on: it is what helps where the memory stopped it."""
    n_layers = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal n_layers
        n_layers += 1
        return checkpoint(*args, **kwargs)

    train(tiny_llama, tmp_path / "plain")
    train(tiny_llama, tmp_path / "again", max_steps=3)
    monkeypatch.setattr(decoder, "checkpoint", counted)
    train(tiny_llama, tmp_path / "whole", gradient_checkpointing=True)
    assert n_layers == 12 * 2  # steps, layers
    expected = weights_in(tmp_path / "plain" / "adapter")
    for name, value in weights_in(tmp_path / "whole" / "adapter").items():
        assert torch.equal(value, expected[name]), name
    assert train(tiny_llama, tmp_path / "again", gradient_checkpointing=True)["step"] == 12
    assert n_layers == 12 * 2 + 9 * 2


def test_a_checkpoint_of_other_rows_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    train(tiny_llama, tmp_path, epochs=1)
    with pytest.raises(TrainingError, match="a run with other rows"):
        train(tiny_llama, tmp_path, GROUPS[:2], epochs=1)
    with pytest.raises(TrainingError, match="a run with other settings"):
        train(tiny_llama, tmp_path, epochs=1, learning_rate=2e-3)


def test_a_damaged_checkpoint_is_an_error(tiny_llama: Path, tmp_path: Path) -> None:
    train(tiny_llama, tmp_path, epochs=1)
    (tmp_path / "checkpoint" / "state.safetensors").write_bytes(b"cut off")
    with pytest.raises(TrainingError, match=r"cannot be read.*Remove it"):
        train(tiny_llama, tmp_path, epochs=1)


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def not_a_number(*args: Any, **kwargs: Any) -> torch.Tensor:
    return gradient_loss(*args, **kwargs) * math.nan


@pytest.mark.parametrize(
    ("module", "name", "spoiled", "message"),
    [
        (checkpoints, "save_file", full, r"checkpoint cannot be written.*No space left.*as it was"),
        (lora, "save_file", full, r"adapter cannot be written.*No space left.*as it was"),
        (gradient, "pack_loss", not_a_number, r"loss of a pack.* is nan.*checkpoint is intact"),
    ],
    ids=["a full disk", "a full disk at the end", "a loss that is not finite"],
)
def test_what_goes_wrong_leaves_the_checkpoint(
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    spoiled: Any,
    message: str,
) -> None:
    train(tiny_llama, tmp_path / "whole", schedule="constant")
    train(tiny_llama, tmp_path / "cut", max_steps=6, schedule="constant")
    first = weights_in(tmp_path / "cut" / "adapter")
    checkpoint = tmp_path / "cut" / "checkpoint"
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(module, name, spoiled)
        with pytest.raises(TrainingError, match=message):
            train(tiny_llama, tmp_path / "cut", schedule="constant")
    if module is not lora:
        assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    assert all(torch.equal(value, first[name]) for name, value in weights_in(tmp_path / "cut" / "adapter").items())
    train(tiny_llama, tmp_path / "cut", schedule="constant")
    expected = weights_in(tmp_path / "whole" / "adapter")
    assert all(torch.equal(value, expected[name]) for name, value in weights_in(tmp_path / "cut" / "adapter").items())


def test_the_command(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "rows.jsonl", GROUPS)
    assert list(read_rows(tmp_path / "rows.jsonl")) == GROUPS
    arguments = [str(tmp_path / "rows.jsonl"), str(tmp_path / "out"), "--base", str(tiny_llama), "--dtype", "float32"]
    arguments += ["--rank", "4", "--dev", str(tmp_path / "rows.jsonl"), "--batch-rows", "2", "--log-every", "1"]
    arguments.append("--gradient-checkpointing")
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert "3 groups, 6 rows, 3 steps\n" in out
    assert "3/3  loss" in out
    assert "accuracy" in out
    assert (tmp_path / "out" / "curves.svg").read_text().startswith("<?xml")
    assert command.main([*arguments[:1], str(tmp_path / "out"), *arguments[2:], "--learning-rate", "1"]) == 1
    assert "other settings" in capsys.readouterr().err


def test_the_command_runs_without_spacy(tiny_llama: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", GROUPS[:1])
    program = (
        "import sys; sys.modules['spacy'] = sys.modules['thinc'] = None\n"
        "from spacy_relx.training.__main__ import main\n"
        f"sys.exit(main([{str(tmp_path / 'rows.jsonl')!r}, {str(tmp_path / 'out')!r}, '--base', {str(tiny_llama)!r},"
        " '--dtype', 'float32', '--device', 'cpu', '--rank', '2']))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"rows\.jsonl:2 is not JSON"),
        ("[]", r"rows\.jsonl:2 is \[\]. Expected an object"),
        ('{"rows": [["a"]]}', r"rows holds \['a'\]. Expected \[question, answer\]"),
        ('{"turns": [["bot", "x"]], "rows": [["a", "b"]]}', "a turn is by 'bot'"),
        ('{"rows": [["a", " "]]}', "an answer is empty"),
        ('{"rows": [["a", "b"]], "labels": ["c"]}', "the answer 'b' is not among the labels"),
        ('{"rows": [["a", "b"]], "labels": "c"}', "labels is 'c'"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GROUPS[0].to_dict()) + f"\n{line}\n")
    with pytest.raises(DataError, match=message):
        list(read_rows(path))


def test_no_rows(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows to train on"):
        train(tiny_llama, tmp_path, [])
    with pytest.raises(DataError, match="does not exist"):
        list(read_rows(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"schedule": "steep"}, "schedule is 'steep'. Expected one of linear"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainerSettings(**settings)
