"""The commands that run stages over a dataset: scores and captions."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from civid_loader import stage_options as options


def process(
    dataset: options.Dataset,
    recipe: options.RecipeName = None,
    stage: options.StageNames = None,
    videos: options.Videos = None,
    pictures: options.Pictures = None,
    layer: Annotated[
        str | None, typer.Option(help="scores-NAME, or captions-NAME; by default named after the recipe or stages.")
    ] = None,
    output: options.Output = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=PATH, or ROLE=org/name[@revision]: weights to use instead. NAME: that of --backend."),
    ] = None,
    backend: options.BackendName = None,
    base_url: options.BaseUrl = None,
    max_in_flight: options.MaxInFlight = None,
    backend_option: options.BackendOptions = None,
    captions: Annotated[
        bool, typer.Option("--captions", help="Of a recipe, write its captions, as `civid caption` does.")
    ] = False,
    captions_from: options.CaptionsFrom = None,
    download: options.Download = False,
    accept_license: options.AcceptLicense = None,
    device: options.Device = "cpu",
    engine: options.EngineName = "local",
    address: options.Address = None,
    num_proc: options.NumProc = None,
    decode_threads: options.DecodeThreads = 2,
    timeout_seconds: options.Timeout = 120.0,
    max_memory_gb: options.MaxMemory = None,
    limit: options.Limit = None,
    only: options.Only = None,
    retry_errors: options.RetryErrors = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Compute scores of every clip into a layer: each clip is decoded once, whatever is asked about it.

    Example: `civid process out/lvd2m --recipe lvd2m --videos /data/lvd2m --device cuda --download`, or without weights
    `civid process out/lvd2m --stage colour --stage 'optical_flow:{"backend": "dis"}' --videos /data/lvd2m`

    A run that was cut off continues when the same command is run again. Then `civid filter` makes a dataset of the good
    clips, and `civid push --layer` publishes the scores. `civid stages` lists what there is.
    """
    weights = dict(_pair(one) for one in model or () if "=" in one)
    name = next((one for one in model or () if "=" not in one), None)
    captioner = options.captioner_of(
        backend, name, base_url=base_url, max_in_flight=max_in_flight, download=download, options=backend_option
    )
    options.check_installed()
    asked = _asked(recipe, stage, only, captions=captions, may_ask=captioner is not None)
    if not asked:
        raise typer.BadParameter(f"recipe {recipe} has no scores to compute; --captions writes its captions")
    _run(
        dataset,
        asked,
        layer=layer or options.layer_name(recipe, asked, limit=limit),
        weights=weights,
        download=download,
        accepted=accept_license,
        dry_run=dry_run,
        as_json=as_json,
        videos=videos,
        captioner=captioner,
        captions_from=captions_from,
        pictures=pictures,
        output=output,
        device=device,
        timeout_seconds=timeout_seconds,
        engine=engine,
        address=address,
        num_proc=num_proc,
        decode_threads=decode_threads,
        max_memory_bytes=None if max_memory_gb is None else int(max_memory_gb * 1e9),
        limit=limit,
        retry_errors=retry_errors,
        overwrite=overwrite,
    )


