"""Bytes behind a URL: ranges merged, fetched in parallel, retried, and kept in memory up to a bound."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NoReturn

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay, wait_random_exponential

from civid_loader.deadlines import Deadline
from civid_loader.errors import RemoteVideoError, VideoNotFoundError, VideoTimeoutError
from civid_loader.transport import (
    LOCK,
    Counters,
    IgnoresRangesError,
    RemoteFile,
    TransientError,
    check_protocol,
    remote_file,
    request,
    without_credentials,
)

MERGE_GAP_BYTES: Final = 256 << 10
"""Ranges closer than this are fetched as one: at 12.5 MB/s the gap costs 20 ms, less than another request."""
WHOLE_FILE_BYTES: Final = 2 << 20
"""A file smaller than this is fetched at once."""
CACHE_BYTES: Final = 32 << 20
"""Kept in memory per source; the range used longest ago goes first."""
MAX_PARALLEL: Final = 16
"""Requests at a time: eight groups of packets and the edges of the file in one round trip."""
MAX_ATTEMPTS: Final = 5
FIRST_WAIT_SECONDS: Final = 0.2
"""The longest wait before the second attempt; doubled for each further one."""
_HEAD_BYTES: Final = 64 << 10  # what asking for the size brings along: most MP4 headers lie within it


class RemoteSource:
    """A file behind a URL, or `num_bytes` of it from byte `offset` on. Holds no connection; pickles as its URL."""

    is_remote: Final = True

    def __init__(self, url: str, *, offset: int = 0, num_bytes: int | None = None) -> None:
        """Args:
        url: anything fsspec understands.
        offset: first byte of the window.
        num_bytes: length of the window; None: to the end of the file, whose length the server tells.

        Raises:
            MissingDependencyError: fsspec lacks the package for this kind of URL.
            UnreadableVideoError: a protocol that fsspec does not know.
        """
        check_protocol(url)
        self._url, self._offset, self._window_bytes = url, offset, num_bytes
        self.name = without_credentials(url)
        self.counters = Counters()
        self._num_bytes = num_bytes
        self._file_bytes: int | None = None
        self._whole: bytes | None = None
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def __reduce__(self) -> tuple[Callable[..., "RemoteSource"], tuple[str]]:
        return partial(RemoteSource, offset=self._offset, num_bytes=self._window_bytes), (self._url,)

    def size(self, *, timeout_seconds: float | None = None) -> int:
        """Length in bytes; one request if no reply has told it yet."""
        if self._num_bytes is None:
            # Not HEAD: signed URLs are often signed for GET only, and the header of the video is wanted next.
            self.read_ranges([(0, _HEAD_BYTES)], timeout_seconds=timeout_seconds)
        if self._num_bytes is None:
            raise RemoteVideoError(f"{self.name}: the server does not say how long the file is; download the file")
        return self._num_bytes

    def read_ranges(self, ranges: Sequence[tuple[int, int]], *, timeout_seconds: float | None = None) -> list[bytes]:
        """The bytes of each (offset, length), in the order given; short or b"" where it reaches past the end.

        Raises:
            VideoNotFoundError: no such file, or an empty one.
            RemoteVideoError: refused, or not delivered after several attempts.
            VideoTimeoutError: not there within `timeout_seconds`.
        """
        wanted = [self._within(offset, length) for offset, length in ranges]
        found = [self._cached(start, end) for start, end in wanted]
        missing = [span for span, data in zip(wanted, found, strict=True) if data is None]
        blocks = self._fetch(missing, Deadline(timeout_seconds)) if missing else []
        return [
            _cut(blocks, start, end) if data is None else data for (start, end), data in zip(wanted, found, strict=True)
        ]

    def _within(self, offset: int, length: int) -> tuple[int, int]:
        if offset < 0 or length < 0:
            raise ValueError(f"{self.name}: no range has offset {offset} and length {length}; both must be >= 0")
        last = offset + length if self._num_bytes is None else self._num_bytes
        return min(offset, last), min(offset + length, last)

    def _cached(self, start: int, end: int) -> bytes | None:
        if start >= end:
            return b""
        with LOCK:
            if self._whole is not None:
                return self._whole[start:end]
            for first, data in self._blocks.items():
                if first <= start and end <= first + len(data):
                    self._blocks.move_to_end(first)
                    return data[start - first : end - first]
        return None

    def _keep(self, start: int, data: bytes) -> None:
        with LOCK:
            self._blocks[start] = max(data, self._blocks.pop(start, b""), key=len)
            while sum(map(len, self._blocks.values())) > CACHE_BYTES:
                self._blocks.popitem(last=False)

    def _fetch(self, spans: list[tuple[int, int]], deadline: Deadline) -> list[tuple[int, bytes]]:
        """Blocks (start, bytes) that hold the spans, as far as the file goes."""
        head = b""
        if self._num_bytes is not None and self._num_bytes < WHOLE_FILE_BYTES:
            head = self._blocks.get(0, b"")  # asking for the size brought it
            spans = [(len(head), self._num_bytes)]
        spans = _merged(spans)
        file = remote_file(self._url)
        pool = ThreadPoolExecutor(min(MAX_PARALLEL, len(spans)), thread_name_prefix="civid-remote")
        try:
            jobs = [pool.submit(self._attempts, file, span, deadline) for span in spans]
            datas = [self._result(job, deadline) for job in jobs]
        except IgnoresRangesError:
            return [(0, self._fetch_whole(pool, file, deadline))]
        finally:
            # Not waited for: whatever still runs ends by its own time limit.
            pool.shutdown(wait=False, cancel_futures=True)
        blocks = [(start - len(head), head + data) for (start, _), data in zip(spans, datas, strict=True)]
        for start, data in blocks:
            self._keep(start, data)
        return blocks

    def _fetch_whole(self, pool: ThreadPoolExecutor, file: RemoteFile, deadline: Deadline) -> bytes:
        data = self._result(pool.submit(self._attempts, file, None, deadline), deadline)
        end = None if self._window_bytes is None else self._offset + self._window_bytes
        with LOCK:
            self._blocks.clear()
            self._whole = data[self._offset : end]
        return self._whole

    def _result(self, job: "Future[bytes]", deadline: Deadline) -> bytes:
        left = deadline.left_seconds
        try:
            # A little later than the job itself gives up, whose message says more.
            return job.result(None if left is None else left + 0.2)
        except TimeoutError as error:
            if isinstance(error, VideoTimeoutError):
                raise
        self._raise_timeout(deadline)

    def _attempts(self, file: RemoteFile, span: tuple[int, int] | None, deadline: Deadline) -> bytes:
        """One span of the window, or the whole file, in as many attempts as it takes."""
        stop: Any = stop_after_attempt(MAX_ATTEMPTS)
        if deadline.left_seconds is not None:
            stop |= stop_before_delay(deadline.left_seconds)
        attempts = Retrying(
            stop=stop,
            wait=wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=10.0),
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        )
        try:
            return attempts(self._attempt, file, span, deadline)
        except TransientError as error:
            num_attempts = attempts.statistics["attempt_number"]
            if num_attempts < MAX_ATTEMPTS:
                self._raise_timeout(deadline, f"; attempt {num_attempts}: {error}")
            raise RemoteVideoError(
                f"{self.name}: {error}, in {num_attempts} attempts; check the connection and the server, then try again"
            ) from None

    def _attempt(self, file: RemoteFile, span: tuple[int, int] | None, deadline: Deadline) -> bytes:
        at = None if span is None else (self._offset + span[0], self._offset + span[1])
        try:
            reply = request(
                file,
                at,
                is_within=self._num_bytes is not None,
                timeout_seconds=deadline.left_seconds,
                counters=self.counters,
            )
        except TimeoutError:
            if deadline.is_over:
                self._raise_timeout(deadline)
            raise TransientError("the connection stalled") from None
        if reply.total_bytes is not None:
            self._learn(reply.total_bytes)
        return reply.data

    def _learn(self, file_bytes: int) -> None:
        """The length of the whole file, as each reply states it."""
        if not file_bytes:
            raise VideoNotFoundError(f"{self.name}: the file is empty, as failed uploads are; upload it again")
        if self._file_bytes not in (None, file_bytes):
            raise RemoteVideoError(
                f"{self.name}: had {self._file_bytes} bytes, now {file_bytes}: it was replaced while it was read; "
                "open it again"
            )
        self._file_bytes = file_bytes
        if self._num_bytes is None:
            self._num_bytes = max(0, file_bytes - self._offset)

    def _raise_timeout(self, deadline: Deadline, why: str = "") -> NoReturn:
        raise VideoTimeoutError(
            f"{self.name}: not read within {deadline.seconds:g} s{why}; pass a larger timeout_seconds"
        ) from None


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans [start, end) in order, those that overlap or nearly touch as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < MERGE_GAP_BYTES:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _cut(blocks: list[tuple[int, bytes]], start: int, end: int) -> bytes:
    """[start, end) of the last block that begins at or before `start`."""
    first, data = max(block for block in blocks if block[0] <= start)
    return data[start - first : end - first]
