"""Filters keep the samples that plain Python would keep, say why the others went, and let nothing else run."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import typer
from datasets import Features, Value, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from civid_loader import builders, cli_filter, filtering
from civid_loader.card import write_card
from civid_loader.clip_table import ABOUT, ClipColumns, clip_table, word_counts
from civid_loader.errors import LayerError, OutputError, WhereError
from civid_loader.filter_outcomes import Scope, judge
from civid_loader.filtering import REJECTED, filter_dataset, filter_rows
from civid_loader.judging import columns_of
from civid_loader.layers import LAYER_KEY, Layer, join_layers, write_layer
from civid_loader.schema import CAPTION_LAYER_FEATURES, MEDIA_FEATURES, arrow_schema, arrow_schema_of, caption
from civid_loader.storage import read_manifest, read_table
from civid_loader.where import Evaluator, parse_where
from support.built import clip, write_dataset

SCORES = Features(
    {"clip_id": Value("string"), "flow": Value("float64"), "cuts": Value("int32"), "reason": Value("string")}
)
MADE = {"fingerprint": "0123456789abcdef", "stages": [{"stage": "optical_flow", "version": 1}]}
ROWS: dict[str, tuple[float | None, int | None, str | None]] = {
    "c1": (1.0, 0, None), "c2": (20.0, 0, None), "c3": (30.0, 1, None), "c4": (None, 0, "too dark"),
    "c5": (40.0, 0, None), "c6": (25.0, None, None), "c7": (50.0, 0, None),
}  # fmt: skip
SAMPLES = {"train": [["c1"], ["c2", "c3"], ["c4", "c5"], ["c1x", "c6"], ["c8"]], "test": [["c7"], ["c9", "c10"]]}
"""c1x, c8, c9 and c10 are not in the layer."""


def scores(rows: Mapping[str, Sequence[Any]]) -> pa.Table:
    named = [dict(zip(SCORES, (name, *values), strict=True)) for name, values in rows.items()]
    return pa.Table.from_pylist(named, schema=arrow_schema_of(SCORES))


def made_clip(name: str) -> dict[str, Any]:
    made = clip(name, f"videos:{name}" if name == "c2" else f"{name}.mp4")
    made["scores"] = [{"name": "total score", "unit": None, "annotator": "upstream:x", "value": float(len(name))}] * 2
    made["captions"].append(caption("dense", " ".join(["word"] * len(name)), "upstream:x"))
    return made


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """To be changed."""
    return made_dataset(tmp_path / "set")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read."""
    return made_dataset(tmp_path_factory.mktemp("shared") / "set")


def made_dataset(folder: Path) -> Path:
    clips = {split: [[made_clip(name) for name in names] for names in of] for split, of in SAMPLES.items()}
    root = write_dataset(folder, clips)
    write_card(root, builders.find("lvd2m"), {"annotations": {"train": 5, "test": 2}})
    of_train = {name: row for name, row in ROWS.items() if name != "c7"}
    rows = {"train": [scores(dict(list(of_train.items())[:3])), scores(dict(list(of_train.items())[3:]))]}
    write_layer(root, "scores-x", rows | {"test": [scores({"c7": ROWS["c7"]})]}, features=SCORES, provenance=MADE)
    return root


def ids_in(root: Path) -> list[str]:
    return list(read_table(root)["sample_id"].to_pylist())


def counts_of(dataset: Path, where: str, **options: Any) -> dict[str, int]:
    report = filter_dataset(dataset, where=where, output=None, quiet=True, **options)
    return {name: sum(of[name] for of in report.samples.values()) for name in ("kept", "unknown", "dropped")}


