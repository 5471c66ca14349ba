"""The command that says what training will do to a dataset, before it does it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from civid_loader.buckets import Bucket


def plan(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    bucket: Annotated[
        list[str] | None,
        typer.Option(help="A shape of batches, FRAMESxHEIGHTxWIDTH; several times for several. Without: fitted."),
    ] = None,
    frames: Annotated[list[int] | None, typer.Option(help="Lengths of fitted buckets; by default 16.")] = None,
    pixels: Annotated[int, typer.Option(min=1, help="Height times width of fitted buckets.")] = 256 * 256,
    max_shapes: Annotated[int, typer.Option(min=1, help="Shapes of fitted buckets, at most.")] = 8,
    batch_size: Annotated[int | None, typer.Option(help="Samples per batch, of all ranks together.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Instead: frames per rank and batch.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Instead: frames x height x width per rank and batch.")] = None,
    world_size: Annotated[int, typer.Option(min=1, help="Number of ranks.")] = 1,
    tail: Annotated[
        Literal["pad", "short", "drop"], typer.Option(help="What is left of a bucket: fill up, shorten, or drop.")
    ] = "pad",
    split: Annotated[str | None, typer.Option(help="Of this split only.")] = None,
) -> None:
    """Show what an epoch will be: buckets, crops, padding, what is dropped, steps per rank. Nothing is decoded.

    Example: `civid plan out/miradata --frames 16 --frames 64 --pixels 65536 --batch-size 64 --world-size 8`

    Sizes are those of the media layer (`civid probe`); without one, those that upstream states. fill: rows repeated
    with weight 0; scale: mean factor of height and width; larger: share of samples that are enlarged; crop, pad: shares
    of pixels cut off, and of places without a frame.
    """
    from civid_loader.buckets import fit_buckets
    from civid_loader.plan import BatchPlan
    from civid_loader.report import print_plan
    from civid_loader.sample_sizes import read_sizes

    found = read_sizes(dataset, split=split)
    try:
        buckets = [_bucket(text) for text in bucket or ()] or fit_buckets(
            found.sizes, num_frames=frames or [16], pixels_per_frame=pixels, max_shapes=max_shapes
        )
        if batch_size is None and max_frames is None and max_pixels is None:
            batch_size = 8 * world_size
        planned = BatchPlan(
            found.sizes,
            num_clips=found.num_clips,
            buckets=buckets,
            batch_size=batch_size,
            max_frames=max_frames,
            max_pixels=max_pixels,
            world_size=world_size,
            tail=tail,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print_plan(planned, found)


def _bucket(text: str) -> "Bucket":
    from civid_loader.buckets import Bucket

    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise ValueError(f"bucket {text!r}: write it as FRAMESxHEIGHTxWIDTH, such as 16x256x256")
    return Bucket(num_frames=int(match[1]), height=int(match[2]), width=int(match[3]))
