"""Requests of many threads in batches: all answered, in order, none for another."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from civid_loader.errors import CaptionerError
from civid_loader.processing.backends.batching import Batcher


def test_threads_get_their_own_answers_and_batches_are_full() -> None:
    sizes, threads = [], set()
    begin = threading.Barrier(16, timeout=20)

    def answer(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        threads.add(threading.get_ident())
        return [one * one for one in batch]

    batcher = Batcher(answer, batch_size=4, wait_seconds=5.0)

    def ask(number: int) -> list[int]:
        begin.wait()
        return batcher([number])

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    batcher.close()
    assert found == [[number * number] for number in range(16)]
    assert sizes == [4, 4, 4, 4]  # waits for a full one, and 5 s for none
    assert len(threads) == 1


def test_a_call_with_many_is_answered_in_order() -> None:
    batches: list[list[int]] = []

    def answer(batch: Sequence[int]) -> list[str]:
        batches.append(list(batch))
        return [str(one) for one in batch]

    batcher = Batcher(answer, batch_size=3, wait_seconds=0.01)
    assert batcher(range(7)) == list("0123456")
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert batcher([]) == []
    batcher.close()


def test_an_error_reaches_all_of_its_batch_and_no_other() -> None:
    def answer(batch: Sequence[int]) -> list[int]:
        if 3 in batch:
            raise CaptionerError("it is gone")
        return list(batch)

    batcher = Batcher(answer, batch_size=2, wait_seconds=0.01)
    with pytest.raises(CaptionerError, match="gone"):
        batcher([0, 1, 2, 3])
    assert batcher([4, 5]) == [4, 5]
    batcher.close()
    batcher.close()
    with pytest.raises(CaptionerError, match="cannot be asked any more"):
        batcher([6])


def test_closing_answers_what_was_asked() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer(batch: Sequence[int]) -> list[int]:
        begun.set()
        assert go_on.wait(20)
        return list(batch)

    batcher = Batcher(answer, batch_size=1)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(batcher, [number]) for number in range(2)]
        assert begun.wait(20)
        closing = pool.submit(batcher.close)
        go_on.set()
        assert [one.result(20) for one in asked] == [[0], [1]]
        closing.result(20)
