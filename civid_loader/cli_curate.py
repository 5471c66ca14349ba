"""The command that makes a dataset of films."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from civid_loader import stage_options as options

if TYPE_CHECKING:
    from civid_loader.processing.curate import CurateReport


def curate(
    videos: Annotated[Path, typer.Argument(help="Folder of films, at any depth.", show_default=False)],
    recipe: Annotated[
        str, typer.Option(help="civid, lvd2m, miradata, or a .yaml file of the same form.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Dataset folder to make.", show_default=False)],
    embedding_model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a vision model of transformers (DINOv2, CLIP, SigLIP) that frames are compared by; by "
            "default colours and edges, without weights.",
            show_default=False,
        ),
    ] = None,
    backend: options.BackendName = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Whom to ask what sequences are about (civid), or whether scenes go on (miradata), as the server or "
            "the Hub calls it."
        ),
    ] = None,
    base_url: options.BaseUrl = None,
    second_model: Annotated[
        str | None, typer.Option(help="The second language model that votes in miradata, of the same backend.")
    ] = None,
    second_base_url: Annotated[
        str | None, typer.Option(help="Of its server; by default that of the first.", show_default=False)
    ] = None,
    backend_option: options.BackendOptions = None,
    download: options.Download = False,
    device: options.Device = "cpu",
    num_proc: Annotated[
        int, typer.Option(min=1, help="Worker processes, one film each; the result does not depend on it.")
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")] = False,
) -> None:
    """Cut films into clips and sequences as a paper does it, into a dataset of spans; the films stay as they are.

    Example: `civid curate /data/films --recipe civid --num-proc 16 --output out/mine`

    civid: scenes that are alike, but not too much, in sequences. lvd2m: scenes of 10 s and more without a cut.
    miradata: scenes that go on in the next are joined; from 40 s on. A recipe is a YAML file with every number and who
    says so: copy one of the package's (`civid_loader/processing/recipes`) to change it.

    Without `--embedding-model` frames are compared by their colours and edges, which are no match for the papers'
    networks: samples are flagged. The thresholds of recipe civid are those of ImageBind; other embeddings need others.

    With `--backend` a model that sees is asked what each sequence of civid is about, and clips that do not show it are
    dropped, as the paper does: `--backend openai --base-url http://127.0.0.1:8000/v1 --model NAME`. In miradata it
    votes on whether a scene goes on in the next; the paper has two such models, so name a `--second-model`: one alone
    joins scenes only where one of the two embeddings agrees. What nobody was asked is a flag of the samples.

    Of the rules of recipe civid, clips of 1 to 10 seconds come first; least flow and most text need scores:
    `civid process OUTPUT --recipe civid`, then `civid filter OUTPUT --recipe civid`.

    A run that was cut off continues when the same command is run again. Films that cannot be read are listed in
    `rejected/videos.jsonl`.
    """
    from civid_loader.processing.curate import curate as run
    from civid_loader.processing.frame_descriptors import ModelEmbedder
    from civid_loader.processing.recipe import load_recipe

    embedder = None if embedding_model is None else ModelEmbedder.of(embedding_model)
    captioner = options.captioner_of(backend, model, base_url=base_url, download=download, options=backend_option)
    if second_base_url and not second_model:
        raise typer.BadParameter("it is of a --second-model", param_hint="--second-base-url")
    second = options.captioner_of(
        backend if second_model else None,
        second_model,
        base_url=second_base_url or (base_url if second_model else None),
        download=download,
        options=backend_option,
    )
    step = load_recipe(recipe).step("entity_segment")
    if step is not None and captioner is None:
        why = "it asks a model, and no --backend is named"
        typer.secho(f"left out: {step.stage}: {why} ({step.source})", fg="yellow", err=True)
    report = run(
        videos,
        recipe=recipe,
        output=output,
        embedder=embedder,
        captioner=captioner,
        second_captioner=second,
        device=device,
        num_proc=num_proc,
        overwrite=overwrite,
    )
    _print(report)


def _print(report: "CurateReport") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=f"{escape(report.recipe)} → {escape(report.output)}", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_column("hours", justify="right")
    table.add_row("films", f"{report.num_videos:,}", f"{report.video_seconds / 3600:,.2f}")
    table.add_row("scenes", f"{report.num_scenes:,}", "")
    table.add_row("samples", f"{report.num_samples:,}", "")
    table.add_row("clips", f"{report.num_clips:,}", f"{report.clip_seconds / 3600:,.2f}")
    for flag, number in report.flags.items():
        table.add_row(f"flag {escape(flag)}", f"{number:,}", "")
    for reason, number in report.rejected.items():
        table.add_row(f"[red]films {escape(reason)}[/red]", f"{number:,}", "")
    if report.usage is not None:
        table.add_row("questions", f"{report.usage.num_requests:,}", "")
    console.print(table)
    if report.rejected:
        console.print(f"Films without clips, all in {escape(report.output)}/rejected/videos.jsonl, the first:")
        for line in report.examples:
            console.print(f"  {escape(line)}")
    told = escape(json.dumps(report.output))
    console.print(f'Load it: [green]datasets.load_dataset({told}, split="train")[/green]')
