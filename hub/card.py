"""The dataset card of a published dataset: what lets stock `datasets` load it, and what a reader must know of it.

Our text stands between two markers. What a user writes outside them, and adds to the YAML header, stays.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq
import yaml

from civid_loader import builders
from civid_loader.errors import OutputError
from civid_loader.hub import card_text
from civid_loader.hub.configs import DEFAULT, Config, list_configs
from civid_loader.hub.markdown import bullets, quote
from civid_loader.hub.plots import plots
from civid_loader.hub.sources import ORIGINS
from civid_loader.hub.statistics import Statistics, dataset_statistics
from civid_loader.storage import MANIFEST, read_manifest

if TYPE_CHECKING:
    from civid_loader.upstream.builder import UpstreamBuilder

BEGIN: Final = "<!-- civid_loader: generated, edits here are replaced -->"
END: Final = "<!-- civid_loader: end -->"
PICTURES: Final = "statistics"
"""Folder of the pictures in the repository."""
_SIZES: Final = ((1_000, "1K"), (10_000, "10K"), (100_000, "100K"), (1_000_000, "1M"), (10_000_000, "10M"))
_LINE_END: Final = re.compile(r"\A[ \t]*\r?\n")
_HEADER: Final = re.compile(r"\A---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A card and what it shows."""

    text: str
    """README.md."""
    pictures: Mapping[str, bytes]
    """Path in the repository -> PNG file."""


def render_card(
    root: Path, *, repo_id: str, existing: str | None = None, tables: Collection[str] | None = None
) -> Card:
    """The card of the built folder `root` as it is to stand in `repo_id`. The same folder gives the same bytes.

    Args:
        root: a built dataset.
        repo_id: `org/name` on the Hub.
        existing: the card that is there now. Keys of its header that are not ours, keys users added to a config,
            configs of their own, and text outside our markers are kept.
        tables: folders (`annotations`, `scores/lvd2m`) to tell of; the samples always are. None: all there are.

    Raises:
        AnnotationError: `root` is no built dataset, or of a dataset this package does not know.
        OutputError: the header or the markers of `existing` are broken.
    """
    manifest = read_manifest(root) if (root / MANIFEST).is_file() else {}
    configs = list_configs(root, tables=tables)
    name = manifest["name"] if manifest else _dataset_name(configs[0])
    builder = builders.find(name)
    statistics = dataset_statistics(root, tables=tables)
    pictures = {f"{PICTURES}/{plot}.png": png for plot, png in plots(statistics).items()}
    old_header, old_body = header_and_body(existing or "")
    header = _merged(_header(name, builder, statistics, configs), old_header)
    body = _body(name, builder, statistics, configs, manifest, repo_id=repo_id, pictures=list(pictures))
    dumped = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return Card(text=f"---\n{dumped}---\n{_placed(body, old_body)}", pictures=pictures)


def _dataset_name(samples: Config) -> str:
    return str(pq.read_table(samples.shards[0], columns=["dataset"])["dataset"][0].as_py())


def _header(
    name: str, builder: "type[UpstreamBuilder]", statistics: Statistics, configs: Sequence[Config]
) -> dict[str, Any]:
    num_rows = sum(statistics.num_rows[DEFAULT].values())
    return {
        "license": "other",
        "license_name": builder.TERMS.license,
        "license_link": builder.HOMEPAGE,
        "pretty_name": f"{builder.TITLE} in the civid_loader schema",
        "language": ["en"],
        "task_categories": ["text-to-video"],
        "size_categories": [_size(num_rows)],
        "tags": ["video", "civid_loader", name],
        "configs": [_config(config) for config in configs],
    }


def _config(config: Config) -> dict[str, Any]:
    return {
        "config_name": config.name,
        **({"default": True} if config.name == DEFAULT else {}),
        "data_files": [{"split": split, "path": f"{config.folder}/{split}-*.parquet"} for split in config.files],
    }


