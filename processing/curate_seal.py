"""The last step of `curate`: films' rows become shards; rejected films, card. Can be cut off anywhere and run again."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from civid_loader.card import add_table
from civid_loader.errors import AnnotationError
from civid_loader.processing.curate_rows import SUBSET
from civid_loader.processing.recipe import Recipe
from civid_loader.schema import arrow_schema
from civid_loader.storage import atomic_file, shard_name, write_shard

REJECTED: Final = "rejected/videos.jsonl"
"""Films that cannot be read, one JSON line each."""
ROWS_PER_SHARD: Final = 20_000


def seal(
    root: Path, work: Path, recipe: Recipe, entries: Sequence[dict[str, Any]], *, is_asked: bool
) -> dict[str, Any]:
    """Write shards, rejected films and the card; returns what the manifest says of them.

    Args:
        root: the dataset folder.
        work: holds the rows of film i in `<i>.parquet`.
        recipe: for the card.
        entries: of the journal, one per film.
        is_asked: a model was asked what the recipe asks.

    Raises:
        AnnotationError: no film gave a sample.
    """
    full = [number for number, entry in enumerate(entries) if entry["num_rows"]]
    failed = [entry for entry in entries if "rejected" in entry]
    if not full:
        why = f"{len(failed)} of them cannot be read; " if failed else ""
        raise AnnotationError(
            f"no sample came of {len(entries):,} films: {why}the others have too few or too short scenes for recipe "
            f"{recipe.name}; copy the recipe and change its numbers"
        )
    num_rows = sum(entries[number]["num_rows"] for number in full)
    groups = list(_groups(full, entries))
    names = [f"annotations/{shard_name('train', i, len(groups))}" for i in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        pieces = pa.concat_tables([pq.read_table(work / f"{number:05d}.parquet") for number in group])
        schema = arrow_schema("annotations")
        write_shard(root / name, [pieces.replace_schema_metadata(schema.metadata)], table="annotations")
    if failed:
        with atomic_file(root / REJECTED) as file:
            for entry in failed:
                line = {"video": entry["video"], "reason": entry["rejected"], "error": entry["error"]}
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    flags: Counter[str] = Counter()
    for entry in entries:
        flags.update(entry.get("flags", {}))
    _write_card(root, recipe, num_rows, is_asked=is_asked)
    return {
        "license": "The films' own terms hold; this dataset has no pictures of them.",
        "num_rows": {"annotations": {"train": num_rows}},
        "shards": {"annotations": names},
        "rejected": dict(sorted(Counter(entry["rejected"] for entry in failed).items())),
        "counts": {"clips": {"clips": _sum(entries, "num_clips")}, "flags": dict(flags.most_common())},
        "num_videos": len(entries),
        "num_scenes": _sum(entries, "num_scenes"),
        "num_clips": _sum(entries, "num_clips"),
        "video_seconds": _sum(entries, "video_seconds"),
        "clip_seconds": _sum(entries, "clip_seconds"),
    }


def _groups(numbers: Sequence[int], entries: Sequence[dict[str, Any]]) -> Iterator[list[int]]:
    """Films whose rows make a shard."""
    group: list[int] = []
    num_rows = 0
    for number in numbers:
        group.append(number)
        num_rows += entries[number]["num_rows"]
        if num_rows >= ROWS_PER_SHARD:
            yield group
            group, num_rows = [], 0
    if group:
        yield group


def _sum(entries: Sequence[dict[str, Any]], name: str) -> Any:
    return sum(entry.get(name, 0) for entry in entries)


def _write_card(root: Path, recipe: Recipe, num_rows: int, *, is_asked: bool) -> None:
    run = [step for step in recipe.segmentation if is_asked or step.stage != "entity_segment"]
    steps = "\n".join(
        f"| {step.stage} | `{json.dumps(dict(step.params))}` | {step.evidence} | {step.source} |" for step in run
    )
    left_out = [step.stage for step in recipe.segmentation if step not in run]
    skipped = f"Not done, as no model was asked: {', '.join(left_out)}.\n\n" if left_out else ""
    rules = "\n".join(f"- `{rule.where}`: {rule.source}" for rule in recipe.rules)
    waiting = (
        f"Not applied yet, as they need scores (`civid process`, then `civid filter --recipe {recipe.name}`):\n\n"
        f"{rules}\n\n"
        if rules
        else ""
    )
    text = f"""# Clips cut from films by the recipe {recipe.name} (subset `{SUBSET}`)

Made with civid_loader, not by the authors of {recipe.title.partition(":")[0]}. No videos are inside: `clips[].video`
points to the films, `clips[].source` says from when to when.

| config | split | rows |
|---|---|---|

## How

| step | parameters | says who | what |
|---|---|---|---|
{steps}

{skipped}{waiting}## Terms

Those of the films.
"""
    with atomic_file(root / "README.md") as file:
        file.write(text.encode())
    add_table(root, "annotations", {"train": num_rows})
