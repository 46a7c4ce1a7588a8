"""Training on exported rows: rows in, adapter out. No spaCy.

For machines that have a GPU and little else. `spacy train` does the same through the component; both use the same
packs, gradients and weights.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.types import LabelIds, Question
from spacy_relx.errors import ConfigError, DataError, TrainingError
from spacy_relx.training.checkpoint import Checkpoint
from spacy_relx.training.encode import Encoder
from spacy_relx.training.gradient import GradientStep
from spacy_relx.training.lora import LoraWeights
from spacy_relx.training.lora_settings import LoraSettings
from spacy_relx.training.rows import hash_rows
from spacy_relx.training.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.training.rows import RowGroup
    from spacy_relx.training.steps import StepPacks

#: What a checkpoint has to hold beside tensors.
_KEYS = ("done", "seconds", "best")
#: What AdamW remembers of each matrix.
_KEPT = ("step", "exp_avg", "exp_avg_sq")
#: Settings that may change when a run goes on.
_FREE = ("max_steps", "checkpoint_every", "max_pack_tokens", "workers", "gradient_checkpointing")
SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How rows are trained on. The defaults of what the published adapters name are theirs.

    Attributes:
        learning_rate: Highest learning rate.
        schedule: How it falls after the warm-up: "linear" or "cosine" to zero, or "constant".
        warmup: Share of the steps in which it rises.
        weight_decay: Of AdamW.
        dropout: Share of a layer's inputs that the adapter does not see.
        epochs: Passes over the rows.
        max_steps: Most steps; 0: no limit. The schedule ends there.
        batch_rows: Least rows of an optimiser step; groups stay whole.
        max_grad_norm: Gradients are scaled down to this norm.
        max_pack_tokens: Most tokens of one forward and backward pass; None: by device.
        workers: Processes that tokenise and pack the coming steps while the device computes; 0: none, as on a
            processor, where they would only take turns with it.
        gradient_checkpointing: Whether a layer is computed again on the way back instead of kept in memory.
        seed: Of the order of the rows, the adapter's random start, and dropout.
        evaluate_every: Steps between two looks at the development rows; 0: only at the end.
        checkpoint_every: Steps between two checkpoints.

    Raises:
        ConfigError: If a value cannot be used.
    """

    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup: float = 0.03
    weight_decay: float = 0.01
    dropout: float = 0.05
    epochs: int = 1
    max_steps: int = 0
    batch_rows: int = 8
    max_grad_norm: float = 1.0
    max_pack_tokens: int | None = None
    workers: int = 0
    gradient_checkpointing: bool = False
    seed: int = 0
    evaluate_every: int = 0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        at_least = {"epochs": 1, "batch_rows": 1, "checkpoint_every": 1, "max_steps": 0, "workers": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)!r}. Expected a whole number of at least {least}.")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)!r}. Expected a positive number.")
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}. Expected a number from 0 to below 1.")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule is {self.schedule!r}. Expected one of {', '.join(SCHEDULES)}.")


