"""Options that commands which run stages share: which stages, with which models, where."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from civid_loader.errors import MissingDependencyError, ModelError, StageError

if TYPE_CHECKING:
    from civid_loader.processing.answers import Usage
    from civid_loader.processing.captioner import Backend, CaptionerSpec
    from civid_loader.processing.process_report import ProcessReport
    from civid_loader.processing.recipe import Step
    from civid_loader.processing.work import StageSpec

MAX_REASONS: Final = 20
"""That are printed."""

Dataset = Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)]
RecipeName = Annotated[str | None, typer.Option(help="lvd2m, miradata, civid, moviebench, or a YAML file.")]
StageNames = Annotated[
    list[str] | None, typer.Option(help="A stage, or stage:{JSON of its parameters}; several times for several.")
]
Videos = Annotated[
    str | None, typer.Option(help="Root of the video files: folder, URL, tar or zip; none where pointers need none.")
]
Pictures = Annotated[str | None, typer.Option(help="Root of portraits: the folder of MovieBench's annotations.")]
Output = Annotated[
    str | None, typer.Option(help="Folder or URL (s3://, hf:// ...) to which the finished layer is copied too.")
]
BackendName = Annotated[
    Literal["openai", "transformers", "vllm", "echo"] | None,
    typer.Option(help="How the model is reached: openai is any server with that API (vLLM, SGLang ...)."),
]
BaseUrl = Annotated[str | None, typer.Option(help="Of the server: http://127.0.0.1:8000/v1")]
MaxInFlight = Annotated[int | None, typer.Option(min=1, help="Requests that a server gets at once (64).")]
CaptionsFrom = Annotated[
    str | None, typer.Option(help="Layer of captions that an earlier run wrote: read before those of the dataset.")
]
BackendOptions = Annotated[
    list[str] | None, typer.Option("--backend-option", help="NAME=JSON of the backend; several times.")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch weights that are not on this machine.")]
AcceptLicense = Annotated[list[str] | None, typer.Option(help="Id of a model whose non-commercial licence you accept.")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where models run.")]
EngineName = Annotated[Literal["local", "ray"], typer.Option(help="Processes of this machine, or a Ray cluster.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster; auto: the one this machine is in.")]
NumProc = Annotated[
    int | None,
    typer.Option(
        min=0, help="Workers; by default one per GPU, or per two cores. 0: this process, the default with a server."
    ),
]
DecodeThreads = Annotated[int, typer.Option(min=0, help="Of each worker.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to decode one clip.")]
MaxMemory = Annotated[float | None, typer.Option(help="Of a worker; a clip that takes more is left out.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="About so many clips only, the first ones, into a layer NAME-limitN.")
]
Only = Annotated[list[str] | None, typer.Option(help="Of a recipe, only this stage; several times.")]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Try clips again with which something went wrong.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew, whatever is there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and how long it may take.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def captioner_of(
    backend: "Backend | None",
    model: str | None,
    *,
    base_url: str | None = None,
    max_in_flight: int | None = None,
    download: bool = False,
    options: Sequence[str] | None = None,
) -> "CaptionerSpec | None":
    """The model to ask; None where none is named."""
    from civid_loader.processing.captioner import CaptionerSpec

    if backend is None:
        if model or base_url:
            raise typer.BadParameter("name the --backend by which the model is reached, such as openai")
        return None
    if model is None and backend != "echo":
        raise typer.BadParameter(f"--backend {backend} needs a --model, as the server or the Hub calls it")
    if (backend == "openai") != (base_url is not None):
        raise typer.BadParameter("--base-url goes with --backend openai, and that needs it")
    named: dict[str, Any] = dict(_option(one) for one in options or ())
    if max_in_flight is not None and backend in ("transformers", "vllm"):
        raise typer.BadParameter(f"--max-in-flight is of servers; of {backend} name --backend-option batch_size=N")
    given = {"base_url": base_url, "max_in_flight": max_in_flight}
    named |= {name: value for name, value in given.items() if value is not None}
    if download and backend in ("transformers", "vllm"):
        named["may_download"] = True
    return CaptionerSpec(backend=backend, model=model or backend, options=named)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--backend-option {text}: write it as NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def steps_of(steps: "Sequence[Step]", only: Sequence[str] | None, *, may_ask: bool) -> list[tuple[str, dict[str, Any]]]:
    """The stages of a recipe that can run, with their parameters; what is left out is said on stderr."""
    from civid_loader.processing import registry
    from civid_loader.processing.asking import AskingStage

    if unknown := sorted(set(only or ()) - {step.stage for step in steps}):
        known = ", ".join(step.stage for step in steps)
        raise StageError(f"--only {unknown[0]}: there is no such stage in this recipe; it has {known or 'none'}")
    asked = []
    for step in steps:
        if only and step.stage not in only:
            continue
        if not may_ask and issubclass(registry.find(step.stage), AskingStage):
            why = "it asks a model, and no --backend is named"
            typer.secho(f"left out: {step.stage}: {why} ({step.source})", fg="yellow", err=True)
            continue
        asked.append((step.stage, dict(step.params)))
    return asked


def named_stages(texts: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Stages as `--stage` names them, with their parameters."""
    asked = []
    for text in texts:
        name, _, told = text.partition(":")
        try:
            params = json.loads(told) if told else {}
        except json.JSONDecodeError as error:
            raise typer.BadParameter(f"--stage {text}: its parameters are no JSON: {error}") from error
        if not isinstance(params, dict):
            raise typer.BadParameter(f'--stage {text}: write its parameters as a JSON object, such as {{"fps": 2}}')
        asked.append((name, params))
    return asked


