"""The sections of a dataset card, each a piece of Markdown."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from civid_loader.hub.columns import EXPLANATIONS, columns_of, unit_of
from civid_loader.hub.configs import DEFAULT, Config
from civid_loader.hub.markdown import code, data, escaped, table, without_paths
from civid_loader.hub.numbers import NumberStatistics, as_text
from civid_loader.hub.sources import FLAGS
from civid_loader.hub.statistics import Statistics

Manifest = Mapping[str, Any]


def summary(statistics: Statistics, manifest: Manifest) -> str:
    """How much there is, and what the dataset was made from."""
    num_rows = sum(statistics.num_rows[DEFAULT].values())
    text = f"{num_rows:,} samples, {statistics.num_clips:,} clips"
    if statistics.durations.num_values:
        seconds = statistics.durations.total
        text += f", {seconds / 3600:,.1f} hours" if seconds >= 3600 else f", {seconds / 60:,.1f} minutes"
    lines = [f"{text}."]
    if "videos" not in statistics.num_rows:
        lines.append("No videos are inside: `clips[].video` points to them.")
    parent = manifest.get("parent")
    if parent:
        name = parent.get("name") or parent.get("folder") or "another dataset"
        where = f", rows where {data(parent['where'])}" if parent.get("where") else ""
        lines.append(f"Made from {data(str(name))}{where}.")
    return " ".join(lines)


def config_table(configs: Sequence[Config]) -> str:
    """Configs, their splits, and what a row of each is."""
    rows = [
        [code(config.name), code(split), f"{count:,}", _row_of(config)]
        for config in configs
        for split, count in config.num_rows.items()
    ]
    return table(["config", "split", "rows", "a row is"], rows)


def _row_of(config: Config) -> str:
    known = {
        "annotations": "a sample: clips in order, with their captions",
        "characters": "a character of a movie",
        "movies": "a movie",
        "media": "a clip: what its file really holds",
        "videos": "a clip: the bytes of its file",
    }
    clips_or_samples = "a sample" if "clip_id" not in config.features else "a clip"
    return known.get(config.folder, f"{clips_or_samples}: {config.folder.partition('/')[0]} made later")


def loading(repo_id: str, configs: Sequence[Config]) -> str:
    """Code that loads each config."""
    repo = json.dumps(repo_id)
    split = json.dumps(next(iter(configs[0].files)))
    lines = ["from datasets import load_dataset", "", f"samples = load_dataset({repo}, split={split})"]
    for config in configs[1:]:
        variable = "".join(char if char.isalnum() else "_" for char in config.name)
        first = json.dumps(next(iter(config.files)))
        lines.append(f"{variable} = load_dataset({repo}, {json.dumps(config.name)}, split={first})")
    lines += [
        "",
        "# Captions only, read as they are needed: of every row group, only these columns are fetched.",
        f'rows = load_dataset({repo}, split={split}, streaming=True, columns=["sample_id", "clips"])',
    ]
    layers = [
        config.name for config in configs if config.folder not in ("annotations", "characters", "movies", "videos")
    ]
    # On lines of their own: beside each other they leave the box at three layers.
    given = [f"{repo}, split={split}", *([f"layers={json.dumps(layers)}"] if layers else [])]
    ours = ["import civid_loader", "", "samples = civid_loader.load(", *(f"    {one}," for one in given), ")"]
    blocks = ["\n".join(lines), "\n".join(ours)]
    stock, with_layers = (f"```python\n{block}\n```" for block in blocks)
    return f"{stock}\n\nWith `civid_loader`, which brings layers together with their clips:\n\n{with_layers}"


def statistics_text(statistics: Statistics, pictures: Mapping[str, str]) -> str:
    """Tables and pictures; `pictures` are name -> path in the repository."""

    def picture(name: str, about: str) -> list[str]:
        return [f"![{escaped(about)}]({pictures[name]})"] if name in pictures else []

    durations, clips = statistics.durations, statistics.clips_per_sample
    where = "measured" if statistics.durations_are_measured else "as upstream states it"
    rows = [
        _number_row("clips per sample", clips),
        _number_row(f"clip duration, s ({where})", durations),
    ]
    head = ["", "values", "missing", "min", "median", "mean", "max"]
    parts = [table(head, rows)]
    parts += picture("durations", "Histogram of clip durations in seconds")
    parts += picture("clips_per_sample", "Histogram of clips per sample")
    for config, kinds in statistics.words.items():
        if kinds:
            rows = [[*row[:2], *row[3:]] for row in (_number_row(code(kind), one) for kind, one in kinds.items())]
            parts += [f"### Words of captions, {code(config)}", table(["kind", "captions", *head[3:]], rows)]
            parts += picture(f"captions_{config}", f"Captions of each kind in {config}")
            parts += picture(f"words_{config}", f"Histograms of words per caption in {config}")
    for config, columns in statistics.scores.items():
        parts += [
            f"### Scores, {code(config)}",
            table(["column", *head[1:]], [_number_row(code(name), one) for name, one in columns.items()]),
        ]
        parts += picture(config, f"Histograms of layer {config}")
    return "\n\n".join(parts)


def _number_row(name: str, numbers: NumberStatistics) -> list[str]:
    sizes = (numbers.minimum, numbers.median, numbers.mean, numbers.maximum)
    return [name, f"{numbers.num_values:,}", f"{numbers.num_missing:,}", *map(as_text, sizes)]


def column_tables(configs: Sequence[Config], statistics: Statistics, manifest: Manifest) -> str:
    """Per config every column: type, unit, what it is, and how often it is null."""
    parts = []
    for config in configs:
        known = _explained(config, manifest)
        missing = statistics.missing.get(config.name, {})
        rows = []
        for column, type_name in columns_of(config.features):
            unit, text = known.get(column, ("", "Not recorded."))
            # The column is narrow: with a space the sign would stand on a line of its own.
            nulls = _share(missing[column]).replace(" ", "&nbsp;") if column in missing else ""
            rows.append([code(column), escaped(type_name), escaped(unit), text, nulls])
        parts += [f"### {code(config.name)}", table(["column", "type", "unit", "what it is", "null"], rows)]
    return "\n\n".join(parts)


def _share(share: float) -> str:
    return "0 %" if not share else "< 1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")


def _explained(config: Config, manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Column -> (unit, explanation in Markdown)."""
    table_name = "captions" if config.folder.startswith("captions/") else config.folder
    known = {name: (unit_of(name), text.replace("|", r"\|")) for name, text in EXPLANATIONS.get(table_name, {}).items()}
    recorded = _provenance(config, manifest).get("columns") or []
    ids = {"clip_id": ("", "The clip; every clip has a row."), "sample_id": ("", "The sample.")}
    ids |= {"reason": ("", "Why there is no value.")}
    return (
        ids
        | known
        | {
            str(column.get("name")): (
                str(column.get("unit") or ""),
                escaped(without_paths(str(column.get("doc") or "Not recorded."))),
            )
            for column in recorded
        }
    )


