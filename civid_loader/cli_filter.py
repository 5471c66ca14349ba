"""The commands that compare and choose: the samples that fulfil a condition, and what changed between captions."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from civid_loader.caption_diff import CaptionDiff
    from civid_loader.filtering import FilterReport
    from civid_loader.processing.recipe import Recipe


def filter_(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    where: Annotated[
        str | None,
        typer.Option(help="The condition, on one clip. Without it: the names it may use.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Its rules too: lvd2m, miradata, civid, or a YAML file.", show_default=False),
    ] = None,
    tier: Annotated[
        str | None, typer.Option(help="Of a recipe with tiers, the rules of this one too.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Dataset folder to make.", show_default=False)
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer to read and to copy, may be repeated; by default all.")
    ] = None,
    scope: Annotated[
        Literal["all", "any"],
        typer.Option(help="Keep a sample where the condition is true of all its clips, or of any."),
    ] = "all",
    unknown: Annotated[
        Literal["drop", "keep"], typer.Option(help="Samples of which nobody can tell, as a value is missing.")
    ] = "drop",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a dataset of the samples whose clips fulfil a condition, with their layers.

    Example: `civid filter out/lvd2m --where "flow_mean_px >= 20 and cut_count == 0" --output out/lvd2m-hq`

    Example: `civid filter out/lvd2m --where "media.width >= 1280 and words['refined'] between 20 and 200" --dry-run`

    Example: `civid filter out/lvd2m --recipe lvd2m --output out/lvd2m-hq`, with the scores of `civid process --recipe`

    Example: `civid filter out/lvd2m` lists the names that a condition may use.

    A condition is an SQL expression on one clip: `==`, `<`, `and`, `or`, `not`, `in`, `between`, `like`, `is null`,
    numbers, 'texts' and functions such as `len()`, `lower()`, `regexp_matches()`. Names are those of the sample
    (sample_id, dataset, subset, level, flags, hierarchy, num_clips), of the clip (clip_id, clip_index, video, trimmed,
    source, upstream_media, upstream_scores, captions, words, characters) and of every column of every layer. Where two
    layers have the same column, or one has a dash in its name, write `"scores-lvd2m".flow_mean_px`; upstream's own
    scores are `upstream_scores['total score']`, numbers of words `words['dense']`.

    A missing value makes a condition unknown, not false. Such samples are counted on their own, with the reason the
    layer gives. What is dropped is listed in `rejected/filtered.jsonl` with the part of the condition it was dropped
    for. Videos inside the dataset are not copied.
    """
    from civid_loader.filtering import filter_dataset
    from civid_loader.judging import columns_of

    made = _recipe_of(recipe, tier)
    where = _joined(where, made, tier)
    if where is None:
        columns = columns_of(dataset, layers=layer)
        typer.echo(json.dumps(columns, indent=2)) if as_json else _print_columns(columns)
        return
    if (output is None) != dry_run:
        raise typer.BadParameter("name the dataset to make, or give --dry-run, and not both", param_hint="--output")
    report = filter_dataset(
        dataset, where=where, output=output, layers=layer, scope=scope, unknown=unknown, overwrite=overwrite
    )
    rates = None if made is None else _keep_rates(report, made)
    if as_json:
        told = asdict(report) | ({} if rates is None else {"keep_rates": rates})
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    _print_filter(report)
    for what, share in (rates or {}).items():
        typer.echo(f"{share:>7.1%}  {what}")
    if made is not None and not made.keep_rates:
        typer.echo("         (published is no share to compare with)")


def _recipe_of(name: str | None, tier: str | None) -> "Recipe | None":
    if name is None:
        if tier is not None:
            raise typer.BadParameter("tiers are those of a --recipe", param_hint="--tier")
        return None
    from civid_loader.processing.recipe import load_recipe

    made = load_recipe(name)
    if not made.rules and tier is None:
        raise typer.BadParameter(f"recipe {made.name} has no rules: nothing is dropped by it", param_hint="--recipe")
    return made


def _joined(where: str | None, recipe: "Recipe | None", tier: str | None) -> str | None:
    """The user's condition, the recipe's rules and those of its tier, as one."""
    parts = [] if where is None else [where]
    if recipe is not None:
        parts += [rule.where for rule in recipe.rules]
    if recipe is not None and tier is not None:
        of_name = {one.name: one.where for one in recipe.tiers.tiers}
        if tier not in of_name:
            known = ", ".join(of_name) or "none; `civid tiers` finds some of your own data"
            raise typer.BadParameter(f"recipe {recipe.name} has no tier {tier!r}; it has {known}", param_hint="--tier")
        parts += [of_name[tier]] if of_name[tier] else []
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else " and ".join(f"({one})" for one in parts)


