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

from spacy_relx.errors import TrainingError
from spacy_relx.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from spacy_relx.settings import Settings
    from spacy_relx.training.contexts import AnnotatedContext
    from spacy_relx.training.session import TrainingSession
    from spacy_relx.training.settings import TrainingSettings

#: What a checkpoint has to hold beside tensors.
_KEYS = ("n_steps", "n_updates", "seen", "losses", "history", "best")
#: Settings of the training loop that may change when a run goes on: where it ends, and who is told.
_FREE = ("max_steps", "max_epochs", "patience", "logger")
#: Settings of a model that change what it computes, but for the last digits.
_MODEL = ("base", "revision", "adapter", "adapter_revision", "quantization", "double_quant", "dtype")


class Replay:
    """The checkpoints of one run, and whether it is still on the way back.

    Args:
        training: The component's training settings; `checkpoint` is set.
        identity: What decides the course of the run, see `run_identity`.
        score_weights: By which spaCy chooses the best model; scores of other components are not known here.

    Attributes:
        is_running: Whether the steps that an earlier run did are being walked through.

    Raises:
        TrainingError: If the folder holds the checkpoint of another run or anything else, or cannot be read.
    """

    def __init__(
        self, training: TrainingSettings, identity: Mapping[str, str], score_weights: Mapping[str, float | None]
    ) -> None:
        assert training.checkpoint is not None
        self._checkpoint = Checkpoint(training.checkpoint, identity, "set training.checkpoint to another folder")
        self._every = training.checkpoint_every
        self._score_weights = {name: weight for name, weight in score_weights.items() if weight}
        self._n_steps = 0
        self._losses: list[float] = []
        self._history: dict[int, dict[str, Any]] = {}
        self._best: tuple[float, dict[str, Tensor]] | None = None
        self._stored = self._read()
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
                f"The checkpoint {self._checkpoint.folder} has no evaluation after step {self._n_steps}. It belongs to "
                "another run; remove it, or set training.checkpoint to another folder."
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
        self._checkpoint.put_back(tensors, session.weights.masters, session.device)
        for name in session.weights.masters:
            key = session.key_of(name)
            for kind, kept in _kept_by(optimizer).items():
                if f"{kind}.{name}" in tensors:
                    kept[key] = tensors[f"{kind}.{name}"].numpy().copy()
            optimizer.nr_update[key] = state["n_updates"]
        session.n_updates = state["n_updates"]
        session.put()
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
        value = float(sum(weight * (scores.get(name) or 0.0) for name, weight in self._score_weights.items()))
        # Of equals, spaCy saves the last.
        if self._best is None or value >= self._best[0]:
            self._best = (value, session.weights.written())

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        stored = self._checkpoint.read(_KEYS)
        if stored is None:
            return None
        state, tensors = stored
        try:
            self._history = {int(step): dict(scores) for step, scores in state["history"]}
            self._losses = [float(loss) for loss in state["losses"]]
            if len(self._losses) != state["n_steps"]:
                raise ValueError("it is not complete")
        except (TypeError, ValueError) as error:
            raise self._checkpoint.unreadable(error) from error
        best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        self._best = (state["best"], best) if best else None
        return stored

    def _write(self, session: TrainingSession, optimizer: Any, seen: Counter[str]) -> None:
        tensors: dict[str, Tensor] = {}
        for name in session.weights.masters:
            key = session.key_of(name)
            # What an optimiser keeps is flat, or shaped as the weights; either comes back as it went.
            for kind, kept in _kept_by(optimizer).items():
                if key in kept:
                    tensors[f"{kind}.{name}"] = torch.from_numpy(np.asarray(kept[key]))
        if self._best is not None:
            tensors |= {f"best.{name}": value for name, value in self._best[1].items()}
        state = {
            "n_steps": self._n_steps,
            "n_updates": session.n_updates,
            "seen": dict(seen),
            "losses": self._losses,
            "history": list(self._history.items()),
            "best": None if self._best is None else self._best[0],
        }
        self._checkpoint.write(state, tensors, session.weights.masters, session.device)


def run_identity(
    training: TrainingSettings,
    settings: Settings,
    contexts: Iterable[AnnotatedContext],
    *,
    loop: Mapping[str, Any],
    model: Mapping[str, Any],
    evaluation: Iterable[object],
) -> dict[str, str]:
    """Hashes of what decides the course of a run, by the names that a message gives them.

    Args:
        training: The component's training settings.
        settings: The component's settings.
        contexts: The training data.
        loop: The `[training]` block of spaCy's config, its variables filled in.
        model: The model's settings as plain values.
        evaluation: What tells the evaluation data from others, in a form with a faithful `repr`.
    """
    schema: Any = settings.schema
    decoding = [settings.decoding, settings.scoring, settings.threshold, settings.top_k, settings.keep_no_relation]
    wording = settings.prompt.to_dict()
    max_new_tokens = wording.pop("max_new_tokens")
    if settings.decoding == "free":  # constrained answers do not depend on it
        decoding.append(max_new_tokens)
    return {
        "model": _hash({name: model.get(name) for name in _MODEL}),
        "training settings": _hash(training.identity()),
        "labels": _hash([schema.to_dict(), settings.no_relation]),
        "prompt": _hash(wording),
        "decoding settings": _hash(decoding),
        "training data": _hash_all(contexts),
        "evaluation data": _hash_all(evaluation),
        "[training] settings": _hash({key: value for key, value in loop.items() if key not in _FREE}),
    }


def _kept_by(optimizer: Any) -> dict[str, Any]:
    """What a thinc optimiser remembers of each matrix; plain gradient descent has no momentum."""
    kept = {"mom1": optimizer.mom1, "mom2": optimizer.mom2}
    return kept if optimizer.averages is None else kept | {"average": optimizer.averages}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _hash_all(values: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode("utf-8", "replace"))
    return digest.hexdigest()
