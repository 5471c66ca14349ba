"""What a video shows, found the slow way: every packet decoded by PyAV, from the first on, and nothing skipped."""

import io
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import VideoReformatter

from civid_loader.sampling import ClipTimes, Sampler

_TOLERANCE_SECONDS = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceVideo:
    """All that a video shows."""

    images_TCHW: torch.Tensor  # noqa: N815 - T frames, C = 3 channels, H height, W width
    """uint8, RGB, full size, as displayed."""
    pts_seconds: npt.NDArray[np.float64]
    """[T], from the first frame."""
    is_key: npt.NDArray[np.bool_]
    """[T], the container calls its packet a keyframe."""
    end_seconds: float
    """When the last frame ends."""

    def clip(self, span: tuple[float, float | None] | None) -> tuple[npt.NDArray[np.int64], ClipTimes]:
        """The frames of a span, and what a sampler is told of them."""
        start, end = span or (0.0, None)
        end_seconds = self.end_seconds if end is None else min(end, self.end_seconds)
        begins_inside = (self.pts_seconds >= start - _TOLERANCE_SECONDS) & (
            self.pts_seconds < (1e9 if end is None else end) - _TOLERANCE_SECONDS
        )
        inside = np.flatnonzero(begins_inside)
        if not len(inside):
            inside = np.flatnonzero(self.pts_seconds <= start + _TOLERANCE_SECONDS)[-1:]
        times = ClipTimes(
            pts_seconds=self.pts_seconds[inside] - start,
            is_key=self.is_key[inside],
            duration_seconds=end_seconds - start,
        )
        return inside, times

    def sample(
        self, sampler: Sampler, span: tuple[float, float | None] | None = None
    ) -> tuple[list[int], npt.NDArray[np.float64]]:
        """(frame numbers, pts from the span's start) of what a sampler asks for."""
        inside, clip = self.clip(span)
        chosen = []
        for time in sampler.times_seconds(clip):
            begun = [k for k, pts in enumerate(clip.pts_seconds) if pts <= time + _TOLERANCE_SECONDS]
            chosen.append(begun[-1] if begun else 0)
        return inside[chosen].tolist(), clip.pts_seconds[chosen]


def decode_reference(data: bytes) -> ReferenceVideo:
    """Decode the best video stream of a file from its first packet to its last."""
    images, pts, keys, ends = [], [], set(), []
    reformatter = VideoReformatter()
    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        assert stream.time_base is not None
        stream.thread_type = "NONE"
        usual = 0 if stream.average_rate is None else round(1 / (stream.average_rate * stream.time_base))
        for packet in container.demux(stream):
            if packet.pts is not None and not packet.is_discard:
                ends.append(packet.pts + (packet.duration or usual))
                keys.update({packet.pts} if packet.is_keyframe else set())
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                assert frame.pts is not None
                rgb: Any = reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()
                images.append(np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90)))
                pts.append(frame.pts)
        tick = stream.time_base
    first = pts[0]
    assert pts == sorted(pts)
    return ReferenceVideo(
        images_TCHW=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        pts_seconds=np.array([float((one - first) * tick) for one in pts]),
        is_key=np.array([one in keys for one in pts]),
        end_seconds=float((max(ends) - first) * tick),
    )