def caption(
    dataset: options.Dataset,
    backend: options.BackendName = None,
    model: Annotated[
        str | None, typer.Option(help="As the server calls it; or a folder, or org/name[@revision] on the Hub.")
    ] = None,
    recipe: options.RecipeName = None,
    stage: options.StageNames = None,
    videos: options.Videos = None,
    pictures: options.Pictures = None,
    captions_from: options.CaptionsFrom = None,
    layer: Annotated[
        str | None, typer.Option(help="captions-NAME; by default named after the recipe or stages.")
    ] = None,
    output: options.Output = None,
    base_url: options.BaseUrl = None,
    max_in_flight: options.MaxInFlight = None,
    backend_option: options.BackendOptions = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="ROLE=PATH, or ROLE=org/name[@revision]: of stages that have weights.")
    ] = None,
    download: options.Download = False,
    device: options.Device = "cpu",
    engine: options.EngineName = "local",
    address: options.Address = None,
    num_proc: options.NumProc = None,
    decode_threads: options.DecodeThreads = 2,
    timeout_seconds: options.Timeout = 120.0,
    limit: options.Limit = None,
    only: options.Only = None,
    retry_errors: options.RetryErrors = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Write captions anew into a layer, by a model on a server or on this machine.

    Example: `vllm serve Qwen/Qwen3-VL-8B-Instruct` on a GPU, and then
    `civid caption out/miradata --recipe miradata --videos /data/miradata --backend openai --base-url
    http://127.0.0.1:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct`

    A key is taken from the environment: CIVID_API_KEY, or OPENAI_API_KEY. A run that was cut off continues when the
    same command is run again; what was answered is not asked again. `--limit 20` shows on a few clips what comes out,
    in a layer of their own; then `civid diff` compares it with the captions that are there, and `civid push --layer`
    publishes it without a video.
    """
    captioner = options.captioner_of(
        backend, model, base_url=base_url, max_in_flight=max_in_flight, download=download, options=backend_option
    )
    options.check_installed()
    if captioner is None:
        raise typer.BadParameter("who is to write? name a --backend and its --model")
    asked = _asked(recipe, stage, only, captions=recipe is not None, may_ask=True)
    _run(
        dataset,
        asked,
        layer=layer or options.layer_name(recipe, asked, limit=limit),
        weights=dict(_pair(one) for one in weights or ()),
        download=download,
        accepted=(),
        dry_run=dry_run,
        as_json=as_json,
        videos=videos,
        captioner=captioner,
        captions_from=captions_from,
        pictures=pictures,
        output=output,
        device=device,
        timeout_seconds=timeout_seconds,
        engine=engine,
        address=address,
        num_proc=num_proc,
        decode_threads=decode_threads,
        limit=limit,
        retry_errors=retry_errors,
        overwrite=overwrite,
    )


def stages(
    name: Annotated[str | None, typer.Argument(help="One stage, with its parameters and columns.")] = None,
) -> None:
    """List the stages there are: what they find, what they need, what they cost.

    Example: `civid stages optical_flow`
    """
    from rich.console import Console
    from rich.table import Table

    from civid_loader.processing import registry
    from civid_loader.processing.asking import AskingStage
    from civid_loader.processing.prompts import load_prompt

    console = Console()
    if name is None:
        table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
        table.add_column(no_wrap=True, style="bold")
        for one in registry.names():
            table.add_row(one, _in_short(one))
        console.print(table)
        return
    kind, made = registry.find(name), registry.make(name)
    console.print((kind.__doc__ or "").strip())
    console.print(f"parameters: {json.dumps(asdict(made.params))}", markup=False)
    if issubclass(kind, AskingStage):
        for field in kind.fields:
            limit = f", asked for in at most {field.max_words} words" if field.max_words else ""
            console.print(f"  caption {field.kind} (from {field.name!r} of the answer{limit})", markup=False)
        for prompt in kind.prompts:
            console.print(f"instruction {prompt}:\n{load_prompt(prompt).text}", markup=False)
    for column in kind.columns:
        console.print(
            f"  {column.name} ({column.dtype}{column.unit and f', {column.unit}'}): {column.doc}", markup=False
        )
    for role, need in made.weights_needed().items():
        console.print(f"  model {role}: {need.id}, {need.license}", markup=False)


def _in_short(name: str) -> str:
    """A stage in a few lines: what it finds, with which models, for what."""
    from civid_loader.processing import registry
    from civid_loader.processing.asking import AskingStage

    kind = registry.find(name)
    needed = registry.make(name).weights_needed().values()
    models = [f"{need.id} ({need.license})" for need in needed]
    columns = kind.columns
    if kind.asks_model:
        models = ["any that --backend names"]
    if issubclass(kind, AskingStage):
        columns = kind.findings
    lines = {
        "writes": kind.caption_kinds,
        "finds": [column.name for column in columns],
        "models": models or ["none"],
        "cost": [kind.cost],
    }
    return "\n".join(f"[dim]{what:7}[/dim]{', '.join(told)}" for what, told in lines.items() if told)


def _asked(
    recipe: str | None, stage: list[str] | None, only: list[str] | None, *, captions: bool, may_ask: bool
) -> list[tuple[str, dict[str, Any]]]:
    """Stages with their parameters: those that are named, or a recipe's scores or captions."""
    from civid_loader.processing.recipe import load_recipe

    if bool(recipe) == bool(stage):
        raise typer.BadParameter("give a --recipe or one --stage and more")
    for option in (["--only"] if only else []) + (["--captions"] if captions else []):
        if not recipe:
            raise typer.BadParameter(f"{option} chooses among the stages of a --recipe")
    if recipe is None:
        return options.named_stages(stage or ())
    found = load_recipe(recipe)
    if captions and not may_ask:
        raise typer.BadParameter("who is to write the captions? name a --backend and its --model")
    return options.steps_of(found.captions if captions else found.stages, only, may_ask=may_ask)


def _run(
    dataset: Path,
    asked: Sequence[tuple[str, dict[str, Any]]],
    *,
    layer: str,
    weights: dict[str, str],
    download: bool,
    accepted: Sequence[str] | None,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run stages, or say what that would take; `settings` are those of `processing.run.process`."""
    from civid_loader.processing.dry_run import estimate
    from civid_loader.processing.run import process as run

    missing: dict[str, str] | None = {} if dry_run else None
    specs = options.specs_of(asked, weights, download=download, accepted=accepted, missing=missing)
    found: Any
    if dry_run:
        known = ("videos", "device", "timeout_seconds", "captioner", "limit", "captions_from")
        found = estimate(dataset, specs, missing=missing, **{name: settings[name] for name in known})
    else:
        found = run(dataset, specs, layer=layer, quiet=as_json, **settings)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    elif dry_run:
        typer.echo(str(found))
    else:
        options.print_report(found)
    if not dry_run and found.num_clips and found.num_failed == found.num_clips:
        typer.secho(f"something went wrong with every clip; see column reason of layer {layer}", fg="red", err=True)
        raise typer.Exit(1)


def _pair(text: str) -> tuple[str, str]:
    role, equals, where = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text}: write it as ROLE=PATH or ROLE=org/name")
    return role, where
