"""Loaders that are stopped and go on: with which settings, and with which workers and ranks before and after."""

from pathlib import Path
from typing import Any, Final

from civid_loader.buckets import Bucket
from civid_loader.loader import SequenceLoader
from civid_loader.ordering import Mix
from civid_loader.sampling import RandomWindow

NUM_ROWS: Final = 22
BUCKETS: Final = (Bucket(num_frames=4, height=32, width=48), Bucket(num_frames=8, height=16, width=16))
SIZES: Final = [(5, 32, 48) if i % 3 else (9, 40, 40) for i in range(NUM_ROWS)]
CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "ordered": {"shuffle": False},
    "short tail": {"tail": "short"},
    "dropped tail": {"tail": "drop"},
    "threads": {"decode_threads": 2},
    "buckets": {"buckets": BUCKETS, "sizes": SIZES, "size": None},
    "mix": {"mix": Mix(num_rows=(10, NUM_ROWS - 10), weights=(3.0, 1.0), rows_per_epoch=24)},
}
CHANGES: Final[list[tuple[dict[str, int], dict[str, int]]]] = [
    ({"num_workers": 0}, {"num_workers": 0}),
    ({"num_workers": 2}, {"num_workers": 0}),
    ({"num_workers": 1}, {"num_workers": 4}),
    ({"num_workers": 4}, {"num_workers": 3}),
    ({"world_size": 1}, {"world_size": 2}),
    ({"world_size": 4}, {"world_size": 2, "num_workers": 1}),
    ({"world_size": 2}, {"world_size": 2}),
]
"""(before, after) the stop."""


def loader_of(folder: Path, dataset: Any, **changes: Any) -> SequenceLoader:
    """A loader of `NUM_ROWS` small videos, see `support.training.write_videos`."""
    settings: dict[str, Any] = {"frames": RandomWindow(4), "size": (32, 48), "batch_size": 4, "seed": 3} | changes
    return SequenceLoader(dataset, videos=folder, **settings)
