"""Decoding by torchcodec: on a GPU through NVDEC, or to compare.

Legend: T frames, C = 3 channels (RGB), H height, W width; images are uint8.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from civid_loader.errors import CorruptVideoError, MissingDependencyError, UnreadableVideoError
from civid_loader.videos import ByteSource, as_file

_SAME_SECONDS: Final = 2e-3
"""Matroska and others round times to milliseconds."""


def read_with_torchcodec(
    source: ByteSource,
    moments_seconds: npt.NDArray[np.float64],
    numbers: Sequence[int] | None,
    *,
    fit: Callable[[torch.Tensor], torch.Tensor],
    device: str,
    threads: int,
) -> torch.Tensor:
    """The frames that begin at these moments, in seconds from the video's first frame, as images TCHW on `device`.

    By their numbers where they are known: torchcodec refuses the time of the last frame of some files, and the last
    frame of some MPEG-TS altogether. Always in its exact mode: the approximate one gives other frames where the frame
    rate varies.

    Raises:
        MissingDependencyError: torchcodec, or FFmpeg's libraries, are not installed.
        CorruptVideoError: frames do not come out.
        UnreadableVideoError: other frames came out than those asked for.
    """
    decoder_of = _video_decoder()
    with as_file(source) as file:
        try:
            decoder = decoder_of(file, device=device, num_ffmpeg_threads=threads, seek_mode="exact")
            start_seconds = decoder.metadata.begin_stream_seconds
            if numbers is not None:
                batch = decoder.get_frames_at(list(numbers))
            else:
                # A little into the frame: the times of the two libraries differ in the last digit.
                batch = decoder.get_frames_played_at([start_seconds + t + 1e-6 for t in moments_seconds.tolist()])
        except (RuntimeError, IndexError, ValueError) as error:
            raise CorruptVideoError(f"torchcodec cannot decode it ({str(error).splitlines()[0]})") from error
        off_seconds = np.abs(batch.pts_seconds.numpy() - start_seconds - moments_seconds)
        if float(off_seconds.max()) > _SAME_SECONDS:
            raise UnreadableVideoError(
                f"torchcodec gives a frame {off_seconds.max():.3f} s from the one asked for; use backend='pyav'"
            )
        # One by one: a batch of full-size floats would not fit next to it.
        return torch.stack([fit(image_CHW) for image_CHW in batch.data])


def _video_decoder() -> Any:
    # It has to be imported to know: without the system's FFmpeg the package is there and does not load.
    try:
        decoders = import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(
            "backend='torchcodec' needs torchcodec (pip install 'civid_loader[torchcodec]') and the system's FFmpeg "
            f"(Debian: apt-get install ffmpeg); it does not load: {str(error).splitlines()[0]}"
        ) from error
    return decoders.VideoDecoder
