"""Decode runs of packets, and of each run no picture that is not needed.

A run starts at a keyframe and ends with the last frame wanted of it; runs are independent, so threads share them out.
Pictures that nothing refers to (often half of an H.264 file) are left out unless they are wanted: the frames that come
out are the same bit for bit, for less work (`tests/benchmarks/decode.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from civid_loader.deadlines import Deadline
from civid_loader.decode_threads import run_in_threads
from civid_loader.packet_readers import PacketReader
from civid_loader.packets import PacketIndex
from civid_loader.stream import VideoPacket

Take: TypeAlias = Callable[[int, VideoFrame], None]
_DECODERS: Final = {"av1": "libdav1d"}  # others are named as their codec
_BATCH_BYTES: Final = 64 << 20
"""Packets held in memory at a time, about."""
_CAN_SKIP: Final = frozenset({"h264", "hevc"})
"""Codecs whose decoders here may be told to skip packet by packet; dav1d takes it for all or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A run of packets to decode."""

    first: int
    """The keyframe it starts from."""
    targets: Sequence[int]
    """Packets whose frames are wanted, ascending."""

    @property
    def last(self) -> int:
        """The last packet that is needed."""
        return self.targets[-1]


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of a group."""

    missing: set[int]
    """Targets that did not come out."""
    num_decoded: int = 0
    """Frames that came out of the decoder, wanted or not."""
    damaged_from: int | None = None
    """The first packet, in order of decoding, that was refused or gave a damaged picture. From there on every frame of
    the group is suspect: what is predicted from a damaged picture looks whole and is not."""
    reason: str = "its packets are damaged"

    def note_damage(self, packet: int, reason: str | None = None) -> None:
        """A packet was refused, or its picture is damaged."""
        if self.damaged_from is None or packet < self.damaged_from:
            self.damaged_from = packet
            self.reason = reason or self.reason


def decode_group(
    index: PacketIndex, group: Group, packets: Iterable[VideoPacket], take: Take, deadline: Deadline
) -> Outcome:
    """Decode a group's packets and hand each wanted frame to `take`, with its packet's number."""
    context = _context(index)
    can_skip = index.codec in _CAN_SKIP
    wanted = {int(index.pts[packet]): packet for packet in group.targets}
    targets = set(group.targets)
    outcome = Outcome(missing=set(targets))
    previous_pts: int | None = None
    for number, packet in enumerate(_with_end(packets), start=group.first):
        deadline.check()
        if can_skip:
            context.skip_frame = "DEFAULT" if number in targets else "NONREF"
        if packet is not None and packet.is_corrupt:
            outcome.note_damage(number)
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError as error:
            outcome.note_damage(number, f"its packets are damaged ({error.strerror})")
            continue
        outcome.num_decoded += len(frames)
        for frame in frames:
            if frame.pts is None or (previous_pts is not None and frame.pts < previous_pts):
                # This decoder does not know the order, or the times are not those of display: nothing can be trusted.
                return Outcome(missing=targets)
            previous_pts = frame.pts
            if frame.is_corrupt:
                _note_corrupt(index, group, frame.pts, outcome)
            place = wanted.pop(frame.pts, None)
            if place is not None:
                take(place, frame)
                outcome.missing.discard(place)
    return outcome


def _with_end(packets: Iterable[VideoPacket]) -> "Iterator[VideoPacket | None]":
    yield from packets
    yield None  # empties the decoder


def _note_corrupt(index: PacketIndex, group: Group, pts: int, outcome: Outcome) -> None:
    # The pictures before the keyframe that decoding started from are never whole, and never wanted from there.
    if pts >= index.pts[group.first]:
        found = np.flatnonzero(index.pts[group.first : group.last + 1] == pts)
        outcome.note_damage(group.first + int(found[0]) if len(found) else group.first)


def _context(index: PacketIndex) -> VideoCodecContext:
    context: Any = av.CodecContext.create(_DECODERS.get(index.codec, index.codec), "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_type, context.thread_count = "NONE", 1
    if index.extradata:
        context.extradata = index.extradata
    # Stated by the container; the decoder overrides them where the stream itself says.
    context.colorspace, context.color_range = index.color_space, index.color_range
    return context


@dataclass(kw_only=True, slots=True)
class Losses:
    """Packets whose frames are not what they should be."""

    lost: set[int]
    """Nothing came out."""
    corrupt: set[int]
    """Damaged, or predicted from damage; those that are lost too."""
    reason: str | None = None
    """Why frames were lost."""
    num_decoded: int = 0
    """Frames that came out of the decoder, in all groups."""


def decode_packets(
    reader: PacketReader, packets: Sequence[int], take: Take, *, threads: int, deadline: Deadline
) -> Losses:
    """Hand the frames of packets to `take`, each once, in any order and from several threads.

    Raises:
        InsufficientIndexError: frames do not come out, and nothing is damaged: another way of reading may do better.
    """
    index, losses = reader.index, Losses(lost=set(), corrupt=set())
    groups = [Group(first=max(0, first), targets=targets) for first, targets in index.groups(packets)]
    for batch in _batches(index, groups):
        jobs = list(zip(batch, reader.read([(group.first, group.last) for group in batch]), strict=True))
        outcomes = run_in_threads(lambda job: decode_group(index, *job, take, deadline), jobs, threads=threads)
        for group, first_outcome in zip(batch, outcomes, strict=True):
            outcome = _from_earlier(reader, group, first_outcome, take, deadline)
            losses.num_decoded += outcome.num_decoded
            if outcome.missing and outcome.damaged_from is None:
                reader.decode_all(outcome.missing, take)
            elif outcome.missing:
                losses.reason = outcome.reason
                losses.lost |= outcome.missing
            if outcome.damaged_from is not None:
                suspect = {packet for packet in group.targets if packet >= outcome.damaged_from}
                losses.corrupt |= suspect | outcome.missing
    return losses


def _from_earlier(reader: PacketReader, group: Group, outcome: Outcome, take: Take, deadline: Deadline) -> Outcome:
    """Decode again from one, two, four ... keyframes earlier what did not come out, at last from the first.

    Keyframes of an intra refresh, or of a file that marks others than it has, do not always lead to what follows them.
    Damage is found again from wherever one starts.
    """
    keys = np.flatnonzero(reader.index.is_key[: group.first])
    step = 1
    while outcome.missing and outcome.damaged_from is None and len(keys):
        again = Group(first=int(keys[max(0, len(keys) - step)]), targets=group.targets)
        packets = reader.read([(again.first, again.last)])[0]
        num_before = outcome.num_decoded
        outcome = decode_group(reader.index, again, packets, take, deadline)
        outcome.num_decoded += num_before
        if step >= len(keys):
            break
        step *= 2
    return outcome


def _batches(index: PacketIndex, groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Groups that are read together."""
    batch: list[Group] = []
    num_bytes = 0
    for group in groups:
        num_group_bytes = int(index.sizes[group.first : group.last + 1].sum())
        if batch and num_bytes + num_group_bytes > _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
        batch.append(group)
        num_bytes += num_group_bytes
    if batch:
        yield batch
