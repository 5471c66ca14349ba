"""A run is refused before it does harm, ends when its input is wrong, and knows the same run by other paths."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from civid_loader.cli import app
from civid_loader.errors import OutputError, StageError, TooManyFailedError, VideoRootError
from civid_loader.processing import run
from civid_loader.processing.chunks import plan_chunks
from civid_loader.processing.planner import decode_clip
from civid_loader.processing.run import process
from civid_loader.processing.run_checks import MAX_FAILED_FIRST
from civid_loader.processing.work import StageSpec
from civid_loader.storage import read_manifest, read_table, write_shard
from support.built import clip, write_dataset
from support.media import write_video

COLOUR = [StageSpec(name="colour", params={}, weights={})]
SETTINGS: dict[str, Any] = {"layer": "scores-x", "num_proc": 0, "quiet": True}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(8):
        write_video(folder / f"{i}.mp4", num_frames=12, size=(48, 64))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six samples: of 1, 3 and 1 clips in train, of 1 clip in test; each clip has a video of its own."""
    train = [[clip("c0", "0.mp4")], [clip(f"c{i}", f"{i}.mp4") for i in (1, 2, 3)], [clip("c4", "4.mp4")]]
    return write_dataset(tmp_path / "set", {"train": train, "test": [[clip(f"c{i}", f"{i}.mp4")] for i in (5, 6, 7)]})


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("civid_loader.processing.chunks.CHUNK_CLIPS", 2)


def ids(root: Path, layer: str) -> list[str]:
    return [str(one) for one in read_table(root, layer)["clip_id"].to_pylist()]


@pytest.mark.parametrize(("limit", "num_clips"), [(1, 1), (2, 4), (4, 4), (5, 5), (6, 6), (99, 8)])
def test_a_limit_counts_clips_and_takes_whole_samples_in_order(root: Path, limit: int, num_clips: int) -> None:
    chunks = plan_chunks(root, limit=limit)
    assert chunks.num_clips == sum(chunk.num_clips for chunk in chunks.listed) == num_clips


def test_a_few_clips_never_take_the_place_of_all(root: Path, videos: Path) -> None:
    process(root, COLOUR, videos=videos, **SETTINGS)
    with pytest.raises(OutputError, match=r"scores-x has 8 clips.* leave 4.*--layer scores-x-few, or.* --overwrite"):
        process(root, COLOUR, videos=videos, limit=2, **SETTINGS)
    assert len(ids(root, "scores/x")) == 8
    assert process(root, COLOUR, videos=videos, limit=99, **SETTINGS).num_chunks_run == 0, "it is all of them"
    process(root, COLOUR, videos=videos, limit=2, overwrite=True, **SETTINGS)
    assert ids(root, "scores/x") == ["c0", "c1", "c2", "c3"]
    process(root, COLOUR, videos=videos, **SETTINGS)
    assert len(ids(root, "scores/x")) == 8


def test_the_command_gives_a_few_clips_a_layer_of_their_own(root: Path, videos: Path) -> None:
    command = ["process", str(root), "--stage", "colour", "--videos", str(videos), "--num-proc", "0", "--json"]
    for more in ([], ["--limit", "2"]):
        result = CliRunner().invoke(app, [*command, *more])
        assert result.exit_code == 0, result.output
    assert len(ids(root, "scores/colour")) == 8
    assert len(ids(root, "scores/colour-limit2")) == 4


def test_paths_and_versions_are_no_identity(
    root: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(videos, elsewhere := tmp_path / "elsewhere")

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run, "seal", full)
        with pytest.raises(OSError, match="no space"):
            process(root, COLOUR, videos=videos, **SETTINGS)
    monkeypatch.setattr("av.__version__", "99")
    assert process(root, COLOUR, videos=elsewhere, **SETTINGS).num_chunks_run == 0, "all chunks were finished"
    monkeypatch.setattr("torch.__version__", "99")
    assert process(root, COLOUR, videos=videos, **SETTINGS).num_chunks_run == 0, "the layer was"
    assert str(tmp_path) not in json.dumps(read_manifest(root))