def test_samples_of_which_all_clips_fulfil_it(shared: Path, tmp_path: Path) -> None:
    report = filter_dataset(shared, where="flow >= 20 AND cuts == 0", output=tmp_path / "out", quiet=True)
    assert report.samples == {
        "train": {"kept": 0, "unknown": 3, "dropped": 2},
        "test": {"kept": 1, "unknown": 1, "dropped": 0},
    }
    assert report.dropped_by == {"flow >= 20": 1, "cuts = 0": 1}
    assert report.unknown_by == {"flow >= 20": 4, "cuts = 0": 3}
    assert report.unknown_reasons == {
        "scores-x: the layer has no row for the clip": 8,
        "scores-x: no value, and no reason given": 1,
        "scores-x: too dark": 1,
    }
    assert (report.num_clips, report.layers) == (1, {"scores-x": 1})
    lines = [json.loads(line) for line in (tmp_path / "out" / REJECTED).read_text().splitlines()]
    assert [(line["sample_id"], line["outcome"], line["reason"]) for line in lines[:3]] == [
        ("lvd2m/ytb/train-0", "dropped", "flow >= 20"),
        ("lvd2m/ytb/train-1", "dropped", "cuts = 0"),
        ("lvd2m/ytb/train-2", "unknown", "flow >= 20"),
    ]
    assert len(lines) == 6


def test_the_result_is_a_dataset(dataset: Path, tmp_path: Path) -> None:
    captions: list[dict[str, Any]] = [
        {"clip_id": "c2", "captions": [], "transition_captions": None, "reason": "too dark"}
    ]
    table = pa.Table.from_pylist(captions, schema=arrow_schema_of(CAPTION_LAYER_FEATURES))
    write_layer(dataset, "captions-n", {"train": [table]}, provenance=MADE)
    out = tmp_path / "out"
    report = filter_dataset(dataset, where="flow > 10", scope="any", output=str(out), quiet=True)
    kept = {"train": ["train-1", "train-2", "train-3"], "test": ["test-0"]}
    for split, names in kept.items():
        loaded = load_dataset(str(out), split=split, cache_dir=str(tmp_path / "cache"))
        assert loaded["sample_id"][:] == [f"lvd2m/ytb/{name}" for name in names]
    whole = read_table(dataset).filter(pc.is_in(read_table(dataset)["sample_id"], pa.array(ids_in(out))))
    assert read_table(out).equals(whole)
    layer = load_dataset(str(out), "scores-x", split="train", cache_dir=str(tmp_path / "cache"))
    assert layer["clip_id"][:] == ["c2", "c3", "c4", "c5", "c6"]
    assert layer.features == SCORES
    assert read_table(out, "captions/n").num_rows == 1
    metadata = read_table(out, "scores/x").schema.metadata
    assert json.loads(metadata[LAYER_KEY]) == MADE | {"name": "scores-x"}
    manifest = read_manifest(out)
    assert manifest["parent"]["folder"] == "set"
    assert manifest["parent"]["where"] == "flow > 10"
    assert manifest["parent"]["num_rows"] == read_manifest(dataset)["num_rows"]
    assert manifest["num_rows"]["annotations"] == {"train": 3, "test": 1}
    assert manifest["counts"]["clips"] == {"trimmed clip files": 7}
    assert str(tmp_path) not in json.dumps(manifest)
    assert report.num_videos_of_parent == 1
    assert "4 of 7 samples of `set`" in (out / "README.md").read_text()
    assert not (out / ".incomplete").exists()
    again = filter_dataset(out, where="cuts = 1", scope="any", output=tmp_path / "twice", quiet=True)
    assert again.samples["train"] == {"kept": 1, "unknown": 1, "dropped": 1}


