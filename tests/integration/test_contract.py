"""What holds for every dataset there is a builder for; a new one is found and checked by itself."""

import ast
import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from datasets import DatasetDict, load_dataset

from civid_loader import builders
from civid_loader.demo.release import Release, make_release
from civid_loader.errors import AnnotationError
from civid_loader.materialize import BuildReport, build
from civid_loader.schema import SAMPLE_FEATURES, TABLES, check_table
from civid_loader.storage import read_table

NAMES: Final = builders.names()
PATCHED: Final = {"open", "os", "pathlib", "Path", "glob", "gzip", "pandas", "scipy", "xml"}
"""What `datasets` replaces in every module that defines a builder; of numpy and pyarrow, the two below."""
PATCHED_ATTRIBUTES: Final = {("np", "load"), ("pa", "parquet")}

FIFTH: Final = '''
"""A dataset somebody dropped in."""

from civid_loader.upstream.builder import UpstreamBuilder
from civid_loader.upstream.records import Terms


class Fifth(UpstreamBuilder):
    """Nothing yet."""

    TITLE = "Fifth"
    TERMS = Terms(license="x", text="x")
    NEEDS = (frozenset({"fifth_key"}),)
'''


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    return make_release(tmp_path_factory.mktemp("release"), render=False)


@pytest.fixture(scope="module")
def built(releases: dict[str, Release], tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuildReport]:
    """Every dataset, built once."""
    root = tmp_path_factory.mktemp("built")
    return {name: _build(releases[name], root / name) for name in NAMES}


def _build(release: Release, output: Path, **options: Any) -> BuildReport:
    return build(
        release.name, annotations=release.annotations, videos=release.videos, output=output, quiet=True, **options
    )


def _ordinary(release: Release, cache: Path) -> Any:
    """The builder as stock `datasets` runs it."""
    annotations = [str(path) for path in release.annotations]
    return builders.find(release.name)(annotations=annotations, videos=str(release.videos), cache_dir=str(cache))


def _rows(data: DatasetDict) -> dict[str, list[dict[str, Any]]]:
    return {split: rows.to_list() for split, rows in data.items()}


def _built_rows(report: BuildReport) -> dict[str, list[dict[str, Any]]]:
    return {split: read_table(Path(report.output), split=split).to_pylist() for split in report.num_rows["annotations"]}


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_made_up_release_has_every_dataset(releases: dict[str, Release]) -> None:
    assert sorted(releases) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_rows_pass_the_schema_and_ids_are_unique(built: dict[str, BuildReport], name: str) -> None:
    report = built[name]
    assert report.rejected == {}
    for table in report.num_rows:
        check_table(read_table(Path(report.output), table), table)
    rows = [row for split in _built_rows(report).values() for row in split]
    assert rows
    assert len({row["sample_id"] for row in rows}) == len(rows)
    clip_ids = [clip["clip_id"] for row in rows for clip in row["clips"]]
    assert len(set(clip_ids)) == len(clip_ids)
    assert {row["dataset"] for row in rows} == {name}
    assert {row["subset"] for row in rows} <= set(builders.find(name).SUBSETS)
    assert {row["provenance"]["license"] for row in rows} == {builders.find(name).TERMS.license}
    assert all([clip["index"] for clip in row["clips"]] == list(range(len(row["clips"]))) for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_several_processes_write_the_same_bytes(
    built: dict[str, BuildReport], releases: dict[str, Release], tmp_path: Path, name: str
) -> None:
    again = _build(releases[name], tmp_path / "two", num_proc=2)
    assert _files(Path(again.output)) == _files(Path(built[name].output))


@pytest.mark.parametrize("name", NAMES)
def test_stock_datasets_loads_every_table(built: dict[str, BuildReport], tmp_path: Path, name: str) -> None:
    report = built[name]
    for table in report.num_rows:
        config = "default" if table == "annotations" else table
        loaded = load_dataset(report.output, config, cache_dir=str(tmp_path))
        assert {split: len(rows) for split, rows in loaded.items()} == report.num_rows[table]
        assert all(rows.features == TABLES[table] for rows in loaded.values())
    assert _rows(load_dataset(report.output, cache_dir=str(tmp_path))) == _built_rows(report)


# `datasets` forks its workers; from Python 3.12 on that warns in a process that has threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_proc", [None, 2])
def test_ordinary_builder_gives_the_same_rows(
    built: dict[str, BuildReport], releases: dict[str, Release], tmp_path: Path, name: str, num_proc: int | None
) -> None:
    builder = _ordinary(releases[name], tmp_path)
    builder.download_and_prepare(num_proc=num_proc)
    data = builder.as_dataset()
    assert all(rows.features == SAMPLE_FEATURES for rows in data.values())
    assert _rows(data) == _built_rows(built[name])
    assert _files(Path(_build(releases[name], tmp_path / "after").output)) == _files(Path(built[name].output))


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_builder_writes_parquet(
    built: dict[str, BuildReport], releases: dict[str, Release], tmp_path: Path, name: str
) -> None:
    _ordinary(releases[name], tmp_path / "cache").download_and_prepare(str(tmp_path / "out"), file_format="parquet")
    files = {split: str(tmp_path / "out" / f"*-{split}*.parquet") for split in built[name].num_rows["annotations"]}
    assert _rows(load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))) == _built_rows(built[name])


