"""The sound of a span of a video, on the times of its frames.

Legend: S samples.
"""
# ruff: noqa: N806 - arrays carry their shape.

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av.error
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.filter.graph import Graph

from civid_loader.deadlines import Deadline
from civid_loader.errors import UnreadableVideoError, VideoError
from civid_loader.stream import Stream, open_stream
from civid_loader.videos import ByteSource, as_file


def read_sound(
    source: ByteSource,
    *,
    rate_hz: int,
    start_seconds: float,
    duration_seconds: float,
    timeout_seconds: float | None = None,
) -> npt.NDArray[np.float32] | None:
    """The sound of a span, mixed to one channel: float32 [S] from -1 to 1; None where the file has none.

    Args:
        source: the file.
        rate_hz: samples per second.
        start_seconds: of the span, from the first frame of the file.
        duration_seconds: of the span; sample i is `i / rate_hz` after its start.
        timeout_seconds: for all of it.

    Raises:
        VideoError: the file cannot be read.
    """
    deadline = Deadline(timeout_seconds)
    try:
        with (
            as_file(source, timeout_seconds=timeout_seconds) as file,
            open_stream(file, deadline) as stream,
        ):
            sound = stream.container.streams.best("audio")
            if not isinstance(sound, AudioStream) or sound.codec_context is None:
                return None
            samples_S = np.zeros(round(duration_seconds * rate_hz), np.float32)
            at = 0
            for frame in samples_of(
                stream,
                sound,
                rate_hz=rate_hz,
                layout="mono",
                begin_seconds=stream.first_seconds + start_seconds,
                duration_seconds=duration_seconds,
            ):
                deadline.check()
                found_S = frame.to_ndarray()[0][: len(samples_S) - at]
                samples_S[at : at + len(found_S)] = found_S
                at += len(found_S)
            return samples_S
    except VideoError as error:
        raise error.within(source.name) from error
    except av.error.FFmpegError as error:
        raise UnreadableVideoError(f"{source.name}: its sound cannot be read ({error.strerror})") from error


def samples_of(
    stream: Stream,
    source: AudioStream,
    *,
    rate_hz: int,
    layout: str,
    begin_seconds: float,
    duration_seconds: float,
) -> Iterator[AudioFrame]:
    """The sound of a span, float32, at a rate and in a channel layout of FFmpeg's; silence where there is none.

    `begin_seconds` is counted as the container counts, not from the first frame.
    """
    tick = source.time_base or Fraction(1, source.rate)
    graph = Graph()
    nodes = [
        graph.add_abuffer(template=source, time_base=tick),
        graph.add("aresample", f"{rate_hz}:async=1:first_pts=0"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates={rate_hz}:channel_layouts={layout}"),
        graph.add("atrim", f"end={duration_seconds}"),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    stream.container.seek(int(max(0.0, begin_seconds - 1) / tick), stream=source)
    for frame in (frame for packet in stream.container.demux(source) for frame in packet.decode()):
        if frame.pts is None or frame.pts * tick + Fraction(frame.samples, frame.sample_rate) <= begin_seconds:
            continue
        if frame.pts * tick >= begin_seconds + duration_seconds:
            break
        frame.pts -= round(begin_seconds / tick)
        graph.push(frame)
        yield from _pulled(graph)
    graph.push(None)
    yield from _pulled(graph)


def _pulled(graph: Graph) -> Iterator[AudioFrame]:
    while True:
        try:
            yield cast(AudioFrame, graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return
