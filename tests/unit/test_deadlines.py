import os
import threading
import time

import pytest

from civid_loader.deadlines import run_within
from civid_loader.errors import StuckVideoError, VideoTimeoutError


def test_results_and_errors_come_through() -> None:
    assert run_within(5, lambda: 7) == run_within(None, lambda: 7) == 7
    for error in (VideoTimeoutError("slow"), TimeoutError("own"), MemoryError(), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            run_within(5, fail)
        assert caught.value is error


def test_one_thread_works_for_each_that_waits() -> None:
    names = {run_within(5, threading.get_ident) for _ in range(5)}
    assert len(names) == 1
    assert names != {threading.get_ident()}


def test_what_is_stuck_is_left_behind() -> None:
    ended = threading.Event()
    before = run_within(5, threading.get_ident)
    start = time.monotonic()
    with pytest.raises(StuckVideoError, match=r"stuck for more than 0\.1 s"):
        run_within(0.1, lambda: ended.wait(60))
    assert time.monotonic() - start < 30
    after = run_within(5, threading.get_ident)
    ended.set()
    assert before != after


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_it_works_after_a_fork() -> None:
    run_within(5, os.getpid)
    child = os.fork()
    if not child:
        os._exit(0 if run_within(5, os.getpid) == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