@pytest.mark.parametrize("name", NAMES)
def test_unknown_subset_is_refused_with_those_there_are(
    releases: dict[str, Release], tmp_path: Path, name: str
) -> None:
    first = builders.find(name).SUBSETS[0]
    with pytest.raises(AnnotationError, match=f"no subset '{first}x'; it has .*Did you mean '{first}'"):
        _build(releases[name], tmp_path / "out", subset=f"{first}x")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_files_of_another_dataset_are_refused(releases: dict[str, Release], tmp_path: Path, name: str) -> None:
    for other in NAMES:
        if other != name:
            with pytest.raises(AnnotationError):
                build(name, annotations=releases[other].annotations, output=tmp_path / other, quiet=True)


@pytest.mark.parametrize("name", NAMES)
def test_builder_is_described(name: str) -> None:
    builder = builders.find(name)
    assert builder.__doc__
    assert builder.TITLE
    assert builder.HOMEPAGE.startswith("https://")
    assert builder.TERMS.text
    assert len(set(builder.FIELDS)) == len(builder.FIELDS)
    assert all(builder.reads(key) for needed in builder.NEEDS for key in needed)


@pytest.mark.parametrize("name", [*(f"builders.{name}" for name in NAMES), "upstream.builder"])
def test_builder_modules_use_nothing_that_datasets_replaces(name: str) -> None:
    tree = ast.parse(inspect.getsource(import_module(f"civid_loader.{name}")))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    used |= {part for node in imported for alias in node.names for part in (alias.name, alias.asname or alias.name)}
    attributes = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert not used & PATCHED
    assert not attributes & PATCHED_ATTRIBUTES


@pytest.mark.parametrize(
    ("wrong", "meant"), [("lvd-2m", "lvd2m"), ("LVD_2M", "lvd2m"), ("ci-vid", "civid"), ("movie_bench", "moviebench")]
)
def test_unknown_dataset_is_refused_with_the_nearest(tmp_path: Path, wrong: str, meant: str) -> None:
    message = f"no dataset '{wrong}'; there is {', '.join(NAMES)}. Did you mean '{meant}'?"
    with pytest.raises(AnnotationError) as error:
        build(wrong, annotations=tmp_path, output=tmp_path / "out")
    assert str(error.value) == message


def test_a_file_dropped_into_the_folder_is_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fifth.py").write_text(FIFTH, encoding="utf-8")
    monkeypatch.setattr(builders, "__path__", [*builders.__path__, str(tmp_path)])
    try:
        assert builders.names() == sorted([*NAMES, "fifth"])
        assert builders.find("fifth").TITLE == "Fifth"
        assert builders.recognize(frozenset({"fifth_key"})) == ["fifth"]
    finally:
        sys.modules.pop("civid_loader.builders.fifth", None)
        vars(builders).pop("fifth", None)