def _size(num_rows: int) -> str:
    """The Hub's own words: `100K<n<1M`."""
    below = "n<1K"
    for (least, start), (_, end) in zip(_SIZES, [*_SIZES[1:], (0, "100M")], strict=True):
        below = f"{start}<n<{end}" if num_rows >= least else below
    return below


def header_and_body(text: str) -> tuple[dict[str, Any], str]:
    """(header, body) of a card.

    Raises:
        OutputError: its header is broken.
    """
    match = _HEADER.match(text)
    if not match:
        return {}, text
    try:
        header = yaml.safe_load(match["yaml"]) or {}
    except yaml.YAMLError as error:
        raise OutputError(f"the card on the Hub has a header that is no YAML: {error}; mend it there") from error
    if not isinstance(header, dict):
        raise OutputError(f"the header of the card on the Hub is a {type(header).__name__}, not keys; mend it there")
    return header, text[match.end() :]


def _merged(ours: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Ours, with what users added. The terms, the size and where the files are cannot be changed by hand."""
    merged = {**ours, **{key: value for key, value in old.items() if key not in ours}}
    for key in ("pretty_name", "language", "task_categories"):
        merged[key] = old.get(key, ours[key])
    tags = old.get("tags") or []
    merged["tags"] = list(dict.fromkeys([*ours["tags"], *(tags if isinstance(tags, list) else [tags])]))
    listed = old.get("configs") or []
    configs = {one.get("config_name"): one for one in listed if isinstance(one, dict)} if listed else {}
    own = {one["config_name"] for one in ours["configs"]}
    merged["configs"] = [{**one, **_without(configs.get(one["config_name"], {}), one)} for one in ours["configs"]]
    merged["configs"] += [one for name, one in configs.items() if name not in own]
    # A config called `default` is one; with a second one `datasets` loads nothing at all.
    for one in merged["configs"][1:]:
        one.pop("default", None)
    # Left by `push_to_hub`: it would be taken for the truth about files that are replaced.
    info = merged.pop("dataset_info", None)
    kept = [
        one
        for one in (info if isinstance(info, list) else [info])
        if one and one.get("config_name", DEFAULT) not in own
    ]
    return merged | ({"dataset_info": kept} if kept else {})


def _without(mapping: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _body(
    name: str,
    builder: "type[UpstreamBuilder]",
    statistics: Statistics,
    configs: Sequence[Config],
    manifest: Mapping[str, Any],
    *,
    repo_id: str,
    pictures: Sequence[str],
) -> str:
    origin = ORIGINS[name]
    paper = f"[{origin.paper_title.replace('{', '').replace('}', '')}](https://arxiv.org/abs/{origin.arxiv_id})"
    template = Template(files("civid_loader.hub").joinpath("card.md").read_text(encoding="utf-8"))
    return template.substitute(
        title=f"{builder.TITLE} in the civid_loader schema",
        about=f"Made from the files of [{builder.TITLE}]({builder.HOMEPAGE}); paper: {paper}. {origin.about}",
        summary=card_text.summary(statistics, manifest),
        terms=quote(builder.TERMS.text),
        configs=card_text.config_table(configs),
        loading=card_text.loading(repo_id, configs),
        statistics=card_text.statistics_text(statistics, {Path(path).stem: path for path in pictures}),
        columns=card_text.column_tables(configs, statistics, manifest),
        layers=card_text.layer_text(configs, manifest),
        flags=card_text.flag_text(statistics),
        defects=bullets(origin.defects),
        citation=origin.citation,
    )


def _placed(ours: str, old_body: str) -> str:
    """Our text between its markers: where they are, else after what there is."""
    block = f"{BEGIN}\n{ours}{END}\n"
    before, begin, rest = old_body.partition(BEGIN)
    if not begin:
        return f"{old_body.rstrip()}\n\n{block}".lstrip("\n") if old_body.strip() else block
    _, end, after = rest.partition(END)
    if not end:
        raise OutputError(f"the card on the Hub has the line {BEGIN!r} but not {END!r} after it; put it back there")
    return f"{before}{block}{_LINE_END.sub('', after)}"
