"""The steps of a run as packs, made ahead of the device by other processes where that pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset

from spacy_relx.errors import RelxError
from spacy_relx.training.packs import TrainPack, make_pack, split_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy_relx.training.encode import Encoder, TrainRow
    from spacy_relx.training.rows import RowGroup

#: The packs of one optimiser step, each with its rows.
StepPacks: TypeAlias = "list[tuple[Sequence[TrainRow], TrainPack]]"


class Steps:
    """The packs of each optimiser step.

    Args:
        groups: All rows.
        batches: For each step, which groups it takes.
        encoder: Makes token ids.
        max_pack_tokens: Most tokens of a pack.
    """

    def __init__(
        self, groups: Sequence[RowGroup], batches: Sequence[Sequence[int]], encoder: Encoder, max_pack_tokens: int
    ) -> None:
        self._groups = groups
        self._batches = batches
        self._encoder = encoder
        self._max_pack_tokens = max_pack_tokens

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> StepPacks:
        rows = [row for i in self._batches[step] for row in self._encoder(self._groups[i])]
        return [(part, make_pack(part)) for part in split_rows(rows, self._max_pack_tokens)]

    def load(self, n_workers: int) -> Iterator[StepPacks]:
        """The steps in their order, made by so many processes; 0: by this one, as they are asked for.

        Raises:
            DataError: If a row cannot be used.
        """
        if n_workers == 0:
            yield from map(self.__getitem__, range(len(self)))
            return
        ahead = DataLoader(
            _Attempts(self),
            batch_size=None,
            num_workers=n_workers,
            collate_fn=_as_it_is,
            prefetch_factor=4,
            generator=torch.Generator(),  # or it would draw from the one that dropout draws from
        )
        for packs in ahead:
            if isinstance(packs, RelxError):
                raise packs
            yield packs


class _Attempts(Dataset["StepPacks | RelxError"]):
    """Steps, or why there is none: an error that left a worker by itself would bring its traceback as its message."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, step: int) -> StepPacks | RelxError:
        try:
            return self._steps[step]
        except RelxError as error:
            return error


def _as_it_is(attempt: StepPacks | RelxError) -> StepPacks | RelxError:
    return attempt