def _keep_rates(report: "FilterReport", recipe: "Recipe") -> dict[str, float]:
    """What is kept -> its share of all samples: here, and as published."""
    counts = [split.values() for split in report.samples.values()]
    num_all = sum(sum(of_split) for of_split in counts)
    num_kept = sum(
        split["kept"] + (split["unknown"] if report.unknown == "keep" else 0) for split in report.samples.values()
    )
    here = {"kept here": num_kept / max(1, num_all)}
    return here | {f"published: {rate.of} ({rate.source})": rate.share for rate in recipe.keep_rates}


def diff(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    first: Annotated[str, typer.Argument(help="captions-NAME, or annotations: those in the rows.", show_default=False)],
    second: Annotated[str, typer.Argument(help="The captions they are compared to.", show_default=False)],
    kind: Annotated[list[str] | None, typer.Option(help="Kind of caption, may be repeated; by default all.")] = None,
    html: Annotated[Path | None, typer.Option(help="Page to write, with examples side by side.")] = None,
    max_examples: Annotated[int, typer.Option("--examples", min=0, help="Changed texts to show, for each kind.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two layers of captions: what changed, how long they are, which words came and went.

    Example: `civid diff out/civid annotations captions-new --kind content --html diff.html`
    """
    from civid_loader.caption_diff import diff_captions
    from civid_loader.caption_diff_page import write_diff_html

    try:
        found = diff_captions(dataset, first, second, kinds=kind, max_examples=max_examples)
    except ValueError as error:
        if kind and str(error).startswith("no kind of caption"):
            raise typer.BadParameter(str(error), param_hint="--kind") from error
        raise
    if html is not None:
        write_diff_html(found, html)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        _print_diff(found)
        if html is not None:
            typer.echo(f"Look at it: {html}")


def _print_columns(columns: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from civid_loader.clip_table import ABOUT

    table = Table(title="names of a condition", title_justify="left")
    for name in ("name", "type", ""):
        table.add_column(name, overflow="fold")
    for name, kind in columns.items():
        about = ABOUT.get(name, "of a layer")
        short = kind if len(kind) <= 40 else f"{kind[:39]}…"
        table.add_row(escape(name), escape(short), escape(about))
    Console().print(table)


def _print_filter(report: "FilterReport") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=escape(report.where), title_justify="left")
    table.add_column("split")
    for name in ("kept", "unknown", "dropped"):
        table.add_column(name, justify="right")
    for split, counts in report.samples.items():
        total = max(1, sum(counts.values()))
        table.add_row(escape(split), *(f"{number:,} ({number / total:.1%})" for number in counts.values()))
    console.print(table)
    fate = "kept" if report.unknown == "keep" else "dropped"
    sections = {
        "False for so many dropped samples (one may count with several)": report.dropped_by,
        f"Unknown for so many samples, which were {fate}": report.unknown_by,
        "Clips without the value, by reason": report.unknown_reasons,
    }
    for title, counts in sections.items():
        _print_counts(title, counts)
    if report.output is None:
        console.print("Nothing was written.")
        return
    layers = ", ".join(f"{escape(name)} {number:,}" for name, number in report.layers.items()) or "none"
    console.print(f"{report.num_clips:,} clips; rows of layers: {layers}.")
    if report.num_videos_of_parent:
        console.print(
            f"[yellow]{report.num_videos_of_parent:,} clips point to videos inside the dataset that was filtered, "
            "which are not copied[/yellow]: name it as root of the videos."
        )
    console.print(f"Load it: [green]datasets.load_dataset({escape(json.dumps(report.output))})[/green]")


def _print_counts(title: str, counts: Mapping[str, int]) -> None:
    from rich.console import Console
    from rich.markup import escape

    if counts:
        console = Console()
        console.print(f"{title}:")
        for name, number in counts.items():
            console.print(f"  {number:>12,}  {escape(name)}", highlight=False)


def _print_diff(found: "CaptionDiff") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    first, second = map(escape, found.names)
    table = Table(title=f"{escape(found.dataset)}: {first} → {second}", title_justify="left")
    table.add_column("kind", no_wrap=True)
    heads = ("changed", "equal", "only first", "only second", "words", "different words")
    for name in heads:
        table.add_column(name, justify="right")
    for one in found.kinds:
        numbers = (one.num_changed, one.num_equal, one.num_only_first, one.num_only_second)
        lengths = _arrow("-" if of is None else f"{of.mean:.1f}" for of in one.lengths)
        different = _arrow(f"{number:,}" for number in one.num_different_words)
        table.add_row(one.kind, *(f"{number:,}" for number in numbers), lengths, different)
    console = Console()
    console.print(table)
    for one in found.kinds:
        for title, shifts in (("gained", one.gained), ("lost", one.lost)):
            if shifts:
                console.print(f"{one.kind}, words {title}: {escape(', '.join(shift.word for shift in shifts))}")
    for name, reasons in zip(found.names, found.reasons, strict=True):
        _print_counts(f"Clips without captions in {name}", reasons)


def _arrow(texts: Iterable[str]) -> str:
    return " → ".join(texts)
