"""CI-VID (Ju et al., 2025): coherent interleaved sequences of clips, with a caption per clip and per step."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from civid_loader.errors import UnknownKeysError
from civid_loader.upstream.answers import UnreadableError, read_answer
from civid_loader.upstream.builder import UpstreamBuilder, check_field_map
from civid_loader.upstream.documents import JsonRange, JsonRecord, plan_json, read_json
from civid_loader.upstream.inputs import find_files
from civid_loader.upstream.records import Chunk, Context, Piece, Rejected, Source, Terms
from civid_loader.upstream.sequences import NO_TEXTS, Sequence, SequenceRows, Texts
from civid_loader.upstream.tables import read_header
from civid_loader.upstream.video_index import relative_name

ROLES: Final = {
    "clips": ("clips", "good_clips", "clip_seq", "video_paths", "videos", "clip_paths"),
    "singles": ("single_captions", "response_singles", "individual_captions"),
    "joints": ("joint_captions", "response_joint"),
    "id": ("idx", "id", "sample_id"),
    "video_md5": ("video_path_md5_hash",),
    "sequence_index": ("seq_idx",),
    "entity": ("entity",),
}
"""What a record says -> the keys it may stand under, best first. A colon at the end of a key does not count."""
PASSED_OVER: Final = {"path", "clip_seq", "good_clip_idx"}
"""Keys of the construction pipeline whose content another key has."""
SINGLE_KINDS: Final = {
    "video_content": "content",
    "camera_angle": "camera_angle",
    "camera_movement": "camera_movement",
    "video_background": "background",
}
JOINT_KINDS: Final = {
    "continuation_in_video_content": "continuation_content",
    "change_in_video_content": "change_content",
    "continuation_in_video_background": "continuation_background",
    "change_in_video_background": "change_background",
    "change_in_camera_angle": "change_camera_angle",
    "change_in_camera_movement": "change_camera_movement",
}
ANNOTATOR: Final = "upstream:gpt-4o"
ROWS_PER_PIECE: Final = 2000
CHUNK_BYTES: Final = 32 << 20
"""JSON holds every key again in every record: half the input size of a CSV chunk gives shards as large."""

FieldMap = tuple[tuple[str, str], ...]


class CIVID(UpstreamBuilder):
    """Caption files (one sample a file) and the train and test JSONL; one row is one sequence."""

    TITLE = "CI-VID"
    HOMEPAGE = "https://huggingface.co/datasets/BAAI/CI-VID"
    TERMS = Terms(
        license="civid-noncommercial",
        text="The authors allow non-commercial research only, and neither redistribution nor repackaging without their "
        "consent. Keep what you build from it private, and never upload its videos.",
    )
    SUBSETS = ("full", "samples")
    FIELDS = (*ROLES, *SINGLE_KINDS, *JOINT_KINDS)

    @classmethod
    def recognizes(cls, keys: frozenset[str]) -> bool:
        plain = {key.rstrip(": ") for key in keys}
        return any(not plain.isdisjoint(ROLES[role]) for role in ("singles", "joints")) or "good_clips" in plain

    @classmethod
    def reads(cls, key: str) -> bool:
        known = (
            {name for names in ROLES.values() for name in names}
            | PASSED_OVER
            | SINGLE_KINDS.keys()
            | JOINT_KINDS.keys()
        )
        return key.rstrip(": ") in known

    @classmethod
    def plan(cls, source: Source) -> list[Chunk]:
        cls.check_subset(source.subset)
        check_field_map(source, cls.FIELDS)
        parts: dict[tuple[str, str], list[JsonRange]] = {}
        for path, file in find_files(source.annotations, (".jsonl", ".json")):
            if path.suffix.lower() == ".csv":
                raise UnknownKeysError(f"{path}: CI-VID ships JSON, this is a CSV table.", keys=read_header(path)[0])
            for part in plan_json(path, file, range_bytes=CHUNK_BYTES):
                split = "test" if "test" in path.name.lower() else "train"
                subset = source.subset or ("full" if part.is_lines else "samples")
                parts.setdefault((split, subset), []).append(part)
        chunks = []
        for (split, subset), members in parts.items():
            _check_first_record(members[0], source)
            for group in _group(members):
                num_bytes = sum(part.end_byte - part.start_byte for part in group)
                chunks.append(
                    Chunk(split=split, subset=subset, file=group[0].file, num_bytes=num_bytes, payload=tuple(group))
                )
        return chunks

    @classmethod
    def read(cls, chunk: Chunk, source: Source, context: Context) -> Iterator[Piece]:
        records = ((part, record) for part in chunk.payload for record in read_json(part))
        while batch := list(islice(records, ROWS_PER_PIECE)):
            rows, rejected, notes = SequenceRows(), [], Counter[str]()
            for part, record in batch:
                try:
                    _add_sample(rows, part, record, chunk.subset, source, notes)
                except UnreadableError as error:
                    raw = record.raw or json.dumps(record.value, ensure_ascii=False)
                    rejected.append(Rejected(file=part.file, row_index=record.row_index, reason=str(error), raw=raw))
            table = rows.table(
                context, annotator=ANNOTATOR, sample_annotator="upstream:qwen2.5-vl", license=cls.TERMS.license,
                dataset="civid", subset=chunk.subset,
            )  # fmt: skip
            yield Piece(rows=table, rejected=rejected, notes=notes)


def _group(parts: list[JsonRange]) -> Iterator[list[JsonRange]]:
    """Many small files to one chunk."""
    group: list[JsonRange] = []
    num_bytes = 0
    for part in parts:
        size = part.end_byte - part.start_byte
        if group and num_bytes + size > CHUNK_BYTES:
            yield group
            group, num_bytes = [], 0
        group.append(part)
        num_bytes += size
    yield group


def _check_first_record(part: JsonRange, source: Source) -> None:
    """Refuse files of another kind before any work: none of the keys is known."""
    first = next(iter(read_json(part)), None)
    if first is None or not isinstance(first.value, dict) or _roles(first.value, source).keys() & {"singles", "clips"}:
        return
    keys = ", ".join(map(repr, first.value)) or "none"
    example = next((key for key, value in first.value.items() if isinstance(value, list)), "<name in the file>")
    raise UnknownKeysError(
        f"{part.path}: record 0 has neither captions nor clips under a known key. Its keys: {keys}. Known: "
        + "; ".join(f"{role} = {' | '.join(names)}" for role, names in ROLES.items())
        + f'. If it is CI-VID, map its keys: --field-map FILE with {{"singles": {json.dumps(example)}}} '
        "(look at them with `civid inspect`).",
        keys=first.value,
    )


def _roles(record: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """What the record says, by role; keys are compared without a colon at the end."""
    roles = {}
    for role, keys in _keys_by_role(tuple(record), source.field_map).items():
        found = next((key for key in keys if record[key] is not None), None)
        if found is not None:
            roles[role] = record[found]
            roles[f"{role} as answers"] = found.startswith("response_")
    path = next((value for key, value in record.items() if key.rstrip(": ") == "path"), None)
    if "clips" not in roles and isinstance(path, list):
        roles["clips"] = path
    return roles


@lru_cache(maxsize=64)
def _keys_by_role(keys: tuple[str, ...], field_map: FieldMap) -> dict[str, list[str]]:
    """Role -> keys of the record it may stand under, best first."""
    plain = {key.rstrip(": "): key for key in keys}
    mapped = dict(field_map)
    return {
        role: [plain[name] for name in ((mapped[role].rstrip(": "),) if role in mapped else names) if name in plain]
        for role, names in ROLES.items()
    }


def _add_sample(
    rows: SequenceRows, part: JsonRange, record: JsonRecord, subset: str, source: Source, notes: Counter[str]
) -> None:
    if record.reason:
        raise UnreadableError(record.reason)
    if not isinstance(record.value, dict):
        raise UnreadableError(f"a record is an object, not {type(record.value).__name__}")
    roles = _roles(record.value, source)
    notes.update(_unmapped(tuple(record.value), source.field_map))
    singles, joints = (_as_list(roles.get(role), role) for role in ("singles", "joints"))
    paths = _as_list(roles.get("clips"), "clips")
    num_clips = len(paths) or len(singles)
    if not num_clips:
        raise UnreadableError(f"neither captions nor clips; keys: {', '.join(record.value)}")
    for name, items, expected in (("single captions", singles, num_clips), ("joint captions", joints, num_clips - 1)):
        if items and len(items) != expected:
            raise UnreadableError(f"{len(items)} {name} for {num_clips} clips: which belongs where is not known")
    roles["video_md5"] = _as_text(roles.get("video_md5"), "video_md5")
    index = roles.get("sequence_index", 0)
    if type(index) is not int or not 0 <= index < 2**31:
        raise UnreadableError(f"sequence index {index!r} is not a whole number (of 32 bits)")
    entity = _as_text(roles.get("entity"), "entity")
    flags: dict[str, None] = {}
    sample = Sequence(
        key=_key(part, record, roles),
        file=part.file,
        row_index=record.row_index,
        sequence_index=roles.get("sequence_index"),
        video_id=roles["video_md5"],
        videos=[relative_name(_as_text(path, "a clip") or "") or None for path in paths] or [None] * num_clips,
        about_clips=_captions(singles, SINGLE_KINDS, source, flags, is_raw=roles.get("singles as answers", False))
        or [NO_TEXTS] * num_clips,
        about_steps=_captions(joints, JOINT_KINDS, source, flags, is_raw=roles.get("joints as answers", False)),
        about_all=(("main_object",), (entity,)) if entity and entity.lower() not in ("none", "none.") else NO_TEXTS,
        flags=flags,
    )
    rows.add(sample)


@lru_cache(maxsize=64)
def _unmapped(keys: tuple[str, ...], field_map: FieldMap) -> tuple[str, ...]:
    known = {name for names in ROLES.values() for name in names} | PASSED_OVER
    known |= {name.rstrip(": ") for _, name in field_map}
    return tuple(f"key not read: {key}" for key in keys if key.rstrip(": ") not in known)


def _as_list(value: Any, role: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnreadableError(f"{role} is {type(value).__name__}, not a list")
    return value


def _as_text(value: Any, role: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UnreadableError(f"{role} is {type(value).__name__}, not text")
    return (value or "").strip() or None


def _key(part: JsonRange, record: JsonRecord, roles: Mapping[str, Any]) -> str:
    """Video and place in it; or the file and the record's id or place in it; or the file it is alone in."""
    if roles["video_md5"] and "sequence_index" in roles:
        return f"{roles['video_md5']}_{roles['sequence_index']}"
    stem = re.sub(r"(\.jsonl?)+$", "", part.file)
    if "id" in roles:
        return f"{stem}/{roles['id']}"
    return f"{stem}/{record.row_index}" if part.is_lines or record.row_index else stem


