"""Videos of every structure that decoding must know how to read: codecs, groups of pictures, containers, times."""

import os
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from support.media import colourful_image, write_video

os.environ.setdefault("SVT_LOG", "1")  # errors only

NUM_FRAMES = 36
VFR_SECONDS = tuple(k * 0.04 + (0.013 if k % 3 else 0.0) + (0.7 if k > 20 else 0.0) for k in range(30))


def x264(**options: object) -> dict[str, str]:
    """Options of libx264, a keyframe every 12 frames unless told otherwise."""
    settings = {"keyint": 12, "min_keyint": 12, "scenecut": 0, "b-adapt": 0, **options}
    return {"preset": "ultrafast", "x264-params": _joined(settings)}


def x265(**options: object) -> dict[str, str]:
    """Options of libx265, a keyframe every 10 frames unless told otherwise."""
    settings = {"keyint": 10, "min_keyint": 10, "scenecut": 0, "b-adapt": 0, "bframes": 3, "open-gop": 0, **options}
    return {"preset": "ultrafast", "x265-params": _joined({**settings, "log-level": "none", "pools": "none"})}


def vpx(**options: object) -> dict[str, str]:
    """Options of libvpx, VP8 and VP9, with pictures that are referred to and never shown."""
    settings = {"g": 12, "deadline": "good", "cpu-used": 5, "auto-alt-ref": 1, "lag-in-frames": 16, "b": "100k"}
    return {name: str(value) for name, value in {**settings, **options}.items()}


def _joined(settings: Mapping[str, object]) -> str:
    return ":".join(f"{name.replace('_', '-')}={value}" for name, value in settings.items())


_AV1 = {"codec": "libsvtav1", "size": (64, 96), "encoder": {"preset": "11", "g": "12", "svtav1-params": "lp=1"}}
_VP9: dict[str, Any] = {"codec": "libvpx-vp9", "encoder": vpx()}
_HEVC: dict[str, Any] = {"codec": "libx265", "encoder": x265()}
_B3: dict[str, Any] = {"num_b_frames": 3}
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
_ODD = (241, 321)

