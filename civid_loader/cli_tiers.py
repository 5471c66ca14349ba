"""The command that finds thresholds for tiers of quality."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from civid_loader.processing.tiers import QualityTiers, Rule

_MIRADATA = "0.419, 0.118, 0.053, 0.011"


def tiers(
    dataset: Annotated[Path, typer.Argument(help="Folder of a built dataset.", show_default=False)],
    layer: Annotated[str, typer.Option(help="The layer of scores: scores-NAME.", show_default=False)],
    column: Annotated[
        list[str], typer.Option(help="A score of it, more is better; several times for several.", show_default=False)
    ],
    fraction: Annotated[
        list[float],
        typer.Option(help=f"Share of the clips to keep, several times, falling; MiraData's: {_MIRADATA}."),
    ],
    base: Annotated[
        list[str] | None,
        typer.Option(help="A test that every tier has: 'nsfw = false', 'cut_count = 0'; several times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find thresholds that keep given shares of the clips, one tier within the other, as conditions for `civid filter`.

    Example: `civid tiers out/mine --layer scores-miradata --column aesthetic_v1 --column flow_mean_px --fraction 0.419
    --fraction 0.118 --base 'nsfw = false'`

    MiraData has five such versions, and does not publish its thresholds; these are of your own data. All columns'
    thresholds rise together, one clip dropped at a time. A clip without one of the scores is in no tier.
    """
    from civid_loader.layers import layer_folder
    from civid_loader.processing.tiers import fit_tiers
    from civid_loader.storage import read_table

    table = read_table(dataset, layer_folder(layer))
    found = fit_tiers(table, column, fraction, base=[_rule(one) for one in base or ()])
    _print(found, [int(mask.sum()) for mask in found.members(table)], num_clips=table.num_rows, as_json=as_json)


def _rule(text: str) -> "Rule":
    from civid_loader.processing.tiers import Rule

    parts = text.split(maxsplit=2)
    if len(parts) != 3:
        raise typer.BadParameter(f"{text!r}: write it as COLUMN = VALUE, with spaces", param_hint="--base")
    name, op, told = parts
    try:
        value: Any = json.loads(told.replace("'", '"'))
    except json.JSONDecodeError as error:
        raise typer.BadParameter(
            f"{told!r} is no number, true, false or 'text'", param_hint=f"--base {text!r}"
        ) from error
    return Rule(column=name, op="=" if op == "==" else op, value=value)  # type: ignore[arg-type] # which it checks


def _print(found: "QualityTiers", counts: list[int], *, num_clips: int, as_json: bool) -> None:
    if as_json:
        told = [
            {"fraction": float(tier.name), "num_clips": count, "where": tier.where}
            for tier, count in zip(found.tiers, counts, strict=True)
        ]
        typer.echo(json.dumps(told, indent=2))
        return
    for tier, count in zip(found.tiers, counts, strict=True):
        typer.echo(f"{tier.name}: {count:,} of {num_clips:,} clips\n  --where {json.dumps(tier.where)}")
