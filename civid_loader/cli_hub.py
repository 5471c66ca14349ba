"""The commands that publish a dataset, and fetch one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from civid_loader.hub.pull import PullReport
    from civid_loader.hub.push import PushReport

_REPO = typer.Argument(help="Name on the Hub, org/name.", show_default=False)


def push(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    repo: Annotated[str, _REPO],
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer, such as captions-new; several times for several.")
    ] = None,
    videos: Annotated[bool, typer.Option("--videos", help="The bytes of all clips too, as config `videos`.")] = False,
    video_root: Annotated[
        str | None,
        typer.Option(help="For --videos: what holds the video files, a folder, URL, tar or zip, if pointers need it."),
    ] = None,
    branch: Annotated[str, typer.Option(help="Made from main if it is not there.")] = "main",
    public: Annotated[bool, typer.Option("--public", help="Everybody may read the repository.")] = False,
    has_permission: Annotated[
        bool,
        typer.Option("--i-have-permission", help="The authors of the data allowed what their terms forbid."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Annotations there of other rows may go, and all layers of them.")
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

    report = push_to_hub(
        dataset,
        repo,
        layers=layer,
        with_videos=videos,
        video_root=video_root,
        branch=branch,
        is_public=public,
        has_permission=has_permission,
        replace=replace,
        dry_run=dry_run,
        quiet=as_json,
    )
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        _print_push(report)


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

    report = run(repo, output, layers=layer, with_videos=videos, revision=revision, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        _print_pull(report)


def _print_push(report: "PushReport") -> None:
    from rich.console import Console
    from rich.table import Table

    is_done = report.sha is not None
    console = Console()
    kind = "private" if report.is_private else "PUBLIC"
    if report.num_files:
        title = f"{report.repo_id} ({kind}): {'sent' if is_done else 'would be sent'}"
        table = Table(title=title, title_justify="left")
        for name in ("config", "files", "MB"):
            table.add_column(name, justify="left" if name == "config" else "right")
        for config, num_bytes in report.num_bytes.items():
            table.add_row(config or "card and pictures", f"{report.num_files[config]:,}", f"{num_bytes / 1e6:,.2f}")
        console.print(table)
        removed = f"{len(report.deleted):,} old shards {'removed' if is_done else 'would be removed'}"
        console.print(f"{report.num_unchanged:,} files are there already; {removed}.")
    elif not report.deleted:
        console.print(f"{report.repo_id} ({kind}) is up to date: all {report.num_unchanged:,} files are there already.")
    if is_done:
        revision = "" if report.branch == "main" else f', revision="{report.branch}"'
        console.print(f"{report.num_commits} commits, checked file by file; it now stands at {report.sha}.")
        console.print(f'Load it anywhere: [green]datasets.load_dataset("{report.repo_id}"{revision})[/green]')
    else:
        console.print("Nothing was changed: this was a dry run.")


def _print_pull(report: "PullReport") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(
        f"{report.num_fetched:,} of {report.num_files:,} files fetched ({report.num_bytes_fetched / 1e6:,.1f} MB), all "
        f"checked against commit {report.sha}; {len(report.removed):,} old ones removed."
    )
    console.print(f"Tables: {', '.join(report.tables)}")
    console.print(f"Load it: [green]civid_loader.load({escape(json.dumps(report.output))})[/green]")