STRUCTURES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"h264-b{n}": ("mp4", {"num_b_frames": n}) for n in (0, 1, 2, 3, 8)},
    **{f"h264-b{n}-open": ("mp4", {"num_b_frames": n, "open_gop": True}) for n in (1, 3, 8)},
    "h264-pyramid": ("mp4", {"encoder": x264(bframes=7, b_pyramid="normal", ref=4)}),
    "h264-pyramid-open": ("mkv", {"encoder": x264(bframes=5, b_pyramid="normal", ref=4, open_gop=1)}),
    "h264-deep-pyramid-mkv": ("mkv", {"encoder": x264(bframes=5, b_pyramid=2, open_gop=1, keyint=6, min_keyint=6)}),
    "h264-strict-pyramid": ("mov", {"encoder": x264(bframes=5, b_pyramid="strict", ref=4)}),
    "h264-intra-refresh": ("mp4", {"encoder": x264(intra_refresh=1, keyint=12, bframes=0)}),
    "h264-intra-refresh-mkv": ("mkv", {"encoder": x264(intra_refresh=1, keyint=12, bframes=0)}),
    "h264-one-group": ("mp4", {"gop": 250, **_B3}),
    "h264-all-keyframes": ("mp4", {"gop": 1}),
    "h264-interlaced": ("mp4", {"encoder": x264(bframes=2, tff=1)}),
    "h264-slices": ("mp4", {"encoder": x264(bframes=2, slices=3)}),
    "h264-mkv-open": ("mkv", {"open_gop": True, **_B3}),
    "h264-ts": ("ts", _B3),
    "h264-ts-open": ("ts", {"open_gop": True, **_B3}),
    "h264-fragmented": ("mp4", {"container_options": _FRAGMENTS, **_B3}),
    "h264-faststart": ("mp4", {"container_options": {"movflags": "faststart"}, **_B3}),
    "h264-444-odd": ("mp4", {"size": (65, 99), "pixel_format": "yuv444p", **_B3}),
    "h264-10bit": ("mp4", {"pixel_format": "yuv420p10le", **_B3}),
    "hevc": ("mp4", _HEVC),
    "hevc-open-mp4": ("mp4", {**_HEVC, "encoder": x265(open_gop=1)}),
    "hevc-open-mkv": ("mkv", {**_HEVC, "encoder": x265(open_gop=1)}),
    "hevc-open-ts": ("ts", {**_HEVC, "encoder": x265(open_gop=1)}),
    "hevc-10bit": ("mp4", {**_HEVC, "pixel_format": "yuv420p10le"}),
    "vp9-webm": ("webm", _VP9),
    "vp9-mp4": ("mp4", _VP9),
    "vp9-odd": ("webm", {**_VP9, "size": _ODD, "num_frames": 26}),
    "vp9-odd-mp4": ("mp4", {**_VP9, "size": _ODD, "num_frames": 26}),
    "vp8-webm": ("webm", {"codec": "libvpx", "encoder": vpx()}),
    "vp8-odd": ("webm", {"codec": "libvpx", "encoder": vpx(), "size": _ODD, "num_frames": 26}),
    "av1-mkv": ("mkv", _AV1),
    "av1-mp4": ("mp4", _AV1),
    "mpeg4-avi": ("avi", {"codec": "mpeg4"}),
    "mpeg4-mp4": ("mp4", {"codec": "mpeg4", "encoder": {"g": "12", "bf": "2"}}),
    "mjpeg-avi": ("avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    "mjpeg-mov": ("mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    **{f"vfr-{suffix}": (suffix, {"pts_seconds": VFR_SECONDS, **_B3}) for suffix in ("mp4", "mkv", "ts")},
    **{f"late-{suffix}": (suffix, {"start_seconds": 5.3, **_B3}) for suffix in ("mp4", "mkv", "ts")},
    "late-hevc-open": ("mp4", {**_HEVC, "encoder": x265(open_gop=1), "start_seconds": 1.7}),
    "discarded-first": ("mp4", {"start_seconds": -0.32, **_B3}),
    "discarded-first-open": ("mp4", {"start_seconds": -0.44, "open_gop": True, **_B3}),
    "discarded-first-hevc": ("mov", {**_HEVC, "start_seconds": -0.52}),
    **{f"turned-{turn}": ("mp4", {"rotation_degrees": turn, **_B3}) for turn in (90, 180, -90)},
    "turned-mkv": ("mkv", {"rotation_degrees": 90, **_B3}),
    **{
        f"{kind}-in-the-stream-{suffix}": (suffix, {"encoder": x264(bframes=2, **color)})
        for kind, color in {
            "bt709-full": {"colormatrix": "bt709", "fullrange": "on"},
            "bt601-limited": {"colormatrix": "smpte170m", "fullrange": "off"},
        }.items()
        for suffix in ("mp4", "ts")
    },
    "bt709-limited-in-the-container": ("mp4", {"container_color": (1, 1), **_B3}),
    "bt709-full-in-the-container": ("mp4", {"container_color": (1, 2), **_B3}),
    "bt601-full-in-the-container": ("mkv", {"container_color": (6, 2), **_B3}),
    "bt709-full-hevc-in-the-container": ("mov", {**_HEVC, "container_color": (1, 2)}),
    "sound-mp4": ("mp4", {"sound": True, **_B3}),
    "sound-fragmented": ("mp4", {"sound": True, "container_options": _FRAGMENTS, **_B3}),
    "sound-mkv": ("mkv", {"sound": True, **_B3}),
    "sound-ts": ("ts", {"sound": True, **_B3}),
}  # fmt: skip
"""name -> (suffix, arguments of `write_video`)."""


def write_structure(folder: Path, name: str, **changes: Any) -> Path:
    """The video of that structure, with colours and `NUM_FRAMES` frames unless it says otherwise."""
    suffix, arguments = STRUCTURES[name]
    given = {"num_frames": NUM_FRAMES, "size": (48, 64), **arguments, **changes}
    image = given.pop("image", None) or partial(colourful_image, size=given["size"])
    return write_video(folder / f"{name}.{suffix}", image=image, **given)


def with_edits(data: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """An MP4 of one track, header last, with another edit list: (duration in ms, first tick or -1) of each edit."""
    rows = b"".join(struct.pack(">IiI", *edit, 1 << 16) for edit in edits)
    box = _box(b"elst", struct.pack(">II", 0, len(edits)) + rows)
    at = data.rindex(b"moov") - 4
    return data[:at] + _replaced(data[at:], (b"moov", b"trak", b"edts"), box)


def _replaced(data: bytes, path: Sequence[bytes], inner: bytes) -> bytes:
    """Boxes with the content of the one at `path` replaced."""
    made, at = b"", 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + size]
        if path and kind == path[0]:
            content = inner if len(path) == 1 else _replaced(content, path[1:], inner)
        made += _box(kind, content)
        at += size
    return made


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content