def _provenance(config: Config, manifest: Manifest) -> Manifest:
    """What the manifest says of a layer; empty where it says nothing."""
    if config.name == "media":
        media: Manifest = manifest.get("media") or {}
        return media
    if config.name == "videos":
        return {"copies": manifest["proxies"]} if manifest.get("proxies") else {}
    layer: Manifest = (manifest.get("layers") or {}).get(config.name) or {}
    return layer


def layer_text(configs: Sequence[Config], manifest: Manifest) -> str:
    """Per layer, the stages and models that made it."""
    parts = []
    for config in configs:
        if config.folder not in ("annotations", "characters", "movies"):
            told = _provenance(config, manifest)
            as_they_were = config.folder == "videos" and manifest and not told
            text = "The files of the clips as they were, byte for byte." if as_they_were else _made(told)
            parts += [f"### {code(config.name)}", text]
    return "\n\n".join(parts) or "There are none yet."


def _made(layer: Manifest) -> str:
    if not layer:
        return "Not recorded."
    parts = []
    if layer.get("fingerprint"):
        when = layer.get("created_utc")
        made = f", made {escaped(str(when))}" if when else ""
        parts.append(f"Fingerprint {data(layer['fingerprint'])}{made}.")
    if layer.get("made_with"):
        versions = (f"{escaped(name)} {escaped(str(version))}" for name, version in sorted(layer["made_with"].items()))
        parts.append(f"Made with {', '.join(versions)}.")
    if layer.get("copies"):
        parts.append(f"Training copies of the originals: {data(layer['copies'])}.")
    stages = layer.get("stages") or []
    if stages:
        keys: tuple[str, ...] = ("stage", "version", "fingerprint")
        rows = [[*(data(str(stage.get(key, "-"))) for key in keys), _settings(stage)] for stage in stages]
        parts.append(table([*keys, "settings"], rows))
    models = [(stage.get("stage"), model) for stage in stages for model in stage.get("models") or []]
    if models:
        keys = ("id", "revision", "dtype", "license", "sha256")
        rows = [[data(str(stage)), *(data(str(model.get(key) or "-")) for key in keys)] for stage, model in models]
        parts.append(table(["stage", "model", "revision", "dtype", "licence", "SHA-256"], rows))
    return "\n\n".join(parts)


def _settings(stage: Manifest) -> str:
    prompt = {"prompt_id": stage["prompt_id"]} if stage.get("prompt_id") else {}
    settings = {**(stage.get("params") or {}), **prompt}
    return data(settings) if settings else "-"


def flag_text(statistics: Statistics) -> str:
    """The flags rows have, and how many rows have them."""
    if not statistics.flags:
        return "No row has a flag."
    total = sum(statistics.num_rows[DEFAULT].values())
    rows = [
        [code(flag), f"{count:,}", _share(count / max(1, total)), FLAGS.get(flag, "Not recorded.")]
        for flag, count in statistics.flags.items()
    ]
    return "`flags` says what was odd about a row and how it was read.\n\n" + table(
        ["flag", "rows", "share", "meaning"], rows
    )
