"""The steps of a run as packs, made ahead of the device by other processes where that pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from torch.utils.data import DataLoader, Dataset

from spacy_relx.training.packs import TrainPack, make_pack, split_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spacy_relx.training.encode import Encoder, TrainRow
    from spacy_relx.training.rows import RowGroup

#: The packs of one optimiser step, each with its rows.
StepPacks: TypeAlias = "list[tuple[Sequence[TrainRow], TrainPack]]"


class Steps(Dataset[StepPacks]):
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

    def load(self, n_workers: int) -> Iterable[StepPacks]:
        """The steps in their order, made by so many processes; 0: by this one, as they are asked for."""
        if n_workers == 0:
            return map(self.__getitem__, range(len(self)))
        return DataLoader(self, batch_size=None, num_workers=n_workers, collate_fn=_as_they_are, prefetch_factor=4)


def _as_they_are(packs: StepPacks) -> StepPacks:
    return packs
