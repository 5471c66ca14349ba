"""Captions that an earlier run wrote into a layer, as what is written of clips already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import xxhash

from civid_loader.errors import LayerError
from civid_loader.layers import Layer, layer_folder, layers_in
from civid_loader.storage import read_table, shards

_COLUMNS: Final = ("captions", "transition_captions")


@dataclass(frozen=True, kw_only=True)
class EarlierCaptions:
    """A layer of captions, in memory once it is read: about 1 KB for each caption."""

    root: Path
    """The dataset."""
    layer: str

    @classmethod
    def of(cls, root: Path, layer: str, *, into: str) -> "EarlierCaptions":
        """The layer of a dataset, for a run whose own layer is `into`.

        Raises:
            LayerError: there is no such layer of captions, or it is the one that the run writes.
        """
        there = [one for one in layers_in(root) if one.startswith("captions-")]
        if layer == into:
            raise LayerError(f"layer {layer} cannot be read and written by one run: name another with --layer")
        if layer not in there:
            raise LayerError(f"{root} has no captions {layer!r} to read; it has {', '.join(there) or 'none'}")
        return cls(root=root, layer=layer)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Which layer, and a hash of its files: other captions are another run."""
        hashed = xxhash.xxh3_128()
        for path in shards(self.root, layer_folder(self.layer)):
            hashed.update(path.read_bytes())
        return {"layer": self.layer, "xxh3": hashed.hexdigest()}

    def added(self, clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Clips as stages get them, these captions before those that they have."""
        found = self._rows.of(pa.array([clip["clip_id"] for clip in clips], pa.string())).to_pylist()
        return [
            {**clip, **{name: [*(row[name] or ()), *(clip.get(name) or ())] for name in _COLUMNS}}
            for clip, row in zip(clips, found, strict=True)
        ]

    @cached_property
    def _rows(self) -> Layer:
        rows = read_table(self.root, layer_folder(self.layer), columns=["clip_id", *_COLUMNS])
        return Layer(name=self.layer, rows=rows)
