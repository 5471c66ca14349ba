"""Layers are written beside the rows, told of in card and manifest, and joined by clip id."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Features, Value, load_dataset

from civid_loader.errors import LayerError, SchemaError
from civid_loader.layers import (
    LAYER_KEY,
    Layer,
    check_known,
    join_layers,
    layer_folder,
    layer_names,
    layers_in,
    write_layer,
)
from civid_loader.schema import CAPTION_LAYER_FEATURES, arrow_schema, arrow_schema_of, caption, empty_sample
from civid_loader.storage import read_manifest, read_table
from support.built import clip, write_dataset

SCORES = Features({"clip_id": Value("string"), "flow_mean_px": Value("float64"), "reason": Value("string")})
MADE = {"fingerprint": "0123456789abcdef", "stages": [{"stage": "optical_flow", "version": 1}]}


def scores(*ids: str, reason: str | None = None) -> pa.Table:
    rows = [{"clip_id": name, "flow_mean_px": float(name[1:]), "reason": reason} for name in ids]
    return pa.Table.from_pylist(rows, schema=arrow_schema_of(SCORES))


def rows_of(*samples: Sequence[str]) -> pa.Table:
    rows = [
        empty_sample()
        | {"sample_id": f"s{i}", "dataset": "lvd2m", "subset": "ytb", "level": "sequence"}
        | {"clips": [clip(name, None) | {"index": n} for n, name in enumerate(names)]}
        for i, names in enumerate(samples)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("annotations"))


def new_captions(**texts: tuple[str | None, str | None]) -> Layer:
    """clip id -> (text about it, text about the step to it)."""
    rows = [
        {
            "clip_id": name,
            "captions": [caption("refined", about, "new")] if about else [],
            "transition_captions": [caption("change_content", step, "new")] if step else None,
            "reason": None,
        }
        for name, (about, step) in texts.items()
    ]
    return Layer(name="captions-new", rows=pa.Table.from_pylist(rows, schema=arrow_schema_of(CAPTION_LAYER_FEATURES)))


def test_names_and_folders() -> None:
    assert layer_folder("scores-lvd2m") == "scores/lvd2m"
    assert layer_folder("media") == "media"
    assert layer_names(["annotations", "scores/a", "captions/b-2", "videos", "media", "rejected"]) == [
        "captions-b-2", "media", "scores-a",
    ]  # fmt: skip
    for name in ("annotations", "scores-", "scores-../x", "scores/x", "Captions-a"):
        with pytest.raises(LayerError, match="a layer is media, scores-<name> or captions-<name>"):
            layer_folder(name)


def test_a_layer_is_a_config_of_its_own(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", {"train": [[clip("c1", None)], [clip("c2", None)]]})
    assert write_layer(root, "scores-x", {"train": [scores("c1"), scores("c2")]}, features=SCORES, provenance=MADE) == {
        "train": 2
    }
    loaded = load_dataset(str(root), "scores-x", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["flow_mean_px"][:] == [1.0, 2.0]
    assert loaded.features == SCORES
    assert read_manifest(root)["layers"]["scores-x"] == MADE | {"name": "scores-x"}
    assert b"optical_flow" in read_table(root, "scores/x").schema.metadata[LAYER_KEY]
    assert layers_in(root) == ["scores-x"]
    write_layer(root, "scores-x", {"train": [scores("c2")]}, features=SCORES, provenance=MADE)
    assert read_table(root, "scores/x")["clip_id"].to_pylist() == ["c2"]
    assert len(list((root / "scores/x").iterdir())) == 1


def test_what_breaks_the_schema_replaces_nothing(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", {"train": [[clip("c1", None)]]})
    write_layer(root, "scores-x", {"train": [scores("c1")]}, features=SCORES, provenance=MADE)
    with pytest.raises(SchemaError, match='missing is null, never ""'):
        write_layer(root, "scores-x", {"train": [scores("c1", reason="")]}, features=SCORES, provenance=MADE)
    assert read_table(root, "scores/x")["flow_mean_px"].to_pylist() == [1.0]


@pytest.mark.parametrize("order", [["c1", "c2", "c3", "c4"], ["c4", "c2", "c1", "c3"], ["c9", "c3", "c2"]])
def test_scores_become_a_list_per_sample(order: list[str]) -> None:
    pieces = [rows_of(["c1"], ["c2", "c3"]), rows_of(), rows_of(["c4"])]
    layer = Layer(name="scores-x", rows=scores(*order))
    joined = pa.concat_tables([join_layers(piece, [layer]) for piece in pieces if piece.num_rows]).to_pylist()
    known = {name: {"flow_mean_px": float(name[1:]), "reason": None} for name in order}
    assert [row["scores-x"] for row in joined] == [
        [known.get("c1")],
        [known.get("c2"), known.get("c3")],
        [known.get("c4")],
    ]
    assert layer.num_missing == 4 - len(known.keys() & {"c1", "c2", "c3", "c4"})


def test_captions_come_first_and_steps_are_merged() -> None:
    rows = rows_of(["c1", "c2", "c3"], ["c4"]).to_pylist()
    rows[0]["transitions"] = [
        {"from_index": 0, "to_index": 1, "captions": [caption("change_content", "old step", "old")]}
    ]
    table = pa.Table.from_pylist(rows, schema=arrow_schema("annotations"))
    layer = new_captions(c1=("one", "never: the first clip"), c2=(None, "step 1"), c3=("three", "step 2"))
    first, second = join_layers(table, [layer]).to_pylist()
    old = {name: f"About {name}." for name in ("c1", "c2", "c3", "c4")}
    texts = [[one["text"] for one in clip_of["captions"]] for clip_of in first["clips"]]
    assert texts == [["one", old["c1"]], [old["c2"]], ["three", old["c3"]]]
    assert [
        (one["from_index"], one["to_index"], [c["text"] for c in one["captions"]]) for one in first["transitions"]
    ] == [
        (0, 1, ["step 1", "old step"]),
        (1, 2, ["step 2"]),
    ]
    assert second["clips"][0]["captions"] == rows[1]["clips"][0]["captions"]
    assert join_layers(table, [layer]).schema.equals(table.schema)


def test_layers_that_do_not_fit() -> None:
    with pytest.raises(LayerError, match="clip c1 has several rows"):
        Layer(name="scores-x", rows=scores("c1", "c2", "c1"))
    layer = Layer(name="scores-x", rows=scores("c7"))
    join_layers(rows_of(["c1"], ["c2"]), [layer])
    with pytest.raises(LayerError, match="knows none of the 2 clips of org/set"):
        check_known([layer], num_clips=2, where="org/set")


def test_a_sliced_table_is_joined_as_well() -> None:
    whole = rows_of(["c1"], ["c2", "c3"], ["c4"])
    layers: list[Any] = [Layer(name="scores-x", rows=scores("c3", "c4")), new_captions(c4=("four", None))]
    (last,) = join_layers(whole.slice(2, 1), layers).to_pylist()
    assert last["scores-x"] == [{"flow_mean_px": 4.0, "reason": None}]
    assert last["clips"][0]["captions"][0]["text"] == "four"
