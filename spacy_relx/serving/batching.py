"""Many callers, one worker: what they bring within a few milliseconds is answered in one go. No HTTP, no spaCy.

What was accepted is answered, also when the batcher is being closed; what there is no room for is refused at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from spacy_relx.errors import RelxError

if TYPE_CHECKING:
    from collections.abc import Callable

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

#: Seconds that a refused caller is told to wait, at least and at most.
_LEAST_RETRY, _MOST_RETRY = 1.0, 60.0

#: Weight of the last batch in the running mean of the speed.
_NEWEST = 0.3


class UnavailableError(RelxError, RuntimeError):
    """There is no room for more work, or the service is being stopped.

    Attributes:
        retry_after: Seconds after which it may be tried again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(slots=True)
class _Job(Generic[_Item, _Answer]):
    items: list[_Item]
    done: Future[list[_Answer]] = field(default_factory=Future)


class MicroBatcher(Generic[_Item, _Answer]):
    """Collects the items of many callers into batches and answers these one after another, in a thread of its own.

    Args:
        answer: Answers a batch: one answer an item, in order.
        max_batch: Items after which a batch waits for no more; a single caller's items are never divided.
        max_wait: Seconds that a batch waits for company.
        max_waiting: Most items that are accepted and not yet answered.
        observe: Told about every batch: its items, and the seconds that it took.
    """

    def __init__(
        self,
        answer: Callable[[list[_Item]], list[_Answer]],
        *,
        max_batch: int,
        max_wait: float,
        max_waiting: int,
        observe: Callable[[int, float], None] = lambda n_items, seconds: None,
    ) -> None:
        self.max_batch, self.max_wait, self.max_waiting = max_batch, max_wait, max_waiting
        self._answer, self._observe = answer, observe
        self._jobs: deque[_Job[_Item, _Answer]] = deque()
        self._n_waiting = 0
        self._closing = False
        self._rate: float | None = None  # items a second
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="relx-batches", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether there is a worker and more is accepted."""
        return self._thread.is_alive() and not self._closing

    @property
    def n_waiting(self) -> int:
        """Items that are accepted and not yet answered."""
        return self._n_waiting

    def submit(self, items: list[_Item]) -> Future[list[_Answer]]:
        """Hand over some items, all or none of which are accepted.

        Raises:
            UnavailableError: If there is no room for them, or the batcher is closed.
        """
        job: _Job[_Item, _Answer] = _Job(items)
        with self._changed:
            if not self.is_open:
                raise UnavailableError("The service is being stopped. Try another one, or again later.", _LEAST_RETRY)
            if self._n_waiting + len(items) > self.max_waiting:
                raise UnavailableError(
                    f"{self._n_waiting} documents are waiting, and there is room for {self.max_waiting}. "
                    "Send them again later.",
                    self._seconds_to_answer(),
                )
            self._n_waiting += len(items)
            self._jobs.append(job)
            self._changed.notify_all()
        return job.done

    def close(self) -> None:
        """Accept no more, and return when everything that was accepted is answered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _seconds_to_answer(self) -> float:
        if self._rate is None:
            return _LEAST_RETRY
        return min(max(self._n_waiting / self._rate, _LEAST_RETRY), _MOST_RETRY)

    def _run(self) -> None:
        while jobs := self._collect():
            self._do([job for job in jobs if job.done.set_running_or_notify_cancel()])
            self._forget([job for job in jobs if job.done.cancelled()])

    def _collect(self) -> list[_Job[_Item, _Answer]]:
        """Wait for a batch; nothing comes once the batcher is closed and everything is answered."""
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            until = time.monotonic() + self.max_wait
            while not self._closing and sum(len(job.items) for job in self._jobs) < self.max_batch:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            jobs: list[_Job[_Item, _Answer]] = []
            n_items = 0
            while self._jobs and (not jobs or n_items + len(self._jobs[0].items) <= self.max_batch):
                jobs.append(self._jobs.popleft())
                n_items += len(jobs[-1].items)
            return jobs

    def _do(self, jobs: list[_Job[_Item, _Answer]]) -> None:
        if not jobs:
            return
        items = [item for job in jobs for item in job.items]
        start = time.monotonic()
        try:
            answers = self._answer(items)
        except Exception as error:
            if len(jobs) > 1:  # one caller's items may be to blame, which should cost no other caller
                for job in jobs:
                    self._do([job])
                return
            self._forget(jobs)
            jobs[0].done.set_exception(error)
            return
        seconds = time.monotonic() - start
        speed = len(items) / max(seconds, 1e-6)
        self._rate = speed if self._rate is None else _NEWEST * speed + (1 - _NEWEST) * self._rate
        self._observe(len(items), seconds)
        # Before the answers are handed out: who has one and sends more shall find the room.
        self._forget(jobs)
        at = 0
        for job in jobs:
            job.done.set_result(answers[at : at + len(job.items)])
            at += len(job.items)

    def _forget(self, jobs: list[_Job[_Item, _Answer]]) -> None:
        with self._changed:
            self._n_waiting -= sum(len(job.items) for job in jobs)