def test_the_same_bytes_again_and_overwriting(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        return {
            path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
        }

    out = tmp_path / "out"
    first = filter_dataset(dataset, where="flow > 10", output=out, quiet=True)
    expected = contents(out)
    assert filter_dataset(dataset, where="flow > 10", output=out, quiet=True) == first
    for num_moved in (0, 1, 4):  # killed while moving
        moves = iter(range(num_moved))

        def move(old: Path, new: Path, moves: Iterator[int] = moves) -> None:
            if next(moves, None) is None:
                raise KeyboardInterrupt
            old.rename(new)

        with monkeypatch.context() as patch:
            patch.setattr(filtering, "replace", move)
            with pytest.raises(KeyboardInterrupt):
                filter_dataset(dataset, where="flow > 10", output=out, overwrite=True, quiet=True)
        assert not (out / "manifest.json").exists()
        assert filter_dataset(dataset, where="flow > 10", output=out, quiet=True) == first
        assert contents(out) == expected
    with pytest.raises(OutputError, match="differs in parent"):
        filter_dataset(dataset, where="flow > 20", output=out, quiet=True)
    with pytest.raises(WhereError, match="keeps none of the samples"):
        filter_dataset(dataset, where="flow > 200", output=out, overwrite=True, quiet=True)
    with pytest.raises(WhereError, match="keeps none of the samples"):
        filter_dataset(dataset, where="flow > 200", output=tmp_path / "none", quiet=True)
    assert contents(out) == expected
    assert not (tmp_path / "none").exists()
    filter_dataset(dataset, where="num_clips > 0", layers=[], output=out, overwrite=True, quiet=True)
    assert not (out / "scores").exists()
    for wrong in (dataset / "inside", tmp_path, Path(__file__).parent):
        with pytest.raises(OutputError):
            filter_dataset(dataset, where="flow > 10", output=wrong, overwrite=True, quiet=True)


def test_where_bytes_lie_is_not_copied(dataset: Path, tmp_path: Path) -> None:
    rows = [
        {"clip_id": name, "status": "ok", "width": 640, "shard": "a.tar", "byte_offset": 5} for name in ("c7", "c2")
    ]
    table = pa.Table.from_pylist(rows, schema=arrow_schema("media"))
    write_layer(dataset, "media", {"test": [table]}, features=MEDIA_FEATURES, provenance={})
    filter_dataset(dataset, where="media.width > 600 or flow > 10", output=tmp_path / "out", quiet=True)
    (row,) = read_table(tmp_path / "out", "media").to_pylist()
    assert row == dict.fromkeys(MEDIA_FEATURES) | {"clip_id": "c7", "status": "ok", "width": 640}


def test_what_is_unknown_can_be_kept(shared: Path, tmp_path: Path) -> None:
    where = "flow >= 20 and cuts = 0"
    filter_dataset(shared, where=where, output=tmp_path / "out", unknown="keep", quiet=True)
    assert [name[10:] for name in ids_in(tmp_path / "out")] == ["train-2", "train-3", "train-4", "test-0", "test-1"]
    assert counts_of(shared, where) == counts_of(shared, where, unknown="keep")
    with pytest.raises(ValueError, match="unknown='maybe': it is 'drop' or 'keep'"):
        counts_of(shared, where, unknown="maybe")


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("upstream_scores['total score'] = 2 and num_clips = 1", 3),
        ("words['dense'] >= 3", 0),
        ("words['dense'] < 3 and words['refined'] == 2", 5),
        ("words['short'] > 0", 0),
        ("'odd' in flags", 2),
        ("len(flags) == 0 and clip_index < 9", 5),
        ("source.platform = 'youtube' and not video like 'videos:%'", 6),
        ("captions[1].text = 'About c8.'", 1),
        ('"scores-x" is null', 2),
        ('"SCORES-X".FLOW >= 1 and Flow <= 1', 1),
        ("dataset = 'lvd2m' and level in ('clip') and hierarchy is null", 7),
        ("list_filter(flags, lambda flag: flag <> 'odd') = [] and trimmed", 7),
        ("case when clip_id = 'c9' then true else false end or clip_id = 'c10'", 1),
        ("regexp_matches(clip_id, '^c[12]$') -- a comment", 1),
        ("true", 7),
    ],
)
def test_names_of_samples_clips_and_layers(shared: Path, where: str, kept: int) -> None:
    assert counts_of(shared, where)["kept"] == kept


