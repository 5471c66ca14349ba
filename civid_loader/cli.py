"""The `civid` command. Everything heavy is imported where it is used, so that `civid --help` stays quick."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from civid_loader import cli_curate, cli_filter, cli_hub, cli_plan, cli_process, cli_tiers, cli_video
from civid_loader.errors import CividLoaderError

app = typer.Typer(
    help="Training data for long and interleaved video generation: build, look at and load CI-VID, MiraData, "
    "MovieBench and LVD-2M in one schema.\n\nStart with `civid demo`: the whole way on a small made-up release, no "
    "downloads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """Run the command; what is wrong with a user's input is a message, not a traceback."""
    try:
        app()
    except (CividLoaderError, OSError) as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="civid, miradata, moviebench or lvd2m.", show_default=False)],
    annotations: Annotated[
        list[Path],
        typer.Option(
            "--annotations",
            "-a",
            help="Annotation files or folders, as upstream ships them.",
            show_default=False,
            readable=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Dataset folder to make.", show_default=False)],
    more: Annotated[list[Path] | None, typer.Argument(hidden=True, readable=False)] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Root of the video files (folders and uncompressed tars). Without it: upstream's names.",
            readable=False,
        ),
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="MovieBench: scenes or shots. Others: overrides what file names say.")
    ] = None,
    num_proc: Annotated[int, typer.Option(min=1, help="Worker processes; the result does not depend on it.")] = 1,
    field_map: Annotated[
        Path | None,
        typer.Option(help='JSON file for other column or key names: {"singles": "my_captions"}.', readable=False),
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of rows that may be unreadable; they go to rejected/.")
    ] = 0.01,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")] = False,
) -> None:
    """Build one dataset from upstream's files.

    Example: `civid build lvd2m --annotations ytb_600k_720p.csv hdvg_300k_720p.csv --videos clips --output out/lvd2m`

    A build that was cut off continues when the same command is run again. Load the result anywhere with
    `datasets.load_dataset("out/lvd2m")`.
    """
    from civid_loader.materialize import build as run
    from civid_loader.report import print_build
    from civid_loader.upstream.inputs import read_field_map

    report = run(
        name,
        annotations=[*annotations, *(more or [])],
        output=output,
        videos=videos,
        subset=subset,
        num_proc=num_proc,
        field_map=read_field_map(field_map) if field_map else None,
        max_rejected=max_rejected,
        overwrite=overwrite,
    )
    print_build(report)


@app.command()
def unpack(
    archives: Annotated[
        list[Path], typer.Argument(help=".tar.gz, .tgz, .tar.bz2, .tar.xz or .tar.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to unpack into.", show_default=False)],
) -> None:
    """Unpack the archives videos come in; a compressed one cannot be read in place.

    Example: `civid unpack chunk_0_40.tar.gz chunk_40_80.tar.gz --output /data/civid`

    An unpacking that was cut off continues when the same command is run again. Archives are checked to the end; of one
    that is damaged, the whole files before the damage are kept.
    """
    from civid_loader.report import print_unpack
    from civid_loader.unpacking import unpack as run

    report = run(archives, output=output)
    print_unpack(report)
    for failed in report.failed:
        typer.secho(f"error: {failed.error}", fg=typer.colors.RED, err=True)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="Annotation file, folder, or built dataset.", show_default=False, readable=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a big file to look at.")] = 100_000,
) -> None:
    """Look into a file, a folder or a built dataset: keys, types, nulls, what a build would read, flag and reject.

    Example: `civid inspect CI-VID_train_samples.jsonl`
    """
    from dataclasses import asdict

    from civid_loader.inspection import inspect as look
    from civid_loader.report import print_inspection

    found = look(path, max_rows=max_rows)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        print_inspection(found)


@app.command()
def probe(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    videos: Annotated[
        Path | None, typer.Option(help="Root of its video files; none where its pointers need none.", readable=False)
    ] = None,
    num_proc: Annotated[int, typer.Option(min=1, help="Worker processes; the result does not depend on it.")] = 1,
    with_sha256: Annotated[bool, typer.Option("--hash", help="Read every file to its end for its SHA-256.")] = False,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds for one file; slower ones are tried again next time.")
    ] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look into every video of a dataset: is it there, can it be read, what does it hold? And what changed since?

    Example: `civid probe out/lvd2m --videos /data/lvd2m --num-proc 16`

    Writes the `media` layer, one row per clip, into the dataset: `datasets.load_dataset("out/lvd2m", "media")`. A run
    that was cut off continues when the same command is run again; after a finished one, files that did not change are
    not looked into again.
    """
    from dataclasses import asdict

    from civid_loader.probing.dataset import probe_dataset
    from civid_loader.report import print_probe

    report = probe_dataset(
        dataset, videos=videos, num_proc=num_proc, with_sha256=with_sha256, timeout_seconds=timeout_seconds
    )
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        print_probe(report)


app.command()(cli_video.frames)
app.command()(cli_video.proxies)
app.command()(cli_plan.plan)
app.command()(cli_process.process)
app.command()(cli_process.caption)
app.command()(cli_process.stages)
app.command()(cli_curate.curate)
app.command("filter")(cli_filter.filter_)
app.command()(cli_tiers.tiers)
app.command()(cli_filter.diff)
app.command()(cli_hub.push)
app.command()(cli_hub.pull)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the release, datasets and pictures.")
    ] = Path("civid-demo"),
) -> None:
    """The whole way on a made-up release of all four datasets: render, build, load, decode, look. Under a minute.

    Example: `civid demo --output civid-demo`
    """
    from civid_loader.demo.run import run_demo

    run_demo(output)


if __name__ == "__main__":
    main()
