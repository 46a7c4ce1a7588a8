"""Going on after a kill: checkpoints of a training run, and the way back to where it was.

spaCy's training loop begins at its first step, whatever happened before. A run that goes on therefore walks through the
steps that are done without computing them: the same batches are read, each evaluation gives the scores that it gave,
and at the last checkpoint weights, optimiser and random numbers are put back. So its table, its schedules and its
choice of the best model are those of a run that was never killed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from spacy_relx.errors import TrainingError
from spacy_relx.training.files import replaced_folder, restore

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from spacy_relx.settings import Settings
    from spacy_relx.training.contexts import AnnotatedContext
    from spacy_relx.training.session import TrainingSession
    from spacy_relx.training.settings import TrainingSettings

_STATE = "state.json"
_TENSORS = "state.safetensors"
#: Settings of the training loop that may change when a run goes on: where it ends, and who is told.
_FREE = ("max_steps", "max_epochs", "patience", "logger")
#: What an adapter is better by: what `spacy train` stops early on.
_BEST_BY = "rel_micro_f"


class Replay:
    """The checkpoints of one run, and whether it is still on the way back.

    Args:
        training: The component's training settings; `checkpoint` is set.
        settings: The component's settings.
        contexts: The training data.
        loop: The `[training]` block of spaCy's config.

    Attributes:
        is_running: Whether the steps that an earlier run did are being walked through.

    Raises:
        TrainingError: If the folder holds the checkpoint of another run, or cannot be read.
    """

    def __init__(
        self,
        training: TrainingSettings,
        settings: Settings,
        contexts: Iterable[AnnotatedContext],
        loop: Mapping[str, Any],
    ) -> None:
        assert training.checkpoint is not None
        self._folder = training.checkpoint
        self._every = training.checkpoint_every
        self._identity = _identity(training, settings, contexts, loop)
        self._n_steps = 0
        self._losses: list[float] = []
        self._history: dict[int, dict[str, Any]] = {}
        self._best: tuple[float, dict[str, Tensor]] | None = None
        restore(self._folder)
        self._stored = self._read() if (self._folder / _STATE).is_file() else None
        self.is_running = self._stored is not None

    # On the way back

    def loss(self) -> float:
        """The loss of the step that is walked through."""
        return self._losses[self._n_steps]

    def scores(self) -> dict[str, Any]:
        """The scores that the evaluation after this step gave.

        Raises:
            TrainingError: If there was none.
        """
        if self._n_steps not in self._history:
            raise TrainingError(
                f"The checkpoint {self._folder} has no evaluation after step {self._n_steps}. It belongs to another "
                "run; remove it, or set training.checkpoint to another folder."
            )
        return self._history[self._n_steps]

    def step(self, session: TrainingSession, optimizer: Any, seen: Counter[str]) -> None:
        """Walk through one step; the last one puts everything back."""
        assert self._stored is not None
        state, tensors = self._stored
        if self._n_steps == 0 and self._best is not None:
            session.put(self._best[1])  # what spaCy saves on the way is the best adapter so far
        self._n_steps += 1
        if self._n_steps < state["n_steps"]:
            return
        for name, master in session.weights.masters.items():
            key = session.key_of(name)
            master.copy_(tensors[f"master.{name}"])
            optimizer.mom1[key] = tensors[f"mom1.{name}"].numpy().copy()
            optimizer.mom2[key] = tensors[f"mom2.{name}"].numpy().copy()
            optimizer.nr_update[key] = state["n_updates"]
            if optimizer.averages is not None and f"average.{name}" in tensors:
                optimizer.averages[key] = tensors[f"average.{name}"].numpy().copy()
        session.n_updates = state["n_updates"]
        session.put()
        torch.set_rng_state(tensors["random"])
        seen.clear()
        seen.update(state["seen"])
        self._stored = None
        self.is_running = False

    # Ahead

    def keep(self, session: TrainingSession, optimizer: Any, seen: Counter[str], loss: float) -> None:
        """Count a step, and write a checkpoint where one is due."""
        self._n_steps += 1
        self._losses.append(loss)
        if self._n_steps % self._every == 0:
            self._write(session, optimizer, seen)

    def note(self, session: TrainingSession, scores: dict[str, Any]) -> None:
        """Remember the scores of an evaluation, and the adapter if it is the best so far."""
        self._history[self._n_steps] = scores
        value = float(scores.get(_BEST_BY) or 0.0)
        if self._best is None or value > self._best[0]:
            self._best = (value, session.weights.written())

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            state: dict[str, Any] = json.loads((self._folder / _STATE).read_text(encoding="utf-8"))
            tensors = load_file(self._folder / _TENSORS)
        except Exception as error:
            raise TrainingError(
                f"The checkpoint {self._folder} cannot be read: {error}. Remove it to begin anew."
            ) from error
        different = [name for name, value in self._identity.items() if state["identity"].get(name) != value]
        if different:
            raise TrainingError(
                f"The checkpoint {self._folder} belongs to a run with other {', '.join(different)}. Remove it to begin "
                "anew, or set training.checkpoint to another folder."
            )
        self._history = {int(step): scores for step, scores in state["history"]}
        self._losses = list(state["losses"])
        best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        self._best = (state["best"], best) if best else None
        return state, tensors

    def _write(self, session: TrainingSession, optimizer: Any, seen: Counter[str]) -> None:
        tensors = {"random": torch.get_rng_state()}
        for name, master in session.weights.masters.items():
            key = session.key_of(name)
            tensors[f"master.{name}"] = master
            # What an optimiser keeps is flat, or shaped as the weights; either comes back as it went.
            tensors[f"mom1.{name}"] = torch.from_numpy(np.asarray(optimizer.mom1[key]))
            tensors[f"mom2.{name}"] = torch.from_numpy(np.asarray(optimizer.mom2[key]))
            if optimizer.averages:
                tensors[f"average.{name}"] = torch.from_numpy(np.asarray(optimizer.averages[key]))
        if self._best is not None:
            tensors |= {f"best.{name}": value for name, value in self._best[1].items()}
        state = {
            "identity": self._identity,
            "n_steps": self._n_steps,
            "n_updates": session.n_updates,
            "seen": dict(seen),
            "losses": self._losses,
            "history": list(self._history.items()),
            "best": None if self._best is None else self._best[0],
        }
        with replaced_folder(self._folder) as new:
            save_file({name: value.contiguous() for name, value in tensors.items()}, new / _TENSORS)
            (new / _STATE).write_text(json.dumps(state), encoding="utf-8")


def _identity(
    training: TrainingSettings, settings: Settings, contexts: Iterable[AnnotatedContext], loop: Mapping[str, Any]
) -> dict[str, str]:
    """Hashes of what decides the course of a run, by the names that a message gives them."""
    data = hashlib.sha256()
    for context in contexts:
        data.update(repr(context).encode("utf-8", "replace"))
    schema: Any = settings.schema
    return {
        "training settings": _hash(training.identity()),
        "labels": _hash([schema.to_dict(), settings.no_relation]),
        "prompt": _hash(settings.prompt.to_dict()),
        "training data": data.hexdigest(),
        "[training] settings": _hash({key: value for key, value in loop.items() if key not in _FREE}),
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
