"""Which rows a dataset has, in one number: a saved place means something only for the same rows in the same order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

_ROWS_AT_ONCE = 100_000


def ids_hash(rows: Any) -> str:
    """A hash of the sample ids in their order: of a `datasets.Dataset`, or of anything with `len` and `[i]`."""
    lengths, letters = xxhash.xxh3_64(), xxhash.xxh3_64()
    for ids in _pieces(rows):
        # As Arrow holds them: no Python object for each of millions of rows. Letters and lengths apart: pieces differ.
        offsets = np.frombuffer(ids.buffers()[1], np.int64)[ids.offset : ids.offset + len(ids) + 1]
        lengths.update(np.diff(offsets).tobytes())
        values = ids.buffers()[2]
        letters.update(memoryview(values)[offsets[0] : offsets[-1]] if values is not None else b"")
    return f"{lengths.hexdigest()[:8]}{letters.hexdigest()}"


def _pieces(rows: Any) -> Iterator[pa.LargeStringArray]:
    if hasattr(rows, "column_names"):
        for piece in rows.select_columns(["sample_id"]).with_format("arrow").iter(_ROWS_AT_ONCE):
            yield piece.column("sample_id").combine_chunks().cast(pa.large_string())
        return
    yield pa.array([rows[i]["sample_id"] for i in range(len(rows))], pa.large_string())
