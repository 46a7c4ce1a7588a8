"""Many callers and one worker: every accepted item is answered once, for the caller who brought it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_relx.serving.batching import MicroBatcher, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Recorder:
    """Doubles numbers, and waits in front of each batch when its gate is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.entered.release()
        assert self.gate.wait(30)
        self.batches.append(items)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [2 * item for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def batcher(recorder: Recorder) -> Iterator[MicroBatcher[int, int]]:
    made: MicroBatcher[int, int] = MicroBatcher(recorder, max_batch=4, max_wait=0.0, max_waiting=10)
    made.start()
    yield made
    recorder.gate.set()
    made.close()


@settings(max_examples=40, deadline=None)
@given(
    jobs=st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), max_size=12),
    max_batch=st.integers(1, 8),
    max_waiting=st.integers(5, 20),
)
def test_what_is_accepted_is_answered_once(jobs: list[list[int]], max_batch: int, max_waiting: int) -> None:
    recorder = Recorder()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        recorder, max_batch=max_batch, max_wait=0.001, max_waiting=max_waiting
    )
    batcher.start()

    def call(job: list[int]) -> list[int] | None:
        try:
            return batcher.submit(job).result(30)
        except UnavailableError:
            return None

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, jobs))
    batcher.close()
    accepted = [job for job, answer in zip(jobs, answers) if answer is not None]
    assert [answer for answer in answers if answer is not None] == [[2 * item for item in job] for job in accepted]
    assert sorted(item for batch in recorder.batches for item in batch) == sorted(
        item for job in accepted for item in job
    )
    assert all(len(batch) <= max(max_batch, *map(len, accepted)) for batch in recorder.batches)
    assert batcher.n_waiting == 0


def test_what_comes_meanwhile_is_answered_together(recorder: Recorder, batcher: MicroBatcher[int, int]) -> None:
    recorder.gate.clear()
    first = batcher.submit([1])
    assert recorder.entered.acquire(timeout=30)
    later = [batcher.submit([i]) for i in range(2, 8)]
    recorder.gate.set()
    assert [future.result(30) for future in [first, *later]] == [[2 * i] for i in range(1, 8)]
    assert recorder.batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_there_is_an_end_of_room_and_room_again(recorder: Recorder, batcher: MicroBatcher[int, int]) -> None:
    recorder.gate.clear()
    futures = [batcher.submit([1] * 5), batcher.submit([2] * 4)]
    with pytest.raises(UnavailableError, match="9 documents are waiting, and there is room for 10") as caught:
        batcher.submit([3, 3])
    assert caught.value.retry_after >= 1
    futures.append(batcher.submit([3]))
    recorder.gate.set()
    assert [future.result(30) for future in futures] == [[2] * 5, [4] * 4, [6]]
    assert batcher.submit([1] * 10).result(30) == [2] * 10


def test_a_failing_batch_is_tried_caller_by_caller(recorder: Recorder, batcher: MicroBatcher[int, int]) -> None:
    recorder.gate.clear()
    first = batcher.submit([0])
    assert recorder.entered.acquire(timeout=30)
    good, bad, after = batcher.submit([1]), batcher.submit([-1]), batcher.submit([2])
    recorder.gate.set()
    assert [future.result(30) for future in (first, good, after)] == [[0], [2], [4]]
    with pytest.raises(ValueError, match="negative"):
        bad.result(30)
    assert batcher.n_waiting == 0


def test_closing_answers_what_was_accepted_and_takes_no_more(
    recorder: Recorder, batcher: MicroBatcher[int, int]
) -> None:
    recorder.gate.clear()
    futures = [batcher.submit([i]) for i in range(9)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while batcher.is_open:
        pass
    with pytest.raises(UnavailableError, match="being stopped"):
        batcher.submit([1])
    recorder.gate.set()
    closing.join(30)
    assert [future.result(0) for future in futures] == [[2 * i] for i in range(9)]


def test_who_has_gone_is_not_answered(recorder: Recorder, batcher: MicroBatcher[int, int]) -> None:
    recorder.gate.clear()
    first = batcher.submit([1])
    assert recorder.entered.acquire(timeout=30)
    gone, stays = batcher.submit([2]), batcher.submit([3])
    assert gone.cancel()
    recorder.gate.set()
    assert [first.result(30), stays.result(30)] == [[2], [6]]
    assert recorder.batches == [[1], [3]]
    assert batcher.n_waiting == 0


def test_before_it_is_started_nothing_is_accepted() -> None:
    batcher: MicroBatcher[int, int] = MicroBatcher(lambda items: items, max_batch=1, max_wait=0, max_waiting=1)
    with pytest.raises(UnavailableError):
        batcher.submit([1])
