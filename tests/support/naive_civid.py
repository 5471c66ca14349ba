"""CI-VID's JSONL record by record, the plain way, written from the format description: see `support.naive`."""

import json
import re
from pathlib import Path
from typing import Any, Final

from civid_loader.schema import CLIP, SAMPLE_FEATURES, SOURCE, caption
from support.naive import Rows, Sample

SINGLE: Final = {
    "video_content": "content",
    "camera_angle": "camera_angle",
    "camera_movement": "camera_movement",
    "video_background": "background",
}
JOINT: Final = {
    "continuation_in_video_content": "continuation_content",
    "change_in_video_content": "change_content",
    "continuation_in_video_background": "continuation_background",
    "change_in_video_background": "change_background",
    "change_in_camera_angle": "change_camera_angle",
    "change_in_camera_movement": "change_camera_movement",
}
_FENCE_RESIDUE: Final = re.compile(r"""["']?,?\s*\}?\s*```\s*$""")


def civid(path: Path) -> Rows:
    """True JSONL, one record a line, captions only; the sample is null where the record cannot be read."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if line.strip():
                yield number, _sample(number, json.loads(line, strict=False), path.name)


def _sample(number: int, record: dict[str, Any], file: str) -> Sample | None:
    lists = {name.rstrip(":"): items for name, items in record.items()}
    singles, joints = lists["single_captions"], lists.get("joint_captions") or []
    if not singles or (joints and len(joints) != len(singles) - 1):
        return None
    key = f"{file.removesuffix('.jsonl')}/{number}"
    flags: list[str] = []
    clips = []
    for index, item in enumerate(singles):
        lists_of_clip = {"captions": _captions(item, SINGLE, flags), "characters": [], "scores": []}
        names = {"clip_id": f"{key}/{index:03d}", "index": index, "trimmed": True, "source": dict.fromkeys(SOURCE)}
        clips.append(dict.fromkeys(CLIP) | names | lists_of_clip)
    transitions = [
        {"from_index": index, "to_index": index + 1, "captions": _captions(item, JOINT, flags)}
        for index, item in enumerate(joints)
    ]
    return dict.fromkeys(SAMPLE_FEATURES) | {
        "sample_id": f"civid/full/{key}",
        "dataset": "civid",
        "subset": "full",
        "level": "sequence",
        "clips": clips,
        "transitions": transitions,
        "captions": [],
        "flags": flags,
        "provenance": {
            "annotation_file": file,
            "row_index": number,
            "upstream_version": None,
            "license": "civid-noncommercial",
        },
    }


def _captions(item: Any, kinds: dict[str, str], flags: list[str]) -> list[dict[str, Any]]:
    """Texts of one item: an object, or one as a JSON string."""
    fields = json.loads(item, strict=False) if isinstance(item, str) else item
    captions = []
    for position, (name, text) in enumerate(fields.items(), start=1):
        found: list[str] = []
        if position == len(fields):
            text, found = _without_residue(text)
        if "\\" in text:
            try:
                text, found = json.loads(f'"{text}"', strict=False), [*found, "escapes_decoded"]
            except ValueError:
                found = [*found, "escapes_left"]
        flags += [flag for flag in found if flag not in flags]
        if text.strip():
            captions.append(caption(kinds[name], text.strip(), "upstream:gpt-4o"))
    return captions


def _without_residue(text: str) -> tuple[str, list[str]]:
    """What the end of the model's answer left behind: quote, brace, fence; or quote, parenthesis."""
    end = text.rstrip()
    if end.endswith("```"):
        return _FENCE_RESIDUE.sub("", end), ["fence_residue"]
    if end.endswith('")') and end.count('"') % 2:
        return end[:-2], ["fence_residue"]
    return text, []