def specs_of(
    asked: Sequence[tuple[str, dict[str, Any]]],
    models: dict[str, str],
    *,
    download: bool,
    accepted: Sequence[str] | None,
    missing: dict[str, str] | None = None,
) -> "list[StageSpec]":
    """Stages with their weights, `models` by role where they are not the usual ones.

    `missing` gets stage -> why it has no weights and how to get them; None: that is an error.
    """
    from civid_loader.processing import registry
    from civid_loader.processing.weights import find_weights
    from civid_loader.processing.work import StageSpec

    specs, roles = [], set()
    accepts = frozenset(accepted or ())
    for name, params in asked:
        weights = {}
        for role, need in registry.make(name, params).weights_needed().items():
            roles.add(role)
            try:
                weights[role] = find_weights(
                    role, need, given=models.get(role), may_download=download, accepted=accepts
                )
            except ModelError as error:
                if missing is None:
                    raise
                missing[name] = f"{missing[name]}; {error}" if name in missing else str(error)
        specs.append(StageSpec(name=name, params=params, weights=weights))
    if unknown := sorted(set(models) - roles):
        raise StageError(f"no stage here has a model {unknown[0]!r}; there are {', '.join(sorted(roles)) or 'none'}")
    return specs


def check_installed() -> None:
    """Refuse where what stages need is not installed.

    Raises:
        MissingDependencyError: says what, and how to get it.
    """
    try:
        from civid_loader.processing import run  # noqa: F401 - to see whether it can be
    except ImportError as error:
        raise MissingDependencyError(
            f"stages need {error.name or error}: pip install 'civid_loader[process]'"
        ) from error


def layer_name(recipe: str | None, asked: Sequence[tuple[str, dict[str, Any]]], *, limit: int | None) -> str:
    """Of a layer, after the recipe or the stages; a look at a few clips must not take the place of all."""
    from civid_loader.processing import registry
    from civid_loader.processing.stage_rows import writes_captions

    own = Path(recipe).stem if recipe else "-".join(name.replace("_", "-") for name, _ in asked)
    own += "" if limit is None else f"-limit{limit}"
    return f"captions-{own}" if writes_captions([registry.make(*one) for one in asked]) else f"scores-{own}"


def _tokens(usage: "Usage", seconds: float) -> str:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return "the model does not say how many tokens"
    written = f"{usage.completion_tokens:,} written, {usage.completion_tokens / seconds:,.0f} per second"
    return f"{usage.prompt_tokens:,} tokens read, {written}"


def print_report(report: "ProcessReport") -> None:
    """What a run found, for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{report.layer}: {report.num_clips:,} clips", title_justify="left")
    for title in ("column", "filled", "null", "min", "median", "mean", "max"):
        table.add_column(title, justify="left" if title == "column" else "right")
    for name, told in report.statistics.items():
        values = (f"{told[one]:,.4g}" if one in told else "" for one in ("min", "median", "mean", "max"))
        num_null = int(told["num_null"])
        table.add_row(name, f"{report.num_clips - num_null:,}", f"{num_null:,}", *values)
    for name, num_filled in report.filled.items():
        table.add_row(name, f"{num_filled:,}", f"{report.num_clips - num_filled:,}")
    console.print(table)
    if report.captions:
        table = Table()
        for title in ("caption", "texts", "words on average"):
            table.add_column(title, justify="left" if title == "caption" else "right")
        for kind, of in report.captions.items():
            table.add_row(kind, f"{of['num_texts']:,.0f}", f"{of['mean_words']:,.1f}")
        console.print(table)
    for reason, count in list(report.reasons.items())[:MAX_REASONS]:
        console.print(f"{count:,} clips lack values: {reason}", style="red", markup=False, highlight=False)
    if len(report.reasons) > MAX_REASONS:
        console.print(
            f"and {len(report.reasons) - MAX_REASONS:,} more reasons: column reason of the layer", style="red"
        )
    console.print(
        f"{report.num_chunks_run:,} chunks in {report.wall_seconds:,.0f} s (decoding {report.decode_seconds:,.0f} s, "
        f"stages {report.model_seconds:,.0f} s, of all workers). Pictures: {report.picture or 'none'}"
    )
    if report.usage is not None:
        usage, seconds = report.usage, max(report.wall_seconds, 1e-9)
        console.print(
            f"{usage.num_requests:,} questions ({usage.num_known:,} answered before): {_tokens(usage, seconds)}; "
            f"{report.num_clips / seconds:,.2f} clips per second"
        )
        if report.server_share is not None:
            console.print(
                f"Of the requests that the model works on at one time, it had {report.server_share:.0%} on average"
            )
    console.print(f'Load it: [green]civid_loader.load("{report.dataset}", layers=["{report.layer}"])[/green]')