def _captions(
    items: list[Any], kinds: Mapping[str, str], source: Source, flags: dict[str, None], *, is_raw: bool
) -> list[Texts]:
    """(kinds, texts) of each item; null: none."""
    found: list[Texts] = []
    for item in items:
        answer = read_answer(item, is_raw=is_raw, flags=flags)
        names = _kinds(tuple(answer), tuple(kinds.items()), source.field_map)
        texts = tuple(answer.values())
        if not all(texts):
            names = tuple(name for name, text in zip(names, texts, strict=True) if text)
            texts = tuple(filter(None, texts))
        found.append((names, texts))
    return found


@lru_cache(maxsize=256)
def _kinds(keys: tuple[str, ...], kinds: tuple[tuple[str, str], ...], field_map: FieldMap) -> tuple[str, ...]:
    """The kind of caption each key stands for."""
    renamed = dict(field_map)
    names = {renamed.get(name, name).rstrip(": "): kind for name, kind in kinds}
    for key in keys:
        if key.strip().rstrip(": ") not in names:
            close = difflib.get_close_matches(key, names, n=1)
            hint = f"; map it with --field-map if it is {close[0]!r}" if close else ""
            raise UnreadableError(f"a caption has the unknown key {key!r}{hint}; known: {', '.join(names)}")
    return tuple(names[key.strip().rstrip(": ")] for key in keys)
