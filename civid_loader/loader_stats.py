"""What a loader has done, and how long training waited for it."""

from dataclasses import dataclass, field

from civid_loader.batch_reading import BatchNotes


@dataclass(kw_only=True, slots=True)
class WorkerStats:
    """What one worker process has done; without workers all is done by number 0, the training process."""

    num_batches: int = 0
    decode_seconds: float = 0.0
    """Of all its threads together, transforms included."""
    num_bytes_read: int = 0
    """Of video files."""
    num_failures: int = 0
    """Samples that could not be read, each as often as it was tried."""


@dataclass(kw_only=True, slots=True)
class LoaderStats:
    """What a loader has done since it was made."""

    num_batches: int = 0
    num_samples: int = 0
    wait_seconds: float = 0.0
    """The training loop waited so long for batches."""
    total_seconds: float = 0.0
    """From the first batch asked for to the last one given, over all epochs."""
    failures: dict[str, int] = field(default_factory=dict)
    """Samples that could not be read, by class of exception."""
    num_dropped_clips: int = 0
    """Clips without a file, of samples that were given without them (`missing="drop_clip"`)."""
    padding_shares: float = 0.0
    """Of all batches, added up; see `padding_share`."""
    workers: dict[int, WorkerStats] = field(default_factory=dict)
    """By number of the worker."""

    @property
    def samples_per_second(self) -> float:
        """Given to the training loop."""
        return self.num_samples / self.total_seconds if self.total_seconds else 0.0

    @property
    def wait_share(self) -> float:
        """Of the time from the first batch asked for to the last one given, that the training loop waited."""
        return self.wait_seconds / self.total_seconds if self.total_seconds else 0.0

    @property
    def padding_share(self) -> float:
        """Of the places for frames in a batch, those without one, on average."""
        return self.padding_shares / self.num_batches if self.num_batches else 0.0

    @property
    def decode_seconds(self) -> float:
        """Of all workers and threads together."""
        return sum(worker.decode_seconds for worker in self.workers.values())

    @property
    def num_bytes_read(self) -> int:
        """Of video files, by all workers."""
        return sum(worker.num_bytes_read for worker in self.workers.values())

    def add(self, notes: BatchNotes, *, wait_seconds: float, total_seconds: float) -> None:
        """Count a batch."""
        self.num_batches += 1
        self.num_samples += notes.num_samples
        self.wait_seconds += wait_seconds
        self.total_seconds += total_seconds
        worker = self.workers.setdefault(notes.worker, WorkerStats())
        worker.num_batches += 1
        worker.decode_seconds += notes.decode_seconds
        worker.num_bytes_read += notes.num_bytes_read
        self.padding_shares += notes.padding_share or 0.0
        for attempt in notes.attempts:
            if attempt.is_read:
                self.num_dropped_clips += len(attempt.failures)
            else:
                worker.num_failures += 1
                error = attempt.failures[0].error
                self.failures[error] = self.failures.get(error, 0) + 1
