"""What a loader can be made of: mistakes are told at once, and not after an hour of training."""

import os
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from civid_loader.batch_reading import Missing, OnError
from civid_loader.sampling import OfN, RandomWindow, Sampler
from civid_loader.transforms.crop_frames import Place

Root: TypeAlias = str | os.PathLike[str]
_OPTIONS: Mapping[str, Any] = {"on_error": OnError, "missing": Missing, "crop": Place}


def check_options(**given: str) -> None:
    """Refuse a word that is none of its option's."""
    for name, value in given.items():
        if value not in get_args(_OPTIONS[name]):
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(get_args(_OPTIONS[name]))}")


def check_counts(at_least: Literal[0, 1], **given: int) -> None:
    """Refuse what is no whole number, or a smaller one."""
    for name, count in given.items():
        if not isinstance(count, int) or count < at_least:
            raise ValueError(f"{name}={count!r}: a whole number of at least {at_least}")


def check_timeout(decode_timeout_seconds: float | None) -> None:
    """Refuse a time in which nothing can be decoded."""
    if decode_timeout_seconds is not None and not decode_timeout_seconds > 0:
        raise ValueError(f"decode_timeout_seconds={decode_timeout_seconds}: above 0, or None to wait without end")


def check_rows(dataset: Any) -> None:
    """Refuse what is no list of rows, and say how to get one."""
    if isinstance(dataset, str | os.PathLike):
        raise TypeError(f"dataset={dataset!r}: give rows, such as load_dataset({os.fspath(dataset)!r}, split='train')")
    if isinstance(dataset, Mapping):
        raise TypeError(f"the dataset is divided into {', '.join(map(str, dataset))}: give the rows of one of them")
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(f"{type(dataset).__name__} cannot be read by row number: load it with streaming=False")


def check_frames(frames: Sampler | RandomWindow, *, is_bucketed: bool) -> None:
    """Refuse what does not choose frames, or not as many as a bucket has."""
    if not isinstance(frames, RandomWindow) and not hasattr(frames, "times_seconds"):
        raise ValueError(f"frames={frames!r}: give a sampler, such as Uniform(16)")
    if is_bucketed and not isinstance(frames, OfN):
        raise ValueError(f"frames={frames!r}: buckets need a sampler with a number of frames, such as Uniform(16)")


def check_sizes(sizes: Any, *, num_rows: int, is_bucketed: bool) -> None:
    """Refuse sizes of other rows."""
    if sizes is None and is_bucketed:
        raise ValueError("buckets need sizes=: those that `read_sizes(dataset)` finds")
    if sizes is not None and len(sizes) != num_rows:
        raise ValueError(
            f"sizes are of {len(sizes):,} rows, the dataset has {num_rows:,}: read them of the same rows, "
            "read_sizes(dataset), or of the same split, read_sizes(folder, split='train')"
        )


def roots_of(videos: Root | Mapping[str, Root] | None) -> str | dict[str, str] | None:
    """One video root, or one for each dataset, as plain texts."""
    if isinstance(videos, Mapping):
        return {name: os.fspath(root) for name, root in videos.items()}
    return None if videos is None else os.fspath(videos)
