"""The commands that publish a dataset, and fetch one."""

import json
from pathlib import Path
from typing import Annotated

import typer

_REPO = typer.Argument(help="Name on the Hub, org/name.", show_default=False)


def push(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    repo: Annotated[str, _REPO],
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer, such as captions-new; several times for several.")
    ] = None,
    videos: Annotated[bool, typer.Option("--videos", help="The bytes of all clips too, as config `videos`.")] = False,
    video_root: Annotated[
        Path | None, typer.Option(help="For --videos: root of the video files; none where pointers need none.")
    ] = None,
    branch: Annotated[str, typer.Option(help="Made from main if it is not there.")] = "main",
    public: Annotated[bool, typer.Option("--public", help="If the repository is made: everybody may read it.")] = False,
    has_permission: Annotated[
        bool,
        typer.Option("--i-have-permission", help="The authors of the data allowed what their terms forbid."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go up; change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Publish a built dataset on the Hub, or more of it. Private, and without videos, unless you say otherwise.

    Example: `civid push out/lvd2m org/lvd2m`, and after a new captioning
    `civid push out/lvd2m org/lvd2m --layer captions-new`: megabytes, and no video.

    Log in first: `hf auth login`. Everything goes up in one commit, so nobody reads a half of it; a push that was cut
    off is finished by the same command, and nothing is sent twice. Afterwards anybody who may read it needs nothing of
    ours: `datasets.load_dataset("org/lvd2m")`, `load_dataset("org/lvd2m", "captions-new")`.
    """
    from dataclasses import asdict

    from civid_loader.hub.push import push_to_hub
    from civid_loader.report import print_push

    report = push_to_hub(
        dataset,
        repo,
        layers=layer,
        with_videos=videos,
        video_root=video_root,
        branch=branch,
        is_public=public,
        has_permission=has_permission,
        dry_run=dry_run,
        quiet=as_json,
    )
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        print_push(report)


def pull(
    repo: Annotated[str, _REPO],
    output: Annotated[Path, typer.Argument(help="Folder to make, or to bring up to date.", show_default=False)],
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; several times for several. Without: all.")
    ] = None,
    videos: Annotated[bool, typer.Option("--videos", help="The bytes of all clips too.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; by default the newest of main.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch a published dataset into a folder that works like a built one.

    Example: `civid pull org/lvd2m out/lvd2m --layer media`

    Every file is compared with what the Hub says of it. A pull that was cut off continues when the same command is run
    again. To train you need no pull: `civid_loader.load("org/lvd2m")`.
    """
    from dataclasses import asdict

    from civid_loader.hub.pull import pull as run
    from civid_loader.report import print_pull

    report = run(repo, output, layers=layer, with_videos=videos, revision=revision, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        print_pull(report)
