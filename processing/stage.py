"""What every stage is: which frames it looks at, what it finds, with which models, and who it is.

A stage never decodes. It gets clips with the frames it asked for and gives one row for each, in order; what it finds
does not depend on which clips it gets together.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from civid_loader.processing.weights import ModelNeed, Weights
from civid_loader.sampling import All, Fps, Middle, Sampler, Thirds, Uniform, UniformEnds, UniformPieces
from civid_loader.videos import ByteSource

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Mode = Literal["fps", "uniform_mid", "uniform_ends", "uniform_pieces", "thirds", "middle", "all"]
Resize = Literal["stretch", "short_side", "long_side", "long_side_at_most"]
Interpolation = Literal["area_or_linear", "linear", "bicubic"]
Kind = Literal["clip", "sequence", "corpus"]
Row = dict[str, Any]
"""Column -> value; None where there is none. `reason` says what went wrong; `not_computable` why the clip has no such
value, whoever looks at it: one frame has no motion, say. Clips with a `reason` are tried again on demand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameRequest:
    """Frames that a stage looks at. Equal requests are decoded and resized once, whoever asks."""

    mode: Mode
    """Which, see `civid_loader.sampling`: `fps` is Fps, `uniform_mid` Uniform, the others as they are called."""
    value: float = 0
    """Frames per second, or how many; of mode `uniform_pieces` how many of each piece."""
    size: tuple[int, int] | None = None
    """(height, width) in px; None: as stored."""
    resize: Resize = "stretch"
    """To `size`; or that side to `size[0]`, the aspect ratio kept; `at_most`: smaller pictures stay as they are."""
    interpolation: Interpolation = "area_or_linear"
    """area where the picture gets smaller, else bilinear; OpenCV's bilinear; bicubic with antialiasing."""
    max_frames: int | None = None
    """Of more, as many are kept, evenly spread. Of modes `fps` and `all`."""
    include_last: bool = False
    """Look at the last frame too. Of mode `fps`."""
    piece_seconds: float | None = None
    """Length of a piece. Of mode `uniform_pieces`."""
    min_tail_seconds: float | None = None
    """A last piece shorter than this is a part of the one before. Of mode `uniform_pieces`."""

    def __post_init__(self) -> None:
        for value, options in ((self.mode, Mode), (self.resize, Resize), (self.interpolation, Interpolation)):
            if value not in get_args(options):
                raise ValueError(f"FrameRequest: {value!r} must be one of {', '.join(get_args(options))}")
        given = (self.piece_seconds is not None, self.min_tail_seconds is not None)
        if not given[0] if self.mode == "uniform_pieces" else any(given):
            raise ValueError(
                "FrameRequest: mode 'uniform_pieces' needs piece_seconds; no other has it, nor min_tail_seconds"
            )
        self.sampler()  # which checks `value`

    def identity(self) -> dict[str, Any]:
        """What decides the frames, as plain JSON. What came later is left out where it is not used."""
        later = ("piece_seconds", "min_tail_seconds")
        return {name: value for name, value in asdict(self).items() if value is not None or name not in later}

    def sampler(self) -> Sampler:
        """The sampler that finds their times."""
        samplers: dict[Mode, Any] = {
            "fps": lambda: Fps(self.value, max_frames=self.max_frames, include_last=self.include_last),
            "uniform_mid": lambda: Uniform(int(self.value)),
            "uniform_ends": lambda: UniformEnds(int(self.value)),
            "uniform_pieces": lambda: UniformPieces(
                int(self.value), self.piece_seconds or 0, min_tail_seconds=self.min_tail_seconds or 0
            ),
            "thirds": lambda: Thirds(int(self.value or 3)),
            "middle": Middle,
            "all": lambda: All(max_frames=self.max_frames),
        }
        sampler: Sampler = samplers[self.mode]()
        return sampler


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """Something that a stage finds."""

    name: str
    dtype: str
    """As `datasets.Value` has it: float32, int32, bool, string; or list<...> of these."""
    unit: str = ""
    """px, s ...; "" for plain numbers."""
    doc: str = ""
    """What it is, in a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipInput:
    """A clip with the frames that a stage asked for."""

    id: str
    """Clip id; rows are matched by it."""
    frames: Mapping[str, npt.NDArray[np.uint8]]
    """Name of the request -> uint8 [T, H, W, C], RGB."""
    times_seconds: Mapping[str, npt.NDArray[np.float64]]
    """Name of the request -> [T], when each frame appears, from the clip's start."""
    fps: float
    """Of the clip's frames, all of them."""
    duration_seconds: float
    """Of the clip."""
    video: ByteSource | None = None
    """The file, for stages that need it."""
    span_seconds: tuple[float, float | None] = (0.0, None)
    """[start, end) of the clip in the file, from its first frame; end None: to the file's end."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """What the dataset says of the clip, see `schema.CLIP`, and of its sample: `sample_id`, `dataset`, `subset`,
    `movie_id` and, where there is a table of characters, `bank`, see `read_clips`; of stages before, their columns."""
    shared: dict[Any, Any] = field(default_factory=dict)
    """What stages of one run keep for each other: embeddings by model and request."""


P = TypeVar("P", bound="DataclassInstance")


class Stage(ABC, Generic[P]):
    """One score, segmentation or captioning. One file is one stage, named as the file."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when the same parameters give other values."""
    kind: ClassVar[Kind] = "clip"
    Params: ClassVar[type[Any]]
    """The class of `params`; made without arguments it has the defaults."""
    columns: ClassVar[tuple[Column, ...]]
    caption_kinds: ClassVar[tuple[str, ...]] = ()
    """Of the captions it writes, see `schema.CAPTION_KINDS`: its rows hold them beside its columns, as `captions` and
    `transition_captions`."""
    needs: tuple[str, ...] = ()
    """Stages whose columns it reads, found in `ClipInput.row`; of some stages only with certain parameters."""
    asks_model: ClassVar[bool] = False
    """It needs answers of a model that is named beside it, and has none of its own."""
    needs_video: ClassVar[bool] = False
    """It reads what the decoded frames do not have, from `ClipInput.video`."""
    cost: ClassVar[str]
    """For `civid stages`: what it takes, in a few words."""

    def __init__(self, params: P, *, weights: Mapping[str, Weights] | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            params: a frozen dataclass of plain JSON values; no paths, no devices.
            weights: by role, those of `weights_needed`.
        """
        self.params = params
        self.weights = dict(weights or {})

    def dtype_on(self, device: str) -> str:
        """What its models compute in on cpu or cuda, as torch calls it, for the layer's metadata."""
        return "float32"

    @abstractmethod
    def requests(self) -> Mapping[str, FrameRequest]:
        """Frames it looks at, by names of its own."""

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """Models it uses with these parameters, by role."""
        return {}

    def setup(self, *, device: str) -> None:
        """Load the models, once per worker; `device`: cpu or cuda."""

    def teardown(self) -> None:
        """Let go of them."""

    @abstractmethod
    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """One row per clip, in order. A clip that cannot be judged has `{"reason": "..."}`; it never ends the batch."""

    def fingerprint(self) -> str:
        """Who this stage is: another value, other results. Neither paths nor devices nor licences are in it."""
        return self.fingerprint_of({})

    def fingerprint_of(self, more: Mapping[str, Any]) -> str:
        """With what else decides its results, as plain JSON."""
        identity = {
            "stage": self.name,
            "version": self.version,
            "params": asdict(self.params),
            "requests": {name: one.identity() for name, one in self.requests().items()},
            "models": {role: weights.identity for role, weights in sorted(self.weights.items())},
            **more,
        }
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class CorpusStage(Stage[P]):
    """A stage that judges each clip by all others: `run` takes from a clip what is compared, `finish` compares."""

    kind = "corpus"
    parts: ClassVar[tuple[Column, ...]]
    """What `run` gives for a clip; `columns` is what `finish` gives."""

    @abstractmethod
    def finish(self, found: pa.Table) -> list[Row]:
        """One row per clip, in the order of `found`; what it says of a clip does not depend on that order.

        Args:
            found: of all clips, each once: `clip_id` and `parts`, null for a clip that cannot be judged.
        """
