"""One way to turn a table into Parquet, in a process of its own: `contenders.py CONTENDER DATASET FILE OUTPUT`.

Prints one JSON line: CPU seconds of all threads, wall seconds, rows. Imports are over before the clocks start.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import datasets
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from civid_loader import builders
from civid_loader.materialize import build
from civid_loader.schema import SAMPLE_FEATURES
from support import naive
from support.naive_civid import civid

BLOCK_BYTES: Final = 8 << 20
OUR_OPTIONS: Final[dict[str, Any]] = {
    "compression": "zstd",
    "use_dictionary": False,
    "write_page_index": True,
    "use_content_defined_chunking": {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024},
}
"""What `storage.write_shard` gives the writer."""
ORACLES: Final[dict[str, Callable[[Path], naive.Rows]]] = {
    "lvd2m": lambda path: naive.lvd2m(path, "ytb"),
    "miradata": lambda path: naive.miradata_v1(path, "v1_93k"),
    "civid": civid,
}


def ours(dataset: str, path: Path, output: Path, *, num_proc: int = 1) -> int:
    """`civid_loader.build`."""
    report = build(dataset, annotations=path, output=output, num_proc=num_proc, quiet=True)
    return sum(report.num_rows["annotations"].values())


def ours_two(dataset: str, path: Path, output: Path) -> int:
    """The same with two worker processes."""
    return ours(dataset, path, output, num_proc=2)


def floor(dataset: str, path: Path, output: Path) -> int:
    """pyarrow's own reader and writer with their default options: the columns as they are, nothing made of them."""
    return _copy(path, output, {})


def floor_our_options(dataset: str, path: Path, output: Path) -> int:
    """The same with our writer options."""
    return _copy(path, output, OUR_OPTIONS)


def _copy(path: Path, output: Path, options: dict[str, Any]) -> int:
    num_rows = 0
    reader = _open(path)
    with pq.ParquetWriter(output, reader.schema, **options) as writer:
        for batch in reader:
            writer.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows


def _open(path: Path) -> Any:
    """A streaming reader; of those of pyarrow the one that takes the least CPU."""
    if path.suffix == ".jsonl":
        return pa_json.open_json(path, read_options=pa_json.ReadOptions(block_size=BLOCK_BYTES, use_threads=False))
    return pa_csv.open_csv(path, read_options=pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False))


class RowByRow(datasets.GeneratorBasedBuilder):  # type: ignore[misc] # datasets has no types
    """The plain way: one Python object per row."""

    BUILDER_CONFIG_CLASS = datasets.BuilderConfig

    def __init__(self, *, dataset: str, path: Path, cache_dir: str) -> None:
        self.rows = ORACLES[dataset], path
        super().__init__(cache_dir=cache_dir)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=SAMPLE_FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name="train")]

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        read, path = self.rows
        yield from ((number, sample) for number, sample in read(path) if sample is not None)


def row_by_row(dataset: str, path: Path, output: Path) -> int:
    """`datasets.GeneratorBasedBuilder`."""
    builder = RowByRow(dataset=dataset, path=path, cache_dir=str(output.with_name("cache")))
    builder.download_and_prepare(str(output), file_format="parquet")
    return int(builder.info.splits["train"].num_examples)


CONTENDERS: Final[dict[str, Callable[[str, Path, Path], int]]] = {
    function.__name__: function for function in (ours, ours_two, floor, floor_our_options, row_by_row)
}


def main(contender: str, dataset: str, path: str, output: str) -> None:
    builders.find(dataset)
    datasets.disable_progress_bars()
    cpu, wall = time.process_time(), time.perf_counter()
    num_rows = CONTENDERS[contender](dataset, Path(path), Path(output))
    seconds = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    print(json.dumps({"num_rows": num_rows, **seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