@pytest.mark.parametrize(
    "where",
    [
        "1); COPY (SELECT 1) TO 'x.csv'; --", "flow > 1; COPY (SELECT 1) TO 'x.csv'", "true; DROP TABLE t",
        "flow > (SELECT 1)", "exists (FROM read_csv('/etc/passwd'))", "flow in (SELECT 1)", "read_csv('/etc/passwd')",
        "flow > ALL (FROM range(3))", "PRAGMA version", "ATTACH 'x.db'", "SET threads = 3", "true UNION SELECT true",
        "true ORDER BY flow", "true LIMIT 1", "true GROUP BY flow", "true QUALIFY true", "sum(flow) > 1",
        "row_number() OVER () > 1", "flow > $1", "flow > ?", "COLUMNS(*) > 1", "#1 > 1", "random() > 0.5",
        "getvariable('x') = 1", "current_setting('threads') = 1", "repeat('x', 1000000000) = ''",
        "now() > '2020-01-01'",
        "getenv('HOME') = ''", "", "  ", "flow >", "flow > 1\0", "x" * 20_000, "read_text('/etc/passwd') = ''",
        "query('SELECT 1') = 1", "flow > 1 USING SAMPLE 3", "list_aggregate([1], 'sum') = 1",
    ],
)  # fmt: skip
def test_nothing_but_an_expression_is_let_through(
    shared: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(WhereError):
        counts_of(shared, where)
    assert sorted(os.listdir(tmp_path)) == before


def test_the_engine_itself_reaches_nothing() -> None:
    where = parse_where("true")
    with Evaluator(where) as evaluate:
        for query in ("FROM read_csv('/etc/passwd')", "COPY (SELECT 1) TO 'x.csv'", "INSTALL httpfs", "ATTACH 'x.db'"):
            with pytest.raises(Exception, match=r"(?i)disabled|permission"):
                evaluate._connection.execute(query)
        with pytest.raises(Exception, match="locked"):
            evaluate._connection.execute("SET enable_external_access = true")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("flwo > 1", "no column 'flwo'. Did you mean flow"),
        ("scores-x.flow > 1", 'Did you mean "scores-x"'),
        ('"scores-x".flo > 1', "no column 'flo' in scores-x; it has flow, cuts, reason"),
        ("reason is null", 'write "scores-x".reason or "scores-y".reason'),
        ("flow", "neither true nor false"),
        ("clip_id::int > 1", "Could not convert string 'c1'"),
        ("flow > 'a lot'", "Could not convert"),
        ("lenght(video) > 1", r"lenght\(\) is not allowed in a condition; these are: abs"),
    ],
)
def test_errors_say_what_to_write(dataset: Path, where: str, message: str) -> None:
    only_reason = Features({"clip_id": Value("string"), "reason": Value("string")})
    table = pa.table({"clip_id": ["c1"], "reason": ["dark"]}, schema=arrow_schema_of(only_reason))
    write_layer(dataset, "scores-y", {"train": [table]}, features=only_reason, provenance=MADE)
    with pytest.raises(WhereError, match=message):
        counts_of(dataset, where)


def test_layers_that_are_not_there_or_of_other_clips(dataset: Path) -> None:
    with pytest.raises(LayerError, match="no layer scores-z; it has scores-x"):
        counts_of(dataset, "true", layers=["scores-z"])
    with pytest.raises(WhereError, match="no column 'flow'"):
        counts_of(dataset, "flow > 1", layers=[])
    write_layer(dataset, "scores-x", {"train": [scores({"z": (1.0, 1, None)})]}, features=SCORES, provenance=MADE)
    with pytest.raises(LayerError, match="knows none of the 11 clips"):
        counts_of(dataset, "flow > 1")


def test_columns_are_listed_as_they_are_written(shared: Path) -> None:
    columns = columns_of(shared)
    assert columns["flow"] == "double"
    assert columns["words"].startswith("map<string")
    assert list(columns)[:2] == ["sample_id", "dataset"]
    assert ClipColumns(layers={"media": pa.struct({"packet_index": pa.binary()})}).types().keys() == ABOUT.keys()


def joined(dataset: Path) -> datasets.Dataset:
    layer = Layer(name="scores-x", rows=read_table(dataset, "scores/x"))
    return datasets.Dataset(join_layers(read_table(dataset), [layer]))


def test_rows_with_layers_joined(shared: Path) -> None:
    ds = joined(shared)
    for where in ("flow > 10", "cuts = 0 or words['dense'] = 3", '"scores-x" is null'):
        for unknown in ("drop", "keep"):
            for scope in ("all", "any"):
                report = filter_dataset(shared, where=where, output=None, scope=scope, unknown=unknown, quiet=True)
                counts = [of["kept"] + (unknown == "keep") * of["unknown"] for of in report.samples.values()]
                assert len(filter_rows(ds, where, scope=scope, unknown=unknown)) == sum(counts), where
    shuffled = ds.select([6, 5, 2, 1]).with_format("numpy")
    kept = filter_rows(shuffled, "flow > 10", scope="any")
    assert [name[10:] for name in kept["sample_id"]] == ["test-0", "train-2", "train-1"]
    with pytest.raises(WhereError, match="the rows have no column flags"):
        filter_rows(ds.remove_columns("flags"), "len(flags) = 0")
    assert len(filter_rows(ds.select([]), "flow > 10")) == 0
    with pytest.raises(TypeError, match="one split of it, not DatasetDict"):
        filter_rows(datasets.DatasetDict(train=ds), "flow > 10")


