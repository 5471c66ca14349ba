"""What a loader has done, and how long training waited for it."""

from dataclasses import dataclass, field

from civid_loader.batch_reading import BatchNotes
from civid_loader.collation import Batch


@dataclass(kw_only=True, slots=True)
class LoaderStats:
    """What a loader has done since it was made."""

    num_batches: int = 0
    num_samples: int = 0
    wait_seconds: float = 0.0
    """The training loop waited so long for batches."""
    total_seconds: float = 0.0
    """From the first batch asked for to the last one given, over all epochs."""
    decode_seconds: float = 0.0
    """Of all workers and threads together."""
    num_bytes_read: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Samples that could not be read, by class of exception."""
    batches_of_worker: dict[int, int] = field(default_factory=dict)

    @property
    def samples_per_second(self) -> float:
        """Given to the training loop."""
        return self.num_samples / self.total_seconds if self.total_seconds else 0.0

    def add(self, batch: Batch, notes: BatchNotes, *, wait_seconds: float, total_seconds: float) -> None:
        """Count a batch."""
        self.num_batches += 1
        self.num_samples += int((batch.weights_B > 0).sum())
        self.wait_seconds += wait_seconds
        self.total_seconds += total_seconds
        self.decode_seconds += notes.decode_seconds
        self.num_bytes_read += notes.num_bytes_read
        self.batches_of_worker[notes.worker] = self.batches_of_worker.get(notes.worker, 0) + 1