class Trainer:
    """Trains an adapter on groups of rows.

    Args:
        loaded: The model, its adapter, if it has one, not merged.
        groups: The training rows.
        folder: Where adapter, log and checkpoint are written.
        settings: How to train.
        lora: Shape of a new adapter.
        dev: Development rows; their `labels` are what an answer is chosen from.
        template_kwargs: Further variables of the chat template, as the pipeline that will use the adapter has them.

    Raises:
        DataError: If there are no rows.
        TrainingError: If the folder holds the checkpoint of another run.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        groups: Sequence[RowGroup],
        folder: Path,
        settings: TrainerSettings | None = None,
        lora: LoraSettings | None = None,
        dev: Sequence[RowGroup] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not groups:
            raise DataError("There are no rows to train on. Expected at least one group.")
        self._loaded = loaded
        self._groups = groups
        self._dev = dev
        self._folder = folder
        self.settings = settings or TrainerSettings()
        torch.manual_seed(self.settings.seed)
        self._weights = LoraWeights(loaded, lora, seed=self.settings.seed)
        self._step = GradientStep(
            loaded,
            self._weights,
            self.settings.max_pack_tokens,
            gradient_checkpointing=self.settings.gradient_checkpointing,
        )
        self._engine = PackedEngine(loaded, self._step.max_pack_tokens)
        self._encoder = Encoder(loaded.tokenizer, template_kwargs, max_tokens=self._step.max_pack_tokens)
        self._names = list(self._weights.masters)
        self._optimizer = torch.optim.AdamW(
            self._weights.masters.values(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=loaded.device.type == "cpu",  # elsewhere it wants its step counts on the device, and gains nothing
        )
        self._batches = list(self._plan())
        self.n_steps = min(len(self._batches), self.settings.max_steps or len(self._batches))
        self._done = 0
        self._seconds = 0.0
        self._ended = 0.0
        self._best: float | None = None
        self._identity = {
            "settings": {k: v for k, v in asdict(self.settings).items() if k not in _FREE},
            "lora": json.loads(json.dumps(asdict(lora or LoraSettings()))),
            "rows": hash_rows(groups),
            "model": loaded.fingerprint,
        }
        self._checkpoint = Checkpoint(folder / "checkpoint", self._identity, "give another output folder")
        self._resume()

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier run is gone on with."""
        return self._done > 0

    def run(self, tell: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """Train to the end; what is written on the way survives a kill.

        Args:
            tell: Called with each line of the log.

        Returns:
            The last line of the log.
        """
        line: dict[str, Any] = {}
        self._ended = time.perf_counter()
        batches = self._batches[self._done : self.n_steps]
        coming = Steps(self._groups, batches, self._encoder, self._step.max_pack_tokens)
        for packs in coming.load(self.settings.workers):
            line = self._one_step(packs)
            self._done += 1
            every = self.settings.evaluate_every
            if self._dev and (self._done == self.n_steps or (every and self._done % every == 0)):
                line["dev"] = self.evaluate(self._dev)
                self._keep_best(line["dev"])
            self._log(line)
            if tell is not None:
                tell(line)
            if self._done % self.settings.checkpoint_every == 0 or self._done == self.n_steps:
                self._write()
            self._ended = time.perf_counter()
        self._weights.save(self._folder / "adapter", self._facts())
        return line

    def evaluate(self, groups: Sequence[RowGroup]) -> dict[str, float]:
        """Mean loss of a label token, and the share of rows whose best label is the right one.

        A row whose group has no labels counts for the loss alone.
        """
        self._engine.weights_changed()
        total = n_tokens = right = n_ranked = 0.0
        for group in groups:
            rows = self._encoder(group)
            loss, n = self._step.loss(rows)
            total, n_tokens = total + loss, n_tokens + n
            if group.labels:
                chat = self._encoder.chat(group.turns)
                labels = LabelIds(tuple(chat.answer_ids(label) for label in group.labels), chat.terminal)
                every = tuple(range(len(labels)))
                questions = [Question(chat.prompt(question), every) for question, _ in group.rows]
                rankings = self._engine.rank(questions, labels)
                best = [group.labels[ranking.scores[0].label] for ranking in rankings]
                right += sum(said == answer for said, (_, answer) in zip(best, group.rows))
                n_ranked += len(group)
        return {"loss": total / max(n_tokens, 1), "accuracy": right / max(n_ranked, 1), "n_rows": n_ranked}

    def _one_step(self, packs: StepPacks) -> dict[str, Any]:
        start = self._ended
        rate = self._rate()
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate
        self._weights.set_dropout(self.settings.dropout)
        self._step.add_packs(packs)
        n_rows, n_tokens = self._step.n_rows, self._step.n_tokens
        loss = self._step.finish()
        masters = list(self._weights.masters.values())
        torch.nn.utils.clip_grad_norm_(masters, self.settings.max_grad_norm)
        self._optimizer.step()
        self._step.reset()
        self._weights.write()
        self._ended = time.perf_counter()
        seconds = self._ended - start
        self._seconds += seconds
        return {
            "step": self._done + 1,
            "of": self.n_steps,
            "loss": loss,
            "learning_rate": rate,
            "norm": self._step.norm,
            "n_rows": n_rows,
            "n_tokens": n_tokens,
            "seconds": round(seconds, 3),
            "total_seconds": round(self._seconds, 1),
        }

    def _rate(self) -> float:
        highest, at, n = self.settings.learning_rate, self._done, self.n_steps
        warm = math.ceil(self.settings.warmup * n)
        if at < warm:
            return highest * (at + 1) / warm
        if self.settings.schedule == "constant":
            return highest
        left = (n - at) / max(n - warm, 1)
        return highest * (left if self.settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))

    def _plan(self) -> Iterator[list[int]]:
        """The groups of each step, in an order that depends on nothing but the seed."""
        for epoch in range(self.settings.epochs):
            order = list(range(len(self._groups)))
            Random(f"{self.settings.seed}:{epoch}").shuffle(order)
            batch: list[int] = []
            n_rows = 0
            for i in order:
                batch.append(i)
                n_rows += len(self._groups[i])
                if n_rows >= self.settings.batch_rows:
                    yield batch
                    batch, n_rows = [], 0
            if batch:
                yield batch

    def _facts(self) -> dict[str, Any]:
        return {"rows": self._identity["rows"], "settings": self._identity["settings"], "n_steps": self._done}

    def _keep_best(self, dev: dict[str, float]) -> None:
        value = dev["accuracy"] if dev["n_rows"] else -dev["loss"]
        if self._best is None or value > self._best:
            self._best = value
            self._weights.save(self._folder / "best", self._facts() | {"dev": dev})

    def _log(self, line: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with (self._folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self._folder / 'log.jsonl'} cannot be written: {error}. Free some space; the same command goes on "
                "from the last checkpoint."
            ) from error

    # Checkpoints

    def _write(self) -> None:
        masters = self._weights.masters
        kept = {f"{k}.{name}": self._optimizer.state[master][k] for name, master in masters.items() for k in _KEPT}
        state = {"done": self._done, "seconds": self._seconds, "best": self._best}
        self._checkpoint.write(state, kept, masters, self._loaded.device)

    def _resume(self) -> None:
        stored = self._checkpoint.read(_KEYS)
        if stored is None:
            (self._folder / "log.jsonl").unlink(missing_ok=True)
            return
        state, tensors = stored
        masters = self._weights.masters
        self._checkpoint.put_back(tensors, masters, self._loaded.device)
        for name, master in masters.items():
            # AdamW counts its steps on the processor.
            kept = {k: tensors[f"{k}.{name}"].to("cpu" if k == "step" else master.device) for k in _KEPT}
            self._optimizer.state[master] = kept
        self._weights.write()
        self._done, self._seconds, self._best = state["done"], state["seconds"], state["best"]
        self._cut_log()

    def _cut_log(self) -> None:
        """Drop the lines of steps after the checkpoint, which are done again."""
        path = self._folder / "log.jsonl"
        if path.is_file():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= self._done]
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line that was cut off
