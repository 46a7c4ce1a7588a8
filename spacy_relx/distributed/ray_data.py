"""Blocks on a Ray cluster: actors of Ray Data with a pipeline each. Needs the extra `ray`."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spacy_relx.distributed.annotate import Job, Report, Worker, annotate_blocks
from spacy_relx.distributed.blocks import Block
from spacy_relx.errors import ConfigError, RelxError, RelxWarning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spacy_relx.corpus import Summary
    from spacy_relx.distributed.annotate import MakePipeline

#: What passes through Ray is which blocks there are, not what is in them, so its store may be small.
_STORE_BYTES = 200 * 2**20

#: Most pieces that Ray Data is given; with more blocks, a piece has several.
_MOST_PIECES = 20_000


def annotate_on_ray(
    make_pipeline: MakePipeline,
    source: str | Path,
    output: str | Path,
    *,
    n_actors: int | None = None,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    address: str | None = None,
    **options: Any,
) -> Summary:
    """Annotate a corpus on a Ray cluster: the running one, else one that is started on this machine.

    Every actor has a pipeline of its own and does one block at a time, reading and writing it itself: input and output
    have to be where every machine sees them under one path. An actor that dies is replaced, and its block done again.

    Args:
        make_pipeline: Makes the pipeline, with the component in it; it is called in every actor, so it has to be
            something that pickles, and what it needs has to be installed on every machine.
        source: As for `annotate_blocks`.
        output: As for `annotate_blocks`.
        n_actors: Actors; None: as many as the cluster has room for. More than that wait for it to grow, with a warning.
        cpus_per_actor: Processors that an actor takes; torch uses so many threads.
        gpus_per_actor: GPUs that an actor takes; 1 with `device = "auto"` in the model block puts each on its own.
        address: Of a cluster; None: the environment variable RAY_ADDRESS, else this machine.
        **options: The other settings of `annotate_blocks`.

    Raises:
        ConfigError: If Ray is not installed, or the cluster has no room for an actor.
        DataError: As `annotate_blocks`.
        RelxError: If a pipeline or its model cannot be had.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError(f"Ray Data needs {error.name}. Install it with `pip install 'spacy-relx[ray]'`.") from error

    def run_blocks(job: Job, blocks: list[Block]) -> Iterator[Report]:
        with connected(address):
            ray.data.DataContext.get_current().enable_progress_bars = False  # of its own; ours counts documents
            size = _size(n_actors, ray.cluster_resources(), cpus_per_actor, gpus_per_actor)
            dataset = ray.data.from_items(
                [asdict(block) for block in blocks], override_num_blocks=min(len(blocks), _MOST_PIECES)
            ).map_batches(
                _Actor,
                fn_constructor_args=(job,),
                batch_size=1,
                # A piece that waits at one actor is a piece that another one, which is free, does not get.
                compute=ray.data.ActorPoolStrategy(size=min(size, len(blocks)), max_tasks_in_flight_per_actor=1),
                num_cpus=cpus_per_actor,
                num_gpus=gpus_per_actor or None,
            )
            try:
                for row in dataset.iter_rows():
                    yield Report(**row)
            except ray.exceptions.RayError as error:
                raise _cause(error) from error

    return annotate_blocks(make_pipeline, source, output, run_blocks, **options)


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Have a Ray cluster: the one that this process uses already, else the running one, else one on this machine.

    Args:
        address: Of a cluster, or "local" for a new one; None: the environment variable RAY_ADDRESS, else the cluster
            that `ray start` has begun on this machine, else a new one.

    Raises:
        ConfigError: If there is no cluster at the address, or none can be started.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    is_here = address in (None, "local")
    try:
        try:
            own = {"object_store_memory": _STORE_BYTES, "include_dashboard": False} if is_here else {}
            ray.init(address=address, log_to_driver=False, **own)
        except ValueError:  # a cluster is running here, and what it has was settled when it was started
            ray.init(address=address, log_to_driver=False)
    except Exception as error:  # Ray raises what it likes, Exception itself among them
        where = "Ray could not be started on this machine" if is_here else f"No Ray cluster was reached at {address}"
        raise ConfigError(f"{where}: {error} Its own logs are in /tmp/ray/session_latest/logs.") from error
    try:
        yield
    finally:
        ray.shutdown()


class _Actor:
    """What Ray Data calls: a worker, blocks being rows of columns."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, values)) for values in zip(*(column.tolist() for column in batch.values()))]
        reports = [asdict(self._worker(Block(**row))) for row in rows]
        return {name: [report[name] for report in reports] for name in reports[0]}


def _size(n_actors: int | None, resources: dict[str, float], cpus: float, gpus: float) -> int:
    """How many actors to ask for: so many, or as many as fit into a cluster."""
    wanted = {"CPU": cpus, "GPU": gpus}
    room = min((int(resources.get(name, 0) // amount) for name, amount in wanted.items() if amount), default=0)
    have = ", ".join(f"{resources.get(name, 0):g} {name}" for name in wanted)
    takes = f"An actor takes {cpus:g} CPU and {gpus:g} GPU, and the cluster has {have}"
    if n_actors is None and room < 1:
        raise ConfigError(f"{takes}. Ask for less.")
    if n_actors is not None and room < n_actors:
        # No error: a cluster may grow when more is asked of it.
        warnings.warn(
            f"{takes}: of the {n_actors} actors, {room} fit. The others wait until it grows; ask for fewer, or for "
            "less in each, if it does not.",
            RelxWarning,
            stacklevel=2,
        )
    return n_actors or room


def _cause(error: BaseException) -> BaseException:
    """The error of this package that Ray has wrapped, if there is one."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, RelxError):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return error
