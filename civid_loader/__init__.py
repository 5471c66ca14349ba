"""Training data for long and interleaved video generation: CI-VID, MiraData, MovieBench and LVD-2M in one typed schema.

Names are loaded on first use, so that `import civid_loader` stays fast and needs neither torch nor datasets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from civid_loader.collation import Batch as Batch
    from civid_loader.collation import collate as collate
    from civid_loader.decoding import Frames as Frames
    from civid_loader.decoding import read_frames as read_frames
    from civid_loader.materialize import BuildReport as BuildReport
    from civid_loader.materialize import build as build
    from civid_loader.sampling import Fps as Fps
    from civid_loader.sampling import Middle as Middle
    from civid_loader.sampling import Times as Times
    from civid_loader.sampling import Uniform as Uniform
    from civid_loader.transforms.decode_clips import DecodeClips as DecodeClips
    from civid_loader.unpacking import ArchiveReport as ArchiveReport
    from civid_loader.unpacking import UnpackReport as UnpackReport
    from civid_loader.unpacking import unpack as unpack

__version__ = "0.1.0"

_HOME = {
    "ArchiveReport": "unpacking",
    "Batch": "collation",
    "BuildReport": "materialize",
    "DecodeClips": "transforms.decode_clips",
    "Fps": "sampling",
    "Frames": "decoding",
    "Middle": "sampling",
    "Times": "sampling",
    "Uniform": "sampling",
    "UnpackReport": "unpacking",
    "build": "materialize",
    "collate": "collation",
    "read_frames": "decoding",
    "unpack": "unpacking",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'civid_loader' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"civid_loader.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
