"""What a worker process has to do before it computes."""

from __future__ import annotations

import multiprocessing

import torch

from spacy_relx.errors import ConfigError


def prepare_worker(device: str) -> None:
    """In a child of `multiprocessing`, keep torch to one thread, and refuse a GPU.

    The thread pool of the parent does not survive a fork: the first parallel operation in the child would wait for it
    for ever. And as many workers as there are cores, each with as many threads, only stand in each other's way.

    Raises:
        ConfigError: If the model would be put on a GPU.
    """
    if multiprocessing.parent_process() is None:
        return
    torch.set_num_threads(1)
    if device.startswith(("cuda", "mps")) or (device == "auto" and torch.cuda.is_available()):
        raise ConfigError(
            f"The relation extractor runs on a GPU (device={device!r}) in a worker process. Several processes cannot "
            'share one model there: call nlp.pipe with n_process=1, or set device="cpu" in the model block.'
        )
