"""The errors a user can meet. Each message says what is wrong, where, why, and what to do about it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from civid_loader.decoding import Frames


class CividLoaderError(Exception):
    """Base of all errors of this package that are about a user's data, files or arguments."""


class AnnotationError(CividLoaderError, ValueError):
    """Annotation files cannot be read as the dataset named: a wrong path, format, column or key."""


class UnknownKeysError(AnnotationError):
    """A table or record has none of the columns or keys the dataset needs."""

    def __init__(self, message: str, *, keys: Iterable[str]) -> None:
        super().__init__(message)
        self.keys = frozenset(keys)
        """Columns or keys that were found."""


class TooManyRejectedError(AnnotationError):
    """More rows were rejected than `max_rejected` allows."""


class OutputError(CividLoaderError, ValueError):
    """The output folder holds something this build must not touch."""


class ArchiveError(CividLoaderError, ValueError):
    """An archive of a release is not there, or may not be read."""


class LayerError(CividLoaderError, ValueError):
    """A layer has no such name, or does not fit the dataset."""


class WhereError(CividLoaderError, ValueError):
    """A condition on samples cannot be read, names columns there are not, or cannot be computed."""


class HubError(CividLoaderError, OSError):
    """The Hub refuses, does not have what was asked for, or cannot be reached."""


class StageError(CividLoaderError, ValueError):
    """There is no such stage, parameter or recipe, or stages that do not fit together."""


class WorkerError(CividLoaderError, RuntimeError):
    """Worker processes end, and no clip is to blame."""


class ModelError(CividLoaderError, ValueError):
    """Weights are not here, may not be used, or are not what a stage needs."""


class CaptionerError(CividLoaderError, RuntimeError):
    """A model that writes cannot be asked: address, key, name or the model itself."""


class LicenseError(CividLoaderError, ValueError):
    """The terms of the upstream data do not allow what was asked for."""


class SchemaError(CividLoaderError, ValueError):
    """A table breaks a rule of `civid_loader.schema`."""


class VideoError(CividLoaderError):
    """A video cannot give the frames asked for."""

    frames: "Frames | None" = None
    """What could be decoded in spite of it, where something could."""

    def within(self, where: str) -> Self:
        """The same error with what it happened to in front."""
        return self._saying(f"{where}: {self}")

    def with_cure(self, cure: str) -> Self:
        """The same error with what to do about it behind."""
        return self._saying(f"{self}; {cure}")

    def _saying(self, message: str) -> Self:
        other = type(self)(message)
        other.frames, other.__cause__ = self.frames, self.__cause__
        return other


class VideoNotFoundError(VideoError, FileNotFoundError):
    """The pointer names no file below the video root."""


class UnsafePathError(VideoError, ValueError):
    """A pointer or file name would leave the video root."""


class UnreadableVideoError(VideoError):
    """The file exists but its container or codec data cannot be decoded."""


class NoVideoStreamError(UnreadableVideoError):
    """The file is a media file without a video stream."""


class TruncatedVideoError(UnreadableVideoError):
    """What was asked for lies beyond the end of a file that is cut off."""


class CorruptVideoError(UnreadableVideoError):
    """Packets are damaged, and frames asked for cannot be decoded."""


class VideoTimeoutError(VideoError, TimeoutError):
    """Reading or decoding took longer than allowed."""


class StuckVideoError(VideoTimeoutError):
    """Reading or decoding does not come back at all; a thread of the process is stuck in it."""


class VideoRootError(CividLoaderError, ValueError):
    """Pointers are relative, and no folder was named that they start from."""


class TooManyFailedError(VideoError):
    """More clips cannot be read than `max_failed` allows."""


class RemoteVideoError(VideoError, OSError):
    """A server did not deliver bytes that it says it has, or refused to; another try may succeed."""


class LoaderStateError(CividLoaderError, ValueError):
    """A saved place does not fit the loader it is given to."""


class MissingDependencyError(CividLoaderError, ImportError):
    """An optional dependency is needed for what was asked; the message has the pip command."""