def test_what_made_a_layer_is_told(root: Path, videos: Path) -> None:
    process(root, COLOUR, videos=videos, **SETTINGS)
    told = read_manifest(root)["layers"]["scores-x"]
    made = told["made_with"]
    for name in (
        "civid_loader",
        "python",
        "av",
        "torch",
        "torchvision",
        "transformers",
        "opencv",
        "scenedetect",
        "numpy",
    ):
        assert made[name][0].isdigit(), name
    assert made["ffmpeg"]["libavcodec"].count(".") == 2
    assert (made["device"], made["gpu"], made["decoder"]) == ("cpu", None, "pyav")
    assert made["created_utc"].startswith("20")
    assert made["created_utc"].endswith("+00:00")
    assert told["stages"][0]["requests"]["frames"]["mode"] == "fps"
    assert told["source"] == {
        "dataset": "lvd2m", "built_with": "0", "clips": plan_chunks(root).fingerprint, "num_clips": 8
    }  # fmt: skip
    assert "versions" not in told["made_by"]
    (path, *_) = (root / "scores" / "x").glob("*.parquet")
    assert json.loads(pq.read_schema(path).metadata[b"civid_loader.layer"]) == told


def test_texts_and_lists_are_counted_in_the_summary(root: Path, videos: Path) -> None:
    (videos / "7.mp4").write_bytes((videos / "0.mp4").read_bytes())
    command = ["process", str(root), "--videos", str(videos), "--num-proc", "0", "--layer", "scores-x"]
    command += ["--stage", "duplicates", "--stage", 'scene_cuts:{"fps": null}']
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "200"}).stdout
    lines = {line.split("│")[1].strip(): line.split("│")[2:4] for line in shown.splitlines() if line.count("│") > 3}
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    num_duplicates = found["filled"]["duplicate_of"]
    assert 1 <= num_duplicates < 8
    assert [int(one) for one in lines["duplicate_of"]] == [num_duplicates, 8 - num_duplicates]
    assert [int(one) for one in lines["cut_count"]] == [8, 0]
    assert found["filled"]["cut_times"] == 0, "empty lists"
    assert not {"clip_id", "reason"} & found["filled"].keys()


def test_a_device_that_is_not_there(root: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    for num_proc in (0, 2):
        with pytest.raises(StageError, match=r"device cuda: torch .* sees no GPU here, with CUDA_VISIBLE_DEVICES='7'"):
            process(root, COLOUR, videos=videos, device="cuda", **SETTINGS | {"num_proc": num_proc})
    with pytest.raises(StageError, match="engine ray ends workers for their memory by rules of its own"):
        process(root, COLOUR, videos=videos, engine="ray", max_memory_bytes=1 << 30, **SETTINGS)
    assert not (root / ".incomplete-scores-x").exists()


def test_a_root_that_is_not_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoRootError, match=r"the video root '.*none' is not a folder"):
        process(root, COLOUR, videos=tmp_path / "none", **SETTINGS)
    assert not (root / ".incomplete-scores-x").exists()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    samples = [[clip(f"c{i}", f"{i % 8}.mp4")] for i in range(MAX_FAILED_FIRST + 10)]
    return write_dataset(tmp_path / "many", {"train": samples})


@pytest.mark.parametrize("num_proc", [0, 2])
def test_a_run_of_which_nothing_comes_ends_early(many: Path, videos: Path, tmp_path: Path, num_proc: int) -> None:
    (wrong := tmp_path / "wrong").mkdir()
    settings = SETTINGS | {"num_proc": num_proc}
    message = r"the first 50 clips all failed.*VideoNotFoundError: no file '.\.mp4'.*the root of the videos right"
    with pytest.raises(TooManyFailedError, match=message):
        process(many, COLOUR, videos=wrong, **settings)
    assert "layers" not in read_manifest(many)
    report = process(many, COLOUR, videos=videos, **settings)
    assert (report.num_clips, report.num_failed) == (60, 0)


