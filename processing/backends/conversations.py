"""Requests as chats that processors of transformers render.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""

import json
from typing import Any, Final

import numpy as np
from PIL import Image
from transformers.video_utils import VideoMetadata

from civid_loader.processing.captioner import Film, Part, Request

_TICKS_PER_SECOND: Final = 1000
"""Frames are numbered by milliseconds, as their times need not be those of a frame rate."""


def messages_of(request: Request, *, takes_videos: bool) -> list[dict[str, Any]]:
    """The chat of one question, its parts in order.

    Nothing makes a model of transformers keep to a schema, so it is told. Without `takes_videos` films are pictures.
    """
    content = [item for part in request.parts for item in _items(part, takes_videos)]
    if request.schema is not None:
        told = json.dumps(request.schema, ensure_ascii=False)
        content.append(_text(f"\nAnswer with one JSON value that fits this schema, and with nothing else: {told}"))
    return [{"role": "user", "content": content}]


def _items(part: Part, takes_videos: bool) -> list[dict[str, Any]]:
    if isinstance(part, str):
        return [_text(part)]
    if not isinstance(part, Film):
        return [_image(part.pixels_HWC)]
    if is_video(part) and takes_videos:
        return [{"type": "video", "video": part.frames_THWC}]
    return [_image(frame_HWC) for frame_HWC in part.frames_THWC]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(pixels_HWC: Any) -> dict[str, Any]:  # noqa: N803 - arrays carry their shape
    return {"type": "image", "image": Image.fromarray(np.ascontiguousarray(pixels_HWC))}


def is_video(part: Part) -> bool:
    """Whether a part can be a video: processors refuse those of one frame."""
    return isinstance(part, Film) and len(part.frames_THWC) > 1


def metadata_of(film: Film) -> VideoMetadata:
    """When its frames were, for models that are told or that place frames in time.

    Frames at 0.5, 1.5 and 2.5 s have the numbers 500, 1500 and 2500 of 3000 at 1000 per second: one per second.
    """
    times_seconds = film.times_seconds
    numbers = [round(float(one) * _TICKS_PER_SECOND) for one in times_seconds]
    step_seconds = float(times_seconds[-1] - times_seconds[0]) / (len(times_seconds) - 1)
    duration_seconds = len(times_seconds) * step_seconds
    height, width = film.frames_THWC.shape[1:3]
    return VideoMetadata(
        total_num_frames=max(1, round(duration_seconds * _TICKS_PER_SECOND)),
        fps=_TICKS_PER_SECOND,
        width=width,
        height=height,
        duration=duration_seconds,
        frames_indices=numbers,
    )