VALUES = st.none() | st.integers(-3, 3)
TESTS: dict[str, Callable[[int | None, int | None], bool | None]] = {
    "a < b": lambda a, b: None if a is None or b is None else a < b,
    "a = 1": lambda a, b: None if a is None else a == 1,
    "b is null": lambda a, b: b is None,
    "not a >= 2": lambda a, b: None if a is None else not a >= 2,
    "(a > 0 or b > 0)": lambda a, b: either(None if a is None else a > 0, None if b is None else b > 0),
}


def either(a: bool | None, b: bool | None) -> bool | None:
    return True if a or b else (None if a is None or b is None else False)


def both(truths: Sequence[bool | None]) -> bool | None:
    return False if False in truths else (None if None in truths else True)


@settings(max_examples=30, deadline=None)
@given(
    samples=st.lists(st.lists(st.tuples(VALUES, VALUES), max_size=3), max_size=8),
    tests=st.lists(st.sampled_from(sorted(TESTS)), min_size=1, max_size=3),
    scope=st.sampled_from(["all", "any"]),
)
def test_outcomes_are_those_of_plain_python(
    samples: list[list[tuple[int | None, int | None]]], tests: list[str], scope: Scope
) -> None:
    struct = pa.struct({"a": pa.int64(), "b": pa.int64()})
    pairs = [{"a": a, "b": b} for pairs in samples for a, b in pairs]
    clips = pa.array([[{"clip_id": "c"} for _ in of] for of in samples], pa.list_(pa.struct({"clip_id": pa.string()})))
    where = parse_where(" and ".join(tests))
    columns = ClipColumns(layers={"scores-x": struct}).find(where.names)
    table = clip_table(pa.table({"clips": clips}), columns, {"scores-x": pa.array(pairs, struct)})
    with Evaluator(where) as evaluate:
        outcomes = judge(evaluate(table), pc.cumulative_sum(lengths(samples)).to_numpy(), scope=scope)
    expected = []
    for of in samples:
        truths = [both([TESTS[test](a, b) for test in tests]) for a, b in of]
        none_of = {True: False, False: True, None: None}
        whole = both(truths) if scope == "all" else none_of[both([none_of[one] for one in truths])]
        expected.append({False: 0, None: 1, True: 2}[whole])
    assert outcomes.samples.tolist() == expected
    assert (
        outcomes.because.any(axis=0) == [value < 2 and len(of) > 0 for value, of in zip(expected, samples, strict=True)]
    ).all()


def lengths(samples: list[Any]) -> pa.Array:
    return pa.array([0, *map(len, samples)], pa.int64())


def test_words_of_the_first_caption_of_a_kind() -> None:
    kind = arrow_schema("annotations").field("captions").type
    lists = [[caption("dense", " two  words ", "a"), caption("short", "x", "a"), caption("dense", "y", "b")], None, []]
    assert word_counts(pa.array(lists, kind)).to_pylist() == [[("dense", 2), ("short", 1)], None, []]


def test_command(shared: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("filter")(cli_filter.filter_)
    app.command("diff")(cli_filter.diff)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["filter", str(shared), *arguments], env={"COLUMNS": "200"})
        assert result.exit_code == (2 if "error" in result.output.lower() else 0), result.output
        return result.output

    assert "words['dense'] >= 20" in run()
    assert json.loads(run("--json"))["flow"] == "double"
    assert "Nothing was written" in run("--where", "flow > 10", "--dry-run")
    assert "not both" in run("--where", "flow > 10")
    out = str(tmp_path / "out")
    told = run("--where", "flow > 10", "--output", out, "--scope", "any", "--layer", "scores-x")
    assert "scores-x: the layer has no row for the clip" in told
    assert "1 clips point to videos inside" in told
    found = json.loads(run("--where", "flow > 10", "--output", out, "--scope", "any", "--layer", "scores-x", "--json"))
    assert found["samples"]["test"] == {"kept": 1, "unknown": 1, "dropped": 0}
