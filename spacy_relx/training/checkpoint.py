"""The last state of a training run on disk, from which a run that was killed goes on.

Owns the two files, and what every run has to keep: whose checkpoint it is, the adapter's masters, and the random
numbers to come. What else a run remembers, such as its optimiser, it gives along and gets back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from spacy_relx.errors import TrainingError
from spacy_relx.training.files import replaced_folder, restore

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from torch import Tensor

STATE = "state.json"
TENSORS = "state.safetensors"


class Checkpoint:
    """A folder with the last state of one run, and nothing else.

    Args:
        folder: The folder; each checkpoint replaces all that is in it.
        identity: What decides the course of the run, by the names that a message gives them; JSON values.
        elsewhere: How a user gives another folder, for messages.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], elsewhere: str) -> None:
        self.folder = folder.resolve()  # a link is followed, not replaced by a folder
        self._identity = dict(identity)
        self._elsewhere = elsewhere

    def read(self, keys: Collection[str]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Read what `write` wrote, if there is anything.

        Args:
            keys: What the state has to hold.

        Returns:
            The state and the tensors, or None where no run has left any.

        Raises:
            TrainingError: If the folder holds the checkpoint of another run or anything else, or cannot be read.
        """
        self._check_files()
        restore(self.folder)
        self._check_files()
        if not (self.folder / STATE).is_file():
            return None
        try:
            state: dict[str, Any] = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            tensors = load_file(self.folder / TENSORS)
            identity = dict(state["identity"])
            if "random" not in tensors or not set(keys) <= state.keys():
                raise ValueError("it is not complete")
        except Exception as error:
            raise self.unreadable(error) from error
        different = [name for name, value in self._identity.items() if identity.get(name) != value]
        if different:
            raise TrainingError(
                f"The checkpoint {self.folder} belongs to a run with other {', '.join(different)}. Remove it to begin "
                f"anew, or {self._elsewhere}."
            )
        return state, tensors

    def unreadable(self, error: object) -> TrainingError:
        """The error for a state that makes no sense."""
        return TrainingError(f"The checkpoint {self.folder} cannot be read: {error!r}. Remove it to begin anew.")

    def put_back(self, tensors: Mapping[str, Tensor], masters: Mapping[str, Tensor], device: torch.device) -> None:
        """Give masters and random numbers the values that were written.

        Args:
            tensors: What `read` returned.
            masters: The adapter's matrices, which are changed.
            device: Where the model computes.

        Raises:
            TrainingError: If a matrix is missing or has another shape; nothing is changed then.
        """
        for name, master in masters.items():
            stored = tensors.get(_key(name))
            if stored is None or stored.shape != master.shape:
                raise TrainingError(
                    f"The checkpoint {self.folder} has {'nothing' if stored is None else tuple(stored.shape)} for "
                    f"{name}. Expected the shape {tuple(master.shape)}: the model is another one. Remove it to begin "
                    "anew."
                )
        for name, master in masters.items():
            master.copy_(tensors[_key(name)])
        torch.set_rng_state(tensors["random"])
        if device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], device)

    def write(
        self,
        state: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        masters: Mapping[str, Tensor],
        device: torch.device,
    ) -> None:
        """Replace the checkpoint in one step.

        Args:
            state: Plain values.
            tensors: Tensors beside the masters.
            masters: The adapter's matrices.
            device: Where the model computes.

        Raises:
            TrainingError: If a master is not finite, or the folder cannot be written; the old checkpoint is intact.
        """
        for name, master in masters.items():
            if not torch.isfinite(master).all():
                raise TrainingError(
                    f"The adapter's {name} has numbers that are not finite. Expected none; the last checkpoint, "
                    f"{self.folder}, is intact. Lower the learning rate, or use dtype='bfloat16' or 'float32'."
                )
        found = {"random": torch.get_rng_state(), **tensors, **{_key(name): value for name, value in masters.items()}}
        if device.type == "cuda":
            found["random.cuda"] = torch.cuda.get_rng_state(device)
        text = json.dumps({"identity": self._identity, **state}, default=float)  # scores may be numpy's numbers
        with replaced_folder(self.folder, (STATE, TENSORS)) as new:
            # The masters share one run of memory, which a file may not.
            save_file({name: value.to("cpu", copy=True).contiguous() for name, value in found.items()}, new / TENSORS)
            (new / STATE).write_text(text, encoding="utf-8")

    def _check_files(self) -> None:
        """Refuse a folder that holds anything else: a checkpoint replaces the whole of it."""
        if not self.folder.exists():
            return
        found = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else None
        if found is None or found - {STATE, TENSORS}:
            raise TrainingError(
                f"The checkpoint {self.folder} is {'a file' if found is None else 'a folder with other files'}. "
                "Expected a folder for checkpoints alone, as each replaces all that is in it. "
                f"{self._elsewhere.capitalize()}."
            )
        if len(found) == 1:
            raise TrainingError(
                f"The checkpoint {self.folder} holds {found.pop()} alone. Expected {STATE} and {TENSORS}. Remove it "
                "to begin anew."
            )


def _key(name: str) -> str:
    return f"master.{name}"
