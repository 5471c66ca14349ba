"""A build that is killed, repeated, overwritten, or run twice at once."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

import civid_loader as cl
from civid_loader.errors import AnnotationError, OutputError, TooManyRejectedError
from civid_loader.storage import read_table
from civid_loader.upstream import builder as upstream_builder

# A build in small chunks, slow enough that a kill finds it at work.
_SCRIPT = """
import sys, time
from civid_loader import materialize
from civid_loader.upstream import builder
builder.CHUNK_BYTES = 4000
run = materialize._run
def slowly(job):
    time.sleep(0.02)
    return run(job)
materialize._run = slowly
materialize.build("lvd2m", annotations=sys.argv[1], output=sys.argv[2], quiet=True)
"""


def _table(path: Path, num_rows: int, *, bad: int = 0) -> Path:
    lines = ["key,video_id,url,refined_caption,total score,span,video_time"]
    for i in range(num_rows):
        span = "\"['0:00:01.5','0:00:21.5']\"" if i >= bad else "soon"
        lines.append(
            f'v{i}.{i % 7}_0,v{i},https://www.youtube.com/watch?v=v{i},"A boat, number {i % 50}.",2{i}.5,{span},20.0'
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def _bytes_of(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_builder, "CHUNK_BYTES", 4000)


@pytest.mark.usefixtures("small_chunks")
def test_killed_builds_end_with_the_same_bytes(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb_600k_720p.csv", 1000)
    cl.build("lvd2m", annotations=table, output=tmp_path / "undisturbed", quiet=True)
    output = tmp_path / "killed"
    journal = output / ".incomplete" / "journal.jsonl"
    kills = 0
    for finished_before_kill in (0, 1, 5, 12):
        with subprocess.Popen([sys.executable, "-c", _SCRIPT, str(table), str(output)]) as process:
            while process.poll() is None:
                if journal.parent.is_dir() and _num_lines(journal) >= finished_before_kill:
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.005)
    assert kills == 4
    assert not (output / "manifest.json").exists()
    before = _num_lines(journal)
    report = cl.build("lvd2m", annotations=table, output=output, quiet=True)
    assert before >= 12
    assert report.num_rows == {"annotations": {"train": 1000}}
    assert _bytes_of(output) == _bytes_of(tmp_path / "undisturbed")


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.mark.usefixtures("small_chunks")
def test_finished_chunks_are_not_read_again(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 300, bad=100)
    with pytest.raises(TooManyRejectedError, match="100 of 300 rows"):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    work, made = tmp_path / "out" / ".incomplete", tmp_path / "out" / "annotations"
    written = {path.stat().st_mtime_ns for path in work.glob("*.parquet")}
    report = cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True, max_rejected=0.5)
    kept = {path.stat().st_mtime_ns for path in made.iterdir()}
    assert len(kept) > 3
    assert kept <= written
    assert report.rejected == {"span is not a list of two times": 100}
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected" / "rows.jsonl").read_text().splitlines()]
    assert [row["row_index"] for row in rejected] == list(range(100))
    assert rejected[0]["file"] == "ytb.csv"
    assert "soon" in rejected[0]["raw"]


def test_too_many_rejected_rows_stop_with_the_first_ten_reasons(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 300, bad=20)
    with pytest.raises(TooManyRejectedError) as error:
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    assert str(error.value).count("ytb.csv row") == 10
    assert "--max-rejected" in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.usefixtures("small_chunks")
def test_row_order_and_row_index_follow_the_file(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 500)
    cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True, num_proc=2)
    rows = read_table(tmp_path / "out").to_pylist()
    assert [row["provenance"]["row_index"] for row in rows] == list(range(500))
    assert [row["clips"][0]["clip_id"] for row in rows] == [f"v{i}.{i % 7}_0" for i in range(500)]


def test_same_build_again_does_nothing_and_another_one_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    first = cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    before = _bytes_of(tmp_path / "out")
    assert cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True) == first
    _table(table, 11)
    with pytest.raises(OutputError, match=r"differs in inputs.*--overwrite"):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    assert _bytes_of(tmp_path / "out") == before
    again = cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True, overwrite=True)
    assert again.num_rows == {"annotations": {"train": 11}}


def test_overwriting_leaves_nothing_of_the_old_build(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    cl.build("lvd2m", annotations=table, output=tmp_path / "fresh", quiet=True)
    many = _table(tmp_path / "hdvg.csv", 300, bad=2)
    cl.build("lvd2m", annotations=many, output=tmp_path / "out", quiet=True)
    cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True, overwrite=True)
    assert _bytes_of(tmp_path / "out") == _bytes_of(tmp_path / "fresh") | {}


def test_second_build_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    work = tmp_path / "out" / ".incomplete"
    work.mkdir(parents=True)
    with FileLock(work / "lock"), pytest.raises(OutputError, match="another process"):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)


def test_unfinished_build_of_other_files_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10, bad=9)
    with pytest.raises(TooManyRejectedError):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    _table(table, 12)
    with pytest.raises(OutputError, match="unfinished build"):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)


def test_output_must_not_hold_the_input(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    with pytest.raises(OutputError, match="holds the input"):
        cl.build("lvd2m", annotations=table, output=tmp_path, quiet=True)
    assert table.is_file()


def test_table_without_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ytb.csv").write_text("key,refined_caption\n")
    with pytest.raises(AnnotationError, match="no rows"):
        cl.build("lvd2m", annotations=tmp_path / "ytb.csv", output=tmp_path / "out", quiet=True)


@pytest.mark.parametrize("arguments", [{"num_proc": 0}, {"max_rejected": 1.5}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    with pytest.raises(ValueError, match="num_proc must be >= 1"):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", **arguments)  # type: ignore[arg-type]


def test_repeated_ids_count_as_rejected(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    with pytest.raises(TooManyRejectedError, match=r"(?s)1 of 11 rows.*its id is already that of another row"):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    report = cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True, max_rejected=0.1)
    assert report.num_rows == {"annotations": {"train": 10}}
    assert sum(report.rejected.values()) == 1


def test_rest_of_a_build_killed_at_its_very_end_is_cleared(tmp_path: Path) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    before = _bytes_of(tmp_path / "out")
    (tmp_path / "out" / ".incomplete").mkdir()
    (tmp_path / "out" / ".incomplete" / "journal.jsonl").write_text("")
    cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True)
    assert _bytes_of(tmp_path / "out") == before


@pytest.mark.parametrize("manifest", ['{"name": "my site"}', "[1]", "not JSON"])
def test_folder_with_somebody_elses_manifest_is_left_alone(tmp_path: Path, manifest: str) -> None:
    table = _table(tmp_path / "ytb.csv", 10)
    (tmp_path / "out" / "movies").mkdir(parents=True)
    (tmp_path / "out" / "movies" / "film.mkv").write_text("mine")
    (tmp_path / "out" / "manifest.json").write_text(manifest)
    with pytest.raises(OutputError, match="not empty"):
        cl.build("lvd2m", annotations=table, output=tmp_path / "out", quiet=True, overwrite=True)
    assert (tmp_path / "out" / "movies" / "film.mkv").read_text() == "mine"
    assert (tmp_path / "out" / "manifest.json").read_text() == manifest


def test_output_inside_the_annotations_is_refused(tmp_path: Path) -> None:
    _table(tmp_path / "ytb.csv", 10)
    with pytest.raises(OutputError, match="inside the annotations"):
        cl.build("lvd2m", annotations=tmp_path, output=tmp_path / "out", quiet=True)
