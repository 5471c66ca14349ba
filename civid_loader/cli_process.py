"""The commands that recompute scores."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from civid_loader.errors import MissingDependencyError, StageError

if TYPE_CHECKING:
    from civid_loader.processing.process_report import ProcessReport
    from civid_loader.processing.work import StageSpec


def process(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    recipe: Annotated[str | None, typer.Option(help="lvd2m, miradata, civid, moviebench, or a YAML file.")] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="A stage, or stage:{JSON of its parameters}; several times for several.")
    ] = None,
    videos: Annotated[Path | None, typer.Option(help="Root of the video files; none where pointers need none.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="scores-<name>; by default named after the recipe or stages.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="ROLE=PATH, or ROLE=org/name[@revision]: weights to use instead.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch weights that are not on this machine.")] = False,
    accept_license: Annotated[
        list[str] | None, typer.Option(help="Id of a model whose non-commercial licence you accept.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where models run.")] = "cpu",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes of this machine, or a Ray cluster.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; auto: the one this machine is in.")] = None,
    num_proc: Annotated[
        int | None, typer.Option(min=0, help="Workers; by default one per GPU, or per two cores. 0: this process.")
    ] = None,
    decode_threads: Annotated[int, typer.Option(min=0, help="Of each worker.")] = 2,
    timeout_seconds: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to decode one clip.")] = 120.0,
    max_memory_gb: Annotated[
        float | None, typer.Option(help="Of a worker; a clip that takes more is left out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="About so many clips only.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Of a recipe, only this stage; several times.")] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try clips again that have no values.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and how long it may take.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute scores of every clip into a layer: each clip is decoded once, whatever is asked about it.

    Example: `civid process out/lvd2m --recipe lvd2m --videos /data/lvd2m --device cuda --download`, or without weights
    `civid process out/lvd2m --stage colour --stage 'optical_flow:{"backend": "dis"}' --videos /data/lvd2m`

    A run that was cut off continues when the same command is run again. Then `civid filter` makes a dataset of the good
    clips, and `civid push --layer` publishes the scores. `civid stages` lists what there is.
    """
    try:
        from civid_loader.processing.dry_run import estimate
        from civid_loader.processing.run import process as run
    except ImportError as error:
        raise MissingDependencyError(
            f"scores need {error.name or error}: pip install 'civid_loader[process]'"
        ) from error
    named = dict(_pair(one) for one in model or ())
    specs, name = _specs(recipe, stage, only, named, download=download, accepted=frozenset(accept_license or ()))
    settings: dict[str, Any] = {"videos": videos, "device": device, "timeout_seconds": timeout_seconds}
    if dry_run:
        found = estimate(dataset, specs, **settings)
        typer.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))
        return
    report = run(
        dataset,
        specs,
        layer=layer or name,
        engine=engine,
        address=address,
        num_proc=num_proc,
        decode_threads=decode_threads,
        max_memory_bytes=None if max_memory_gb is None else int(max_memory_gb * 1e9),
        limit=limit,
        retry_errors=retry_errors,
        quiet=as_json,
        **settings,
    )
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        _print(report)


def stages(
    name: Annotated[str | None, typer.Argument(help="One stage, with its parameters and columns.")] = None,
) -> None:
    """List the stages there are: what they find, what they need, what they cost.

    Example: `civid stages optical_flow`
    """
    from rich.console import Console
    from rich.table import Table

    from civid_loader.processing import registry

    console = Console()
    if name is None:
        table = Table()
        for title in ("stage", "finds", "models", "cost"):
            table.add_column(title, overflow="fold")
        for one in registry.names():
            kind = registry.find(one)
            needed = registry.make(one).weights_needed().values()
            models = "\n".join(f"{need.id} ({need.license})" for need in needed) or "none"
            table.add_row(one, ", ".join(column.name for column in kind.columns), models, kind.cost)
        console.print(table)
        return
    kind, made = registry.find(name), registry.make(name)
    console.print((kind.__doc__ or "").strip())
    console.print(f"parameters: {json.dumps(asdict(made.params))}", markup=False)
    for column in kind.columns:
        console.print(
            f"  {column.name} ({column.dtype}{column.unit and f', {column.unit}'}): {column.doc}", markup=False
        )
    for role, need in made.weights_needed().items():
        console.print(f"  model {role}: {need.id}, {need.license}", markup=False)


def _pair(text: str) -> tuple[str, str]:
    role, equals, where = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--model {text}: write it as ROLE=PATH or ROLE=org/name")
    return role, where


def _specs(
    recipe: str | None,
    stages_named: list[str] | None,
    only: list[str] | None,
    models: dict[str, str],
    *,
    download: bool,
    accepted: frozenset[str],
) -> "tuple[list[StageSpec], str]":
    """The stages asked for, with their weights, and a name for the layer."""
    from civid_loader.processing import registry
    from civid_loader.processing.recipe import load_recipe
    from civid_loader.processing.weights import find_weights
    from civid_loader.processing.work import StageSpec

    if bool(recipe) == bool(stages_named):
        raise typer.BadParameter("give a --recipe or one --stage and more")
    asked: list[tuple[str, dict[str, Any]]] = []
    for text in stages_named or ():
        name, _, told = text.partition(":")
        asked.append((name, json.loads(told) if told else {}))
    if recipe is not None:
        steps = [step for step in load_recipe(recipe).stages if not only or step.stage in only]
        for step in [step for step in steps if step.stage not in registry.names()]:
            typer.secho(f"left out: {step.stage}, which is not here yet ({step.source})", fg="yellow", err=True)
            steps.remove(step)
        asked = [(step.stage, dict(step.params)) for step in steps]
    specs = []
    for name, params in asked:
        needed = registry.make(name, params).weights_needed()
        weights = {
            role: find_weights(role, need, given=models.get(role), may_download=download, accepted=accepted)
            for role, need in needed.items()
        }
        specs.append(StageSpec(name=name, params=params, weights=weights))
    roles = {role for spec in specs for role in spec.weights}
    if unknown := sorted(set(models) - roles):
        raise StageError(f"no stage here has a model {unknown[0]!r}; there are {', '.join(sorted(roles)) or 'none'}")
    own = Path(recipe).stem if recipe else "-".join(name.replace("_", "-") for name, _ in asked)
    return specs, f"scores-{own}"


def _print(report: "ProcessReport") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{report.layer}: {report.num_clips:,} clips", title_justify="left")
    for title in ("column", "null", "min", "median", "mean", "max"):
        table.add_column(title, justify="left" if title == "column" else "right")
    for name, told in report.statistics.items():
        values = (f"{told[one]:,.4g}" if one in told else "" for one in ("min", "median", "mean", "max"))
        table.add_row(name, f"{told['num_null']:,.0f}", *values)
    console.print(table)
    for reason, count in report.reasons.items():
        console.print(f"[red]{count:,} clips without values: {reason}[/red]")
    console.print(
        f"{report.num_chunks_run:,} chunks in {report.wall_seconds:,.0f} s (decoding {report.decode_seconds:,.0f} s, "
        f"stages {report.model_seconds:,.0f} s, of all workers). Pictures: {report.picture or 'none'}"
    )
    console.print(f'Load it: [green]civid_loader.load("{report.dataset}", layers=["{report.layer}"])[/green]')
