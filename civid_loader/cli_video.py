"""The commands about videos themselves: training copies of a dataset, and a look at what the loader sees."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

if TYPE_CHECKING:
    from civid_loader.contact_sheets import SheetRow
    from civid_loader.sampling import ClipTimes, Sampler

MAX_FRAMES: Final = 240
"""Of one video on a sheet: more cannot be looked at, and would fill the memory."""

Numbers = list[tuple[float, float]]


def proxies(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Dataset folder to make.", show_default=False)],
    videos: Annotated[
        Path | None, typer.Option(help="Root of its video files; none where its pointers need none.", readable=False)
    ] = None,
    short_side: Annotated[
        int, typer.Option(min=16, help="Short side of the copies in px, even; smaller videos keep their size.")
    ] = 256,
    gop: Annotated[int, typer.Option(min=1, help="Frames from one keyframe to the next.")] = 16,
    codec: Annotated[Literal["h264", "hevc", "av1"], typer.Option(help="Codec of the copies.")] = "h264",
    crf: Annotated[
        int | None,
        typer.Option(min=0, max=63, help="Quality, lower is better; by default 18 (h264), 20 (hevc), 24 (av1)."),
    ] = None,
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="Keep the sound, as AAC.")] = False,
    num_proc: Annotated[
        int, typer.Option(min=1, help="Worker processes, one core each; the result does not depend on it.")
    ] = 1,
    max_failed: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of clips that may be missing or unreadable.")
    ] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")] = False,
) -> None:
    """Make a training copy: every clip small and quick to decode, as a dataset of its own.

    Example: `civid proxies out/lvd2m --videos /data/lvd2m --short-side 256 --num-proc 16 --output out/lvd2m-256`

    Times are kept: the frame at time t of a copy is the frame at time t of the clip. Rows stay as they are, but for
    `clips[].video`, which names the copy; the copies lie in the config `videos`. A run that was cut off continues when
    the same command is run again. Clips that are missing or unreadable keep their pointer, are listed in
    `rejected/proxies.jsonl`, and are tried again by a rerun that was refused for too many of them.
    """
    from civid_loader.reencoding.proxies import proxies as run
    from civid_loader.report import print_proxies

    if short_side % 2:
        raise typer.BadParameter(
            f"{short_side} is odd, and frames have an even number of rows", param_hint="--short-side"
        )
    report = run(
        dataset,
        videos=videos,
        output=output,
        short_side_px=short_side,
        gop=gop,
        codec=codec,
        crf=crf,
        audio=audio,
        num_proc=num_proc,
        max_failed=max_failed,
        overwrite=overwrite,
    )
    print_proxies(report)


def frames(
    pointers: Annotated[
        list[str], typer.Argument(help="Videos: paths, `archive.tar!member.mp4`, URLs.", show_default=False)
    ],
    at: Annotated[
        list[float] | None, typer.Option(help="Times in seconds, from the start of the video or span: --at 1.5 3.0")
    ] = None,
    uniform: Annotated[int | None, typer.Option(min=1, help="So many, evenly spread. The default, with 8.")] = None,
    fps: Annotated[float | None, typer.Option(help="So many per second.")] = None,
    span: Annotated[
        tuple[float, float] | None, typer.Option(metavar="START END", help="Only this part, in seconds.")
    ] = None,
    size: Annotated[
        tuple[int, int] | None, typer.Option(metavar="HEIGHT WIDTH", help="Scale and crop to this, as for training.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of relative pointers, dataset of `videos:` ones; by default this one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG to write; by default named after the first video.")
    ] = None,
) -> None:
    """Look at what the loader sees: frames of videos with the times they really have, on one picture.

    Example: `civid frames clip.mp4 --uniform 8`

    Example: `civid frames 'chunk_0_40.tar!a/b.mp4' --root /data/civid --at 1.5 3.0`

    A video that cannot be read is a row that says why; frames that are damaged say so.
    """
    from civid_loader.contact_sheets import contact_sheet
    from civid_loader.report import print_frames

    # `--at 1.5 3.0`: an option takes one value, so the others arrive among the pointers.
    times = sorted([*(at or []), *map(float, filter(_is_number, pointers if at else []))])
    names = [pointer for pointer in pointers if not (at and _is_number(pointer))]
    if not names:
        raise typer.BadParameter("name a video before or after the times", param_hint="POINTERS")
    sampler = _sampler(times, uniform=uniform, fps=fps)
    rows, numbers, errors = [], {}, []
    for name in names:
        row, found = _look(name, sampler, span=span, size=size, root=root)
        rows.append(row)
        if found is None:
            errors.append(row.text)
        else:
            numbers[name] = found
    path = output or Path(_file_name(names[0]))
    asked = f"{fps:g} frames per second" if fps else f"{len(times)} times" if times else f"{uniform or 8} frames"
    contact_sheet(rows, path, title=f"{asked}, {f'{span[0]:g} to {span[1]:g} s' if span else 'whole video'}")
    print_frames(numbers, sheet=path)
    for error in errors:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
    if errors:
        raise typer.Exit(1)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) is not None


def _sampler(times: list[float], *, uniform: int | None, fps: float | None) -> "Sampler":
    from civid_loader.sampling import Fps, Times, Uniform

    if sum((bool(times), uniform is not None, fps is not None)) > 1:
        raise typer.BadParameter("--at, --uniform and --fps exclude each other; give one of them")
    try:
        if times:
            return Times(tuple(times))
        return Uniform(uniform or 8) if fps is None else Fps(fps)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


class _Noting:
    """A sampler that keeps the times it gave."""

    def __init__(self, sampler: "Sampler") -> None:
        self._sampler = sampler
        self.times: list[float] = []

    def times_seconds(self, clip: "ClipTimes") -> list[float]:
        self.times = self._sampler.times_seconds(clip)
        if len(self.times) > MAX_FRAMES:
            raise ValueError(
                f"{len(self.times)} frames of {clip.duration_seconds:.1f} s, a sheet has at most {MAX_FRAMES}; look at "
                "a part (--span) or at fewer (--uniform)"
            )
        return self.times


def _look(
    name: str,
    sampler: "Sampler",
    *,
    span: tuple[float, float] | None,
    size: tuple[int, int] | None,
    root: Path | None,
) -> "tuple[SheetRow, Numbers | None]":
    """A row of the sheet, and (time asked, time of the frame) of each frame; None where the video cannot be read."""
    from civid_loader.contact_sheets import SheetRow
    from civid_loader.decoding import read_frames
    from civid_loader.errors import VideoError
    from civid_loader.videos import open_video

    noting = _Noting(sampler)
    try:
        video = name if root is None else open_video(name, root=str(root), dataset=str(root))
        found = read_frames(video, noting, span=span, size=size)
    except (VideoError, OSError) as error:
        text = str(error) if name in str(error) else f"{name}: {error}"
        partial = error.frames if isinstance(error, VideoError) else None
        if partial is None:
            return SheetRow(sample_id=name, title="", text=text, frames_TCHW=None, placeholder="cannot be read"), None
        found = partial
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    times = found.pts_seconds.tolist()
    num_frames, _, height, width = found.frames_TCHW.shape
    marks = ["  damaged" if is_corrupt else "" for is_corrupt in found.is_corrupt.tolist()]
    row = SheetRow(
        sample_id=name,
        title=f"{num_frames} frame{'s' * (num_frames > 1)}, {width}x{height} px",
        text="",
        frames_TCHW=found.frames_TCHW.numpy(),
        labels=tuple(f"{i}:  {seconds:.3f} s{marks[i]}" for i, seconds in enumerate(times)),
    )
    return row, list(zip(noting.times, times, strict=True))


def _file_name(pointer: str) -> str:
    """`videos/a.tar!b/c d.mp4` -> `c_d-frames.png`"""
    last = re.split(r"[/!:]", pointer.partition("?")[0].rstrip("/"))[-1]
    stem = re.sub(r"[^\w.-]", "_", Path(last).stem)
    return f"{stem or 'video'}-frames.png"