def test_a_good_clip_first_and_bad_ones_are_rows(many: Path, videos: Path, tmp_path: Path) -> None:
    (some := tmp_path / "some").mkdir()
    shutil.copy(videos / "0.mp4", some)
    report = process(many, COLOUR, videos=some, **SETTINGS)
    assert (report.num_clips, report.num_failed) == (60, 52)
    # Tried again, it is known that some were good.
    assert process(many, COLOUR, videos=some, retry_errors=True, **SETTINGS).num_failed == 52


def test_clips_without_a_pointer_are_no_wrong_root(tmp_path: Path, videos: Path) -> None:
    samples = [[clip(f"c{i}", None if i < 60 else "1.mp4")] for i in range(62)]
    report = process(write_dataset(tmp_path / "set", {"train": samples}), COLOUR, videos=videos, **SETTINGS)
    assert (report.num_clips, report.num_failed) == (62, 60)


def test_the_command_says_that_every_clip_failed(root: Path, videos: Path, tmp_path: Path) -> None:
    (wrong := tmp_path / "wrong").mkdir()
    command = ["process", str(root), "--stage", "colour", "--num-proc", "0", "--json"]
    result = CliRunner().invoke(app, [*command, "--videos", str(wrong)])
    assert result.exit_code == 1
    assert "something went wrong with every clip; see column reason of layer scores-colour" in result.stderr
    result = CliRunner().invoke(app, [*command, "--videos", str(videos), "--retry-errors"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["num_failed"] == 0


def test_an_unfinished_run_stands_in_nobodys_way_until_it_has_a_chunk(
    root: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [StageSpec(name="colour", params={"fps": 1.0}, weights={})]
    written: list[int] = []

    def stop(path: Path, *arguments: Any, **settings: Any) -> int:
        if len(written) == most:
            raise KeyboardInterrupt
        written.append(0)
        return write_shard(path, *arguments, **settings)

    for most in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(run, "write_shard", stop)
            with pytest.raises(KeyboardInterrupt):
                process(root, COLOUR, videos=videos, **SETTINGS)
        if most == 0:
            process(root, other, videos=videos, **SETTINGS)
    with pytest.raises(OutputError, match=r"differs in fingerprint, stages.*or begin anew with --overwrite"):
        process(root, other, videos=videos, **SETTINGS | {"layer": "scores-x"}, retry_errors=True)
    report = process(root, other, videos=videos, overwrite=True, **SETTINGS)
    assert report.num_chunks_run == len(plan_chunks(root).listed)


def test_what_cannot_be_computed_says_so_and_is_not_tried_again(
    root: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(videos, own := tmp_path / "own")
    write_video(own / "1.mp4", num_frames=1, size=(48, 64))
    (own / "2.mp4").write_bytes(b"no video" * 99)
    names = ("scene_cuts", "colour")
    specs = [StageSpec(name=name, params={"fps": 2.0}, weights={}) for name in names]
    process(root, specs, videos=own, **SETTINGS)
    rows = {row["clip_id"]: row for row in read_table(root, "scores/x").to_pylist()}
    assert rows["c1"]["reason"] == "not computable: scene_cuts: one frame is looked at; a cut is between two"
    assert rows["c1"]["cut_count"] is None
    assert rows["c1"]["luma_mean"] is not None, "what another stage found stays"
    decoded: list[str] = []

    def counted(row: Any, *arguments: Any, **settings: Any) -> Any:
        decoded.append(row["clip_id"])
        return decode_clip(row, *arguments, **settings)

    monkeypatch.setattr("civid_loader.processing.work.decode_clip", counted)
    process(root, specs, videos=own, retry_errors=True, **SETTINGS)
    assert decoded == ["c2"]
