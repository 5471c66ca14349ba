"""What a push must not do: delete what others put there, mix layers of other rows, tell places of other videos."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem

from civid_loader.errors import HubError, LayerError
from civid_loader.hub.push_files import LocalFiles, is_same, table_of
from civid_loader.hub.push_remote import Remote
from civid_loader.layers import layer_names
from civid_loader.storage import read_manifest, shards

_DATA_FILE: Final = re.compile(r".*\.(parquet|arrow|csv|tsv|jsonl?|tar|zip|gz)")
_CLIP_IDS: Final = "clips.list.element.clip_id"


def check_layers(local: LocalFiles) -> None:
    """Refuse layers that tell of clips which the dataset does not have.

    Raises:
        LayerError: one does.
    """
    own: pa.Array | None = None
    for table in local.tables:
        if not layer_names([table]):
            continue
        if own is None:
            own = _ids(shards(local.root))[1]
        for path in shards(local.root, table):
            ids = pq.read_table(path, columns=["clip_id"])["clip_id"]
            if unknown := ids.filter(pc.invert(pc.is_in(ids, own))):
                raise LayerError(
                    f"layer {layer_names([table])[0]} tells of clip {unknown[0]}, and {local.root} has no such clip: "
                    "it is of another dataset, or the dataset was built anew; make the layer again"
                )


def dropped_tables(local: LocalFiles, remote: Remote, *, replace: bool) -> frozenset[str]:
    """Tables on the Hub that have to go, since they are about rows that this push replaces.

    Raises:
        HubError: the repository holds something else, and `replace` does not allow it to go.
    """
    repo_id = remote.repo_id
    if remote.manifest is None:
        _check_free(local, remote, replace=replace)
        return frozenset()
    name = read_manifest(local.root)["name"]
    if (there := remote.manifest["name"]) != name:
        raise HubError(f"{repo_id} holds the dataset {there!r}, this folder {name!r}; push to another name")
    if _has_same_rows(local, remote):
        return frozenset()
    if "annotations" not in local.tables:
        raise HubError(
            f"{repo_id} holds annotations of other rows than {local.root}, and a layer is about its own rows; push the "
            "whole dataset, to another name"
        )
    if not replace:
        raise HubError(
            f"{repo_id} holds annotations of other rows than {local.root}; push to another name, or replace them, and "
            "the layers and videos there that are about them, with --replace (replace=True)"
        )
    return frozenset(remote.manifest.get("shards", {})) - {*local.tables}


def _check_free(local: LocalFiles, remote: Remote, *, replace: bool) -> None:
    """Without a manifest of ours only files of this very push may be there."""
    own = {*local.paths()}
    for path in remote.files:
        if not _DATA_FILE.fullmatch(path):
            continue
        if table_of(path) not in local.tables:
            raise HubError(f"{remote.repo_id} holds other data ({path}), and a repository has one format; push to a "
                           "new name")  # fmt: skip
        is_ours = remote.is_unfinished or (path in own and is_same(local.add(path), remote.files[path]))
        if not (replace or is_ours):
            raise HubError(
                f"{remote.repo_id} holds other data ({path}), which this push would delete; push to a new name, or "
                "replace it with --replace (replace=True)"
            )
    if "annotations" not in local.tables:
        raise HubError(f"{remote.repo_id} has no annotations yet, and layers are about them; push the dataset first")


def _has_same_rows(local: LocalFiles, remote: Remote) -> bool:
    """Whether both have the same samples and clips, whatever is told of them; files are compared first."""
    assert remote.manifest is not None
    assert remote.snapshot is not None
    named = remote.manifest.get("shards", {}).get("annotations", [])
    there = [path for path in named if path in remote.files]
    own = local.paths_of("annotations")
    if there == own and all(is_same(local.add(path), remote.files[path]) for path in own):
        return True
    files = HfFileSystem(token=remote.snapshot.token)
    for split in {path.rpartition("/")[2].partition("-")[0] for path in [*there, *own]}:
        mine, theirs = ([path for path in of if Path(path).name.startswith(f"{split}-")] for of in (own, there))
        urls = [remote.snapshot.url(path).removeprefix("hf://") for path in theirs]
        try:
            remote_ids = _ids(files.open(url, "rb", cache_type="none") for url in urls)
        except (pa.ArrowException, KeyError):  # whatever it is, it is not of ours
            return False
        for ids, wanted in zip(_ids(local.root / path for path in mine), remote_ids, strict=True):
            # Of a repository that lost shards the rest will do: this push brings them back.
            is_part = len(there) < len(named) and not pc.any(pc.invert(pc.is_in(wanted, ids))).as_py()
            if not is_part and not ids.equals(wanted):
                return False
    return True


def _ids(sources: Iterable[Path | BinaryIO]) -> tuple[pa.Array, pa.Array]:
    """Samples and clips, each once and sorted."""
    parts: tuple[list[pa.Array], list[pa.Array]] = ([], [])
    for source in sources:
        with pq.ParquetFile(source, pre_buffer=True) as file:
            rows = file.read(columns=["sample_id", _CLIP_IDS])
        parts[0].extend(rows["sample_id"].chunks)
        parts[1].extend(clips.flatten().field("clip_id") for clips in rows["clips"].chunks)
    samples, clips = (pc.unique(pa.chunked_array(part, pa.string())).sort() for part in parts)
    return samples, clips


def check_places(local: LocalFiles, remote: Remote) -> None:
    """Refuse a media layer that tells where clips lie in other video shards than those of the repository.

    Where the repository has no videos, there is nothing that it could be wrong about.

    Raises:
        HubError: it does.
    """
    videos = {path: file for path, file in remote.files.items() if table_of(path) == "videos"}
    media = local.paths_of("media") if "media" in local.tables else []
    if local.sends_videos or not videos or all(is_same(local.add(path), remote.files.get(path)) for path in media):
        return
    for path in media:
        for name in pq.read_table(local.root / path, columns=["shard"])["shard"].unique().drop_null().to_pylist():
            is_here = (local.root / name).is_file()
            if not is_here or not is_same(local.add(name), videos.get(name)):
                raise HubError(
                    f"{remote.repo_id}: the media layer tells where clips lie in {name}, which is another file there "
                    "than here, so readers would get other bytes; add --videos (with_videos=True)"
                )
