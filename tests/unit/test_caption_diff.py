"""Two layers of captions are compared clip by clip, as plain Python would, and shown without being taken for HTML."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from civid_loader import cli_filter
from civid_loader.caption_diff import MAX_IDS, CaptionDiff, KindDiff, diff_captions
from civid_loader.caption_diff_page import write_diff_html
from civid_loader.caption_texts import open_texts
from civid_loader.errors import LayerError
from civid_loader.layers import write_layer
from civid_loader.schema import CAPTION_LAYER_FEATURES, arrow_schema, arrow_schema_of, caption, empty_sample
from civid_loader.storage import write_shard
from civid_loader.vocabulary import TextCounts, word_shifts
from support.built import clip, write_dataset

NASTY = '<script>alert("x")</script> & <b>bold</b>'


Texts = tuple[str | None, str | None] | str
Captions = Sequence[tuple[str, str, float | None]]
"""Kind, text and start of the window of each."""


def layer(texts: Mapping[str, Texts]) -> pa.Table:
    """clip id -> (dense caption, caption of the step to it), or the reason why there is none."""
    rows: list[dict[str, Any]] = []
    for name, of in texts.items():
        row: dict[str, Any] = {"clip_id": name, "captions": [], "transition_captions": None, "reason": None}
        if isinstance(of, str):
            row["reason"] = of
        else:
            row["captions"] = [caption("dense", of[0], "m")] if of[0] else []
            row["transition_captions"] = [caption("change_content", of[1], "m")] if of[1] else None
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=arrow_schema_of(CAPTION_LAYER_FEATURES))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    names = [[f"c{i}"] for i in range(8)]
    root = write_dataset(tmp_path / "set", {"train": [[clip(name, None) for name in of] for of in names]})
    first: dict[str, Texts] = {
        "c0": ("a dog runs", None), "c1": ("a cat sits", "then a cat"), "c2": ("same text", None), "c3": "too dark",
        "c4": (NASTY, None), "c5": ("only first", None), "c6": (None, None),
    }  # fmt: skip
    second: dict[str, Texts] = {
        "c6": ("only second", None), "c4": ("plain words", None), "c0": ("a dog runs fast", None),
        "c1": ("a cat sits", "later a cat"), "c2": ("same text", None), "c3": ("now bright", None), "c7": "no memory",
    }  # fmt: skip
    write_layer(root, "captions-a", {"train": [layer(first)]}, provenance={})
    write_layer(root, "captions-b", {"train": [layer(second)]}, provenance={})
    return root


def of_kind(found: CaptionDiff, kind: str) -> KindDiff:
    return next(one for one in found.kinds if one.kind == kind)


def test_counts_lengths_words_and_reasons(dataset: Path) -> None:
    found = diff_captions(dataset, "captions-a", "captions-b", quiet=True)
    dense = of_kind(found, "dense")
    assert (dense.num_equal, dense.num_changed, dense.num_only_first, dense.num_only_second) == (2, 2, 1, 2)
    assert (found.num_clips, found.num_clips_in_both) == ((7, 7), 6)
    assert found.reasons == ({"too dark": 1}, {"no memory": 1})
    first, second = dense.lengths
    assert first is not None
    assert second is not None
    assert (first.num_texts, first.mean, first.p5, first.median, first.p95) == (5, 2.6, 2, 3, 3)
    assert (second.num_texts, second.median) == (6, 2)
    assert dense.num_different_words == (14, 14)
    step = of_kind(found, "change_content")
    assert (step.num_changed, step.num_equal, step.num_only_first, step.num_only_second) == (1, 0, 0, 0)
    assert [one.kind for one in diff_captions(dataset, "captions-a", "captions-b", kinds=["dense"]).kinds] == ["dense"]


def test_the_other_way_round_it_is_the_mirror_image(dataset: Path) -> None:
    there = of_kind(diff_captions(dataset, "captions-a", "captions-b", quiet=True), "dense")
    back = of_kind(diff_captions(dataset, "captions-b", "captions-a", quiet=True), "dense")
    assert (there.num_only_first, there.num_changed) == (back.num_only_second, back.num_changed)
    assert there.lengths == back.lengths[::-1]
    same = of_kind(diff_captions(dataset, "captions-a", "captions-a", quiet=True), "dense")
    assert (same.num_equal, same.num_changed, same.examples, same.gained) == (5, 0, (), ())


def test_examples_are_the_most_different_ones_first(dataset: Path) -> None:
    dense = of_kind(diff_captions(dataset, "captions-a", "captions-b", quiet=True), "dense")
    assert [(one.clip_id, one.similarity) for one in dense.examples] == [("c4", 0.0), ("c0", 0.8571)]
    assert [(piece.change, piece.text) for piece in dense.examples[1].pieces] == [
        ("same", "a dog runs"), ("added", "fast"),
    ]  # fmt: skip
    for one in dense.examples:
        kept = {side: " ".join(p.text for p in one.pieces if p.change != side) for side in ("added", "removed")}
        assert (kept["added"], kept["removed"]) == (one.first, one.second)
    assert of_kind(diff_captions(dataset, "captions-a", "captions-b", max_examples=0), "dense").examples == ()


def test_examples_do_not_depend_on_the_order_of_the_clips(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(400)]
    root = write_dataset(tmp_path / "set", {"train": [[clip(name, None)] for name in names]})
    write_layer(
        root, "captions-a", {"train": [layer({name: (f"text {name} old", None) for name in names})]}, provenance={}
    )
    found = []
    for order in (names, names[::-1]):
        rows = layer({name: (f"text {name} new and {'x ' * (int(name[1:]) % 7)}", None) for name in order})
        write_layer(root, "captions-b", {"train": [rows]}, provenance={})
        found.append(of_kind(diff_captions(root, "captions-a", "captions-b", max_examples=5, quiet=True), "dense"))
    assert found[0] == found[1]
    assert [one.word for one in found[0].gained] == ["x", "and", "new"]
    assert [one.word for one in found[0].lost] == ["old", "text"]
    assert len(found[0].examples) == 5


def several(of: Mapping[str, Captions]) -> pa.Table:
    """A layer of clips with these captions, windows of two seconds."""
    rows = [
        {
            "clip_id": name,
            "captions": [
                caption(kind, text, "m", start_seconds=start, end_seconds=None if start is None else start + 2)
                for kind, text, start in captions
            ],
            "transition_captions": None,
            "reason": None,
        }
        for name, captions in of.items()
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema_of(CAPTION_LAYER_FEATURES))


def compared(root: Path, first: pa.Table, second: pa.Table) -> CaptionDiff:
    for name, rows in (("captions-x", first), ("captions-y", second)):
        write_layer(root, name, {"train": [rows]}, provenance={})
    return diff_captions(root, "captions-x", "captions-y", quiet=True)


def test_all_captions_of_a_clip_are_compared(dataset: Path) -> None:
    """Not only the first of a kind: two layers may differ in every second one."""
    names = [f"c{i}" for i in range(6)]
    old = several({name: [("style", "warm", None), ("style", f"old {name}", None)] for name in names})
    new = several({name: [("style", "warm", None), ("style", f"new {name}", None)] for name in names[::-1]})
    style = of_kind(compared(dataset, old, new), "style")
    assert (style.num_equal, style.num_changed, style.num_only_first, style.num_only_second) == (6, 6, 0, 0)
    assert {(one.clip_id, one.first, one.second) for one in style.examples} == {
        (name, f"old {name}", f"new {name}") for name in names
    }
    assert style.num_words == (18, 18)


def test_captions_of_the_same_window_meet_then_those_in_the_same_place(dataset: Path) -> None:
    old: dict[str, Captions] = {
        "c0": [("dense", "a", 0.0), ("dense", "b", 2.0)],
        "c1": [("dense", "whole", None), ("short", "s", None), ("dense", "x", 4.0)],
        "c2": [("dense", "m", 1.0), ("dense", "n", 1.0), ("dense", "o", 1.0)],
    }
    new: dict[str, Captions] = {
        "c0": [("dense", "c", 2.0), ("dense", "d", 4.0), ("dense", "e", 6.0)],
        "c1": [("dense", "x", 4.0), ("dense", "part", 6.0)],
        "c2": [("dense", "m", 1.0), ("dense", "p", 1.0)],
    }
    found = compared(dataset, several(old), several(new))
    dense = of_kind(found, "dense")
    assert {(one.first, one.second) for one in dense.examples} == {
        ("b", "c"),
        ("a", "d"),
        ("whole", "part"),
        ("n", "p"),
    }
    assert (dense.num_equal, dense.num_changed, dense.num_only_first, dense.num_only_second) == (2, 4, 1, 1)
    assert dense.ids_only == (("c2",), ("c0",))
    assert of_kind(found, "short").ids_only == (("c1",), ())


def test_pairs_are_those_of_plain_python(dataset: Path) -> None:
    rng = random.Random(3)

    def drawn() -> dict[str, Captions]:
        return {
            f"c{i}": [
                (rng.choice(["dense", "style"]), rng.choice("abc"), rng.choice([None, 0.0, 1.0]))
                for _ in range(rng.randrange(5))
            ]
            for i in rng.sample(range(8), 7)
        }

    for _ in range(8):
        sides = (drawn(), drawn())
        found = compared(dataset, several(sides[0]), several(sides[1]))
        for kind in ("dense", "style"):
            counts = Counter[str]()
            for name in sides[0].keys() | sides[1].keys():
                first, second = ([one[1:] for one in side.get(name, []) if one[0] == kind] for side in sides)
                pairs: list[tuple[str, str]] = []
                for one in list(first):
                    met = next((other for other in second if other[1] == one[1]), None)
                    if met is not None:
                        pairs.append((one[0], met[0]))
                        first.remove(one)
                        second.remove(met)
                pairs += [(a[0], b[0]) for a, b in zip(first, second, strict=False)]
                left = len(first) - len(second)
                counts["only first"] += max(0, left)
                counts["only second"] += max(0, -left)
                for a, b in pairs:
                    counts["equal" if a == b else "changed"] += 1
            told = of_kind(found, kind)
            numbers = (told.num_equal, told.num_changed, told.num_only_first, told.num_only_second)
            assert numbers == tuple(counts[key] for key in ("equal", "changed", "only first", "only second")), sides


def test_what_is_only_in_one_is_listed(dataset: Path, tmp_path: Path) -> None:
    found = diff_captions(dataset, "captions-a", "captions-b", quiet=True)
    assert found.ids_only == (("c5",), ("c7",))
    assert of_kind(found, "dense").ids_only == (("c5",), ("c3", "c6"))
    write_diff_html(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert 'Clips only in captions-b: 1</summary><p class="ids">c7</p>' in page
    assert 'of this kind only in captions-b: 2</summary><p class="ids">c3, c6</p>' in page
    many = {f"<n{i:04d}>": [("dense", "t", None)] for i in range(MAX_IDS + 50)}
    found = compared(dataset, several({"c0": [("dense", "t", None)]} | many), several({"c0": [("dense", "t", None)]}))
    ids = tuple(f"<n{i:04d}>" for i in range(MAX_IDS))
    assert found.ids_only == of_kind(found, "dense").ids_only == (ids, ())
    write_diff_html(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert f"the first {MAX_IDS} by id" in page
    assert "&lt;n0099&gt;" in page
    assert "<n0" not in page


def test_captions_of_the_rows_with_their_steps(dataset: Path) -> None:
    rows = [
        empty_sample()
        | {"sample_id": f"s{i}", "dataset": "lvd2m", "subset": "ytb", "level": "sequence"}
        | {"clips": [clip(name, None) | {"index": 2 * n} for n, name in enumerate(names)]}
        | {"transitions": [{"from_index": 0, "to_index": 2, "captions": [caption("change_content", "a step", "up")]}]}
        for i, names in enumerate([["c0", "c1"], ["c1", "c2"], ["c3"]])
    ]
    rows[2]["transitions"] = []
    table = pa.Table.from_pylist(rows, schema=arrow_schema("annotations"))
    write_shard(dataset / "annotations/train-00000-of-00001.parquet", [table], table="annotations")
    texts = open_texts(dataset, "annotations")
    assert texts.clip_ids.to_pylist() == ["c0", "c1", "c2", "c3"]
    steps = pa.concat_tables(texts.batches())["transition_captions"].to_pylist()
    assert [[one["text"] for one in of or []] for of in steps] == [[], ["a step"], ["a step"], []]
    found = diff_captions(dataset, "annotations", "captions-b", quiet=True)
    step = of_kind(found, "change_content")
    assert (step.num_changed, step.num_only_first) == (1, 1)
    assert of_kind(found, "refined").num_only_first == 4


def test_many_texts_are_counted_as_plain_python_does() -> None:
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(["Dog", "cat,", "it's", "RUNS.", "élan", "3"], rng.integers(1, 9))) for _ in range(500)
    ]
    counts = TextCounts()
    for start in range(0, 500, 60):
        counts.add(pa.array([*texts[start : start + 60], None], pa.string()))
    expected = Counter(word.strip(".,").lower() for text in texts for word in text.split())
    assert counts.words == expected
    numbers = sorted(len(text.split()) for text in texts)
    found = counts.lengths()
    assert found is not None
    assert found.mean == pytest.approx(float(np.mean(numbers)))
    assert (found.num_texts, found.median) == (500, numbers[249])
    assert (found.p5, found.p95) == (numbers[24], numbers[474])
    assert TextCounts().lengths() is None


def test_words_gained_and_lost_are_the_typical_ones() -> None:
    first = Counter(the=1000, camera=100, rare=1, dog=50)
    second = Counter(the=1000, shot=100, dog=50, once=1)
    shifts = word_shifts(first, second)
    assert (shifts[0].word, shifts[-1].word) == ("shot", "camera")
    assert shifts[0].second_per_million == pytest.approx(100 / 1151 * 1e6)
    assert abs(next(one.z for one in shifts if one.word == "the")) < 0.1
    assert word_shifts(first, Counter()) == []


def test_the_page_shows_texts_as_texts(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    found = diff_captions(dataset, "captions-a", "captions-b", quiet=True)
    write_diff_html(found, path)
    page = path.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "a dog runs <ins>fast</ins>" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    write_diff_html(found, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_what_cannot_be_compared(dataset: Path) -> None:
    with pytest.raises(LayerError, match="no captions 'captions-c'; it has annotations, captions-a, captions-b"):
        diff_captions(dataset, "captions-a", "captions-c")
    with pytest.raises(ValueError, match="no kind of caption: nonsense"):
        diff_captions(dataset, "captions-a", "captions-b", kinds=["nonsense"])
    with pytest.raises(ValueError, match="max_examples=-1"):
        diff_captions(dataset, "captions-a", "captions-b", max_examples=-1)
    write_layer(dataset, "captions-b", {"train": [layer({"z": ("text", None)})]}, provenance={})
    with pytest.raises(LayerError, match="no clip in common"):
        diff_captions(dataset, "captions-a", "captions-b")
    write_layer(
        dataset, "captions-b", {"train": [layer({"c1": ("x", None)}), layer({"c1": ("y", None)})]}, provenance={}
    )
    with pytest.raises(LayerError, match="a clip has several rows"):
        diff_captions(dataset, "captions-a", "captions-b")


def test_command(dataset: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("filter")(cli_filter.filter_)
    app.command("diff")(cli_filter.diff)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, ["diff", str(dataset), *arguments], env={"COLUMNS": "200"}).output

    told = run("captions-a", "captions-b", "--html", str(tmp_path / "d.html"))
    assert "captions-a → captions-b" in told
    assert "too dark" in told
    assert (tmp_path / "d.html").is_file()
    found = json.loads(run("captions-a", "captions-b", "--kind", "dense", "--json"))
    assert found["kinds"][0]["num_changed"] == 2
    assert "there are short, dense" in run("captions-a", "captions-b", "--kind", "nonsense")
