"""The builder base: what a dataset says of itself, and how stock `datasets` runs it.

Keep names like `open`, `os` and `Path` out of this module and of the dataset modules: `datasets` replaces them, for
good, in every module that defines a builder.
"""

import difflib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets.builder import Key

from civid_loader.errors import AnnotationError, TooManyRejectedError, UnknownKeysError
from civid_loader.schema import SAMPLE_FEATURES
from civid_loader.upstream.cells import Cells, rejected_rows
from civid_loader.upstream.inputs import find_files, stamp
from civid_loader.upstream.records import Chunk, Context, Piece, Rejected, Source, Terms
from civid_loader.upstream.tables import plan_ranges, read_header, read_range
from civid_loader.upstream.video_index import VideoIndex

CHUNK_BYTES: Final = 64 << 20
"""CSV per chunk: a shard of about 30 MB of zstd Parquet, 64 MB in memory."""
_LOG = logging.getLogger(__name__)


@dataclass
class UpstreamConfig(datasets.BuilderConfig):  # type: ignore[misc] # datasets has no types
    """Arguments of a builder made by hand: `LVD2M(annotations=[...], videos=...)`."""

    annotations: tuple[str, ...] | list[str] | str = ()
    videos: str | None = None
    field_map: dict[str, str] = field(default_factory=dict)
    max_rejected: float = 0.01
    stamp: str = ""
    """Sizes and times of the annotation files: part of the cache key, so that changed files are read again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stamp = stamp(self.source().annotations)

    def source(self, subset: str | None = None) -> Source:
        """The same as the rest of the package has it."""
        named = (self.annotations,) if isinstance(self.annotations, str) else tuple(map(str, self.annotations))
        return Source(
            annotations=named, videos=self.videos, subset=subset, field_map=tuple(sorted(self.field_map.items()))
        )


class UpstreamBuilder(datasets.ArrowBasedBuilder):  # type: ignore[misc] # datasets has no types
    """One dataset. Subclasses say how upstream's files are cut into chunks and how a chunk becomes rows."""

    BUILDER_CONFIG_CLASS = UpstreamConfig
    TITLE: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    TERMS: ClassVar[Terms]
    SUBSETS: ClassVar[tuple[str, ...]]
    """What `subset` may be; the first is the default where files do not tell."""
    FIELDS: ClassVar[tuple[str, ...]]
    """Columns or keys that a field map can rename."""
    SURVEYS: ClassVar[str | None] = None
    """What a first pass over all chunks counts repeats of; null: no first pass."""

    NEEDS: ClassVar[tuple[frozenset[str], ...]] = ()
    """Columns or keys that tell this dataset's tables or records; any of the sets is enough."""

    @classmethod
    def recognizes(cls, keys: frozenset[str]) -> bool:
        """Whether a table's columns (or a record's keys) are this dataset's."""
        return any(needed <= keys for needed in cls.NEEDS)

    @classmethod
    def reads(cls, key: str) -> bool:
        """Whether a column or key is read, under the name upstream gives it."""
        return key in cls.FIELDS

    @classmethod
    def plan(cls, source: Source) -> list[Chunk]:
        """Cut the annotation files into chunks, the same for the same files."""
        raise NotImplementedError

    @classmethod
    def read(cls, chunk: Chunk, source: Source, context: Context) -> Iterator[Piece]:
        """Rows of a chunk, in order."""
        raise NotImplementedError

    @classmethod
    def survey(cls, chunk: Chunk, source: Source) -> npt.NDArray[np.uint64]:
        """First pass: one value per row, repeats of which matter to `read`."""
        raise NotImplementedError

    @classmethod
    def check_subset(cls, subset: str | None) -> None:
        """Raise `AnnotationError` for a subset this dataset does not have."""
        if subset is not None and subset not in cls.SUBSETS:
            close = difflib.get_close_matches(subset, cls.SUBSETS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise AnnotationError(f"{cls.TITLE} has no subset {subset!r}; it has {', '.join(cls.SUBSETS)}.{hint}")

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.TITLE, homepage=self.HOMEPAGE, license=self.TERMS.license, features=SAMPLE_FEATURES
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        subset = self.config.name if self.config.name in self.SUBSETS else None
        source = self.config.source(subset)
        if not source.annotations:
            raise AnnotationError(f"{self.TITLE}: name the annotation files, annotations=[...]")
        chunks = [chunk for chunk in self.plan(source) if chunk.table == "annotations"]
        context = Context(
            videos=VideoIndex.scan(source.videos) if source.videos else None,
            repeated=repeats([self.survey(chunk, source) for chunk in chunks] if self.SURVEYS else []),
        )
        splits = dict.fromkeys(chunk.split for chunk in chunks)
        return [
            datasets.SplitGenerator(
                name=split,
                gen_kwargs={"chunks": [c for c in chunks if c.split == split], "source": source, "context": context},
            )
            for split in splits
        ]

    def _generate_tables(self, chunks: list[Chunk], source: Source, context: Context) -> Iterator[tuple[Key, pa.Table]]:
        rejected: list[Rejected] = []
        num_rows = 0
        for shard, chunk in enumerate(chunks):
            for batch, piece in enumerate(self.read(chunk, source, context)):
                rejected += piece.rejected
                num_rows += piece.rows.num_rows
                yield Key(shard, batch), piece.rows
        for row in rejected:
            _LOG.warning("%s row %d rejected: %s", row.file, row.row_index, row.reason)
        check_tolerance(rejected[:10], len(rejected), num_rows, self.config.max_rejected)


class CsvBuilder(UpstreamBuilder):
    """A dataset whose annotations are CSV tables, one clip a row."""

    @classmethod
    def subset_of(cls, stem: str, columns: frozenset[str]) -> str:
        """Subset of a table by its file name and columns."""
        raise NotImplementedError

    @classmethod
    def rows(cls, cells: Cells, row_index: npt.NDArray[np.int64], chunk: Chunk, context: Context) -> pa.Table:
        """Sample rows of a block; cells that cannot be read are marked in `cells`."""
        raise NotImplementedError

    @classmethod
    def plan(cls, source: Source) -> list[Chunk]:
        cls.check_subset(source.subset)
        check_field_map(source, cls.FIELDS)
        chunks = []
        unseen = {theirs for _, theirs in source.field_map}
        for path, name in find_files(source.annotations, (".csv",)):
            if path.suffix.lower() in (".json", ".jsonl"):
                raise AnnotationError(f"{path}: {cls.TITLE} ships CSV tables, this is JSON; `civid inspect` shows it")
            header, _ = read_header(path)
            unseen -= {*header}
            columns = frozenset(_known_names(source, header))
            if not cls.recognizes(columns):
                wanted = ", or ".join(", ".join(sorted(needed)) for needed in cls.NEEDS)
                raise UnknownKeysError(
                    f"{path}: {cls.TITLE} tables have the columns {wanted}; this one has {_shortened(columns)}. "
                    'Are they there under other names? --field-map FILE with {"<name above>": "<name in the file>"}.',
                    keys=columns,
                )
            subset = source.subset or cls.subset_of(path.name.removesuffix(".csv"), columns)
            for part in plan_ranges(path, range_bytes=CHUNK_BYTES):
                chunks.append(Chunk(subset=subset, file=name, num_bytes=part.end_byte - part.start_byte, payload=part))
        if unseen:
            raise AnnotationError(f"field map: no file has a column {' or '.join(map(repr, sorted(unseen)))}")
        return chunks

    @classmethod
    def read(cls, chunk: Chunk, source: Source, context: Context) -> Iterator[Piece]:
        for block in read_range(chunk.payload):
            names = _known_names(source, tuple(block.cells.column_names))
            cells = Cells(block.cells.rename_columns(names))
            cells.flag("read_as_windows_1252", block.is_cp1252)
            rejected = [
                Rejected(file=chunk.file, row_index=row, reason=reason, raw=raw) for row, reason, raw in block.rejected
            ]
            rows = cls.rows(cells, block.row_index, chunk, context)
            if cells.problems:
                good, kept, reasons = cells.without_problems()
                good.flag("read_as_windows_1252", block.is_cp1252[kept])
                rejected += rejected_rows(cells, kept, reasons, file=chunk.file, row_index=block.row_index)
                rows = cls.rows(good, block.row_index[kept], chunk, context)
            notes = Counter({"blank rows skipped": block.num_blank} if block.num_blank else {})
            yield Piece(rows=rows, rejected=rejected, notes=notes)


def _known_names(source: Source, columns: tuple[str, ...]) -> list[str]:
    """Columns under the names this package knows; a mapped field wins over a column that has its name."""
    known = {theirs: ours for ours, theirs in source.field_map}
    replaced = {ours for theirs, ours in known.items() if theirs in columns}
    return [known.get(name, f"{name} (replaced)" if name in replaced else name) for name in columns]


def _shortened(columns: frozenset[str]) -> str:
    listed = ", ".join(sorted(columns))
    return listed if len(listed) <= 400 else f"{listed[:400]}…"


def check_field_map(source: Source, fields: tuple[str, ...]) -> None:
    """Raise `AnnotationError` if the field map names a field the dataset does not have."""
    for name, _ in source.field_map:
        if name not in fields:
            raise AnnotationError(f"field map: {name!r} is not a field of this dataset; it has {', '.join(fields)}")


def repeats(values: list[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """Values that occur more than once, sorted."""
    if not values:
        return np.array([], dtype=np.uint64)
    unique, counts = np.unique(np.concatenate(values), return_counts=True)
    return unique[counts > 1]


def check_tolerance(first: list[Rejected], num_rejected: int, num_rows: int, max_rejected: float) -> None:
    """Raise `TooManyRejectedError` with the first reasons if more than `max_rejected` of all rows were rejected."""
    if num_rejected > max_rejected * (num_rows + num_rejected):
        reasons = "\n".join(f"  {row.file} row {row.row_index}: {row.reason}" for row in first)
        raise TooManyRejectedError(
            f"{num_rejected} of {num_rows + num_rejected} rows rejected, more than max_rejected={max_rejected:g}. "
            f"The first:\n{reasons}\nMend the file, or allow more with --max-rejected."
        )
