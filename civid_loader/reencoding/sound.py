"""The sound of a span of a video, on the times of its frames."""

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.filter.graph import Graph

from civid_loader.stream import Stream


def samples_of(
    stream: Stream, source: AudioStream, target: AudioStream, *, begin_seconds: float, duration_seconds: float
) -> Iterator[AudioFrame]:
    """The sound of a span as the encoder of `target` wants it; silence where there is none.

    `begin_seconds` is counted as the container counts, not from the first frame.
    """
    tick = source.time_base or Fraction(1, source.rate)
    graph = Graph()
    layout = f"sample_fmts=fltp:sample_rates={target.rate}:channel_layouts={target.layout.name}"
    nodes = [
        graph.add_abuffer(template=source, time_base=tick),
        graph.add("aresample", f"{target.rate}:async=1:first_pts=0"),
        graph.add("aformat", layout),
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
