"""The made-up release has upstream's shapes and quirks, read here from the raw files."""

import ast
import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from civid_loader.demo.release import Release, make_release

FENCE = "`" * 3
SHOT_NAME = re.compile(r"(?P<movie>.+)_(?P<start>\d{2}\.\d{2}\.\d{2}\.\d{3})-(?P<end>\d{2}\.\d{2}\.\d{2}\.\d{3})")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    return make_release(tmp_path_factory.mktemp("release"), render=False)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def annotations_of(releases: Mapping[str, Release]) -> dict[str, bytes]:
    root = releases["civid"].videos.parent.parent
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_layout_and_no_video_unless_asked(releases: dict[str, Release]) -> None:
    assert list(releases) == ["civid", "miradata", "moviebench", "lvd2m"]
    for name, release in releases.items():
        assert release.name == name
        assert release.videos.parts[-2:] == (name, "videos")
        assert not list(release.videos.iterdir())
        assert all(path.exists() and path.parent.name == "annotations" for path in release.annotations)


def test_same_seed_same_bytes(releases: dict[str, Release], tmp_path: Path) -> None:
    first = annotations_of(releases)
    assert annotations_of(make_release(tmp_path / "again", render=False)) == first
    assert annotations_of(make_release(tmp_path / "other", render=False, seed=1)) != first


def test_civid_samples(releases: dict[str, Release]) -> None:
    folder = releases["civid"].annotations[2]
    assert {path.name for path in folder.iterdir()} == {
        "000_caption.jsonl", "001_caption.jsonl", "002_caption.jsonl", "001.jsonl", "044.jsonl",
    }  # fmt: skip
    endings = set()
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        as_dicts = path.stem.endswith("_caption")
        assert text.endswith("}\n") is as_dicts
        assert text.startswith("{\n    " if as_dicts else '{\n  "')
        value = json.loads(text)
        assert list(value) == ["single_captions:", "joint_captions:"]
        singles, joints = value.values()
        assert len(joints) == len(singles) - 1
        if not as_dicts:
            assert all(isinstance(item, str) for item in singles + joints)
            singles, joints = ([json.loads(item) for item in items] for items in (singles, joints))
        assert list(singles[0]) == ["video_content", "camera_angle", "camera_movement", "video_background"]
        assert len(joints[0]) == 6
        assert list(joints[0])[-1] == "change_in_camera_movement"
        endings |= {item["video_background"].rpartition(".")[2] for item in singles}
        assert {item["change_in_camera_movement"].rpartition(".")[2] for item in joints} <= {f'"\n}}\n{FENCE}', ""}
    assert endings == {f'"\n}}\n{FENCE}', f'",\n}}\n{FENCE}', '")', ""}
    first, second, third = (
        json.loads((folder / f"00{n}_caption.jsonl").read_text(encoding="utf-8"))["single_captions:"][0][
            "video_content"
        ]
        for n in range(3)
    )
    assert "ちいさな" in first
    assert "МАЛЕНЬКАЯ" in second
    assert r"\"SHOP 24\"" in third
    assert r"\u0417\u0412" in third


def test_civid_train_and_test(releases: dict[str, Release]) -> None:
    train, test = (lines(path) for path in releases["civid"].annotations[:2])
    assert (len(train), len(test)) == (6, 2)
    for record in train + test:
        md5 = hashlib.md5(record["path"].encode(), usedforsecurity=False).hexdigest()
        assert record["video_path_md5_hash"] == md5
        stem = Path(record["path"]).stem
        assert [Path(clip).parts[-2:] for clip in record["good_clips"]] == [
            (md5, f"{stem}-Scene-{number:03d}.mp4") for number in record["good_clip_idx"]
        ]
        assert set(record["good_clips"]) <= set(record["clip_seq"])
        singles = record.get("response_singles") or record["single_captions:"]
        joints = record.get("response_joint") or record["joint_captions:"]
        assert len(record["good_clips"]) == len(singles) == len(joints) + 1
    assert any(len(record["good_clips"]) < len(record["clip_seq"]) for record in train)
    stems = Counter(clip for record in train for clip in {Path(clip).name for clip in record["good_clips"]})
    assert stems["evening-Scene-002.mp4"] == 2
    forms = [(record.get("response_singles") or record["single_captions:"])[0] for record in train + test]
    fenced = [form for form in forms if isinstance(form, str) and form.startswith(f"{FENCE}json\n{{")]
    assert fenced
    assert all(form.endswith(f"}}\n{FENCE}") for form in fenced)
    assert {type(form) for form in forms} == {str, dict}


def test_miradata_v0(releases: dict[str, Release]) -> None:
    raw = releases["miradata"].annotations[0].read_bytes()
    rows = raw.split(b"\r\n")
    assert rows[0].endswith(b",fps,start_timestep,end_timestep,,")
    assert rows[-2:] == [14 * b",", b""]
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert raw.isascii()
    data = list(csv.reader(raw.decode().splitlines()))[1:-1]
    assert {len(row) for row in data} == {15}
    for row in data:
        assert re.fullmatch(r"(\d{12})_(.{11})-(\d{6})", row[0])
        assert row[1] == row[0][13:24]
        for frame, step in zip(row[2:4], row[11:13], strict=True):
            hours, minutes, seconds = (int(part) for part in step.split(":"))
            assert abs(hours * 3600 + minutes * 60 + seconds - int(frame) / float(row[10])) <= 0.5
    assert sum(row[4].startswith(" ") for row in data) == 2


def test_miradata_v1(releases: dict[str, Release]) -> None:
    path = releases["miradata"].annotations[1]
    assert b"\r" not in path.read_bytes()
    rows = table(path)
    assert len(rows[0]) == 18
    assert [row["clip_id"] for row in rows[:2]] == ["412.1", "412.1"]
    assert [row["file_path"][-7:] for row in rows[:2]] == ["2.1.mp4", ".10.mp4"]
    assert len({row["file_path"] for row in rows}) == len(rows)
    sources = {row["source"] for row in rows}
    assert {"pexels", "videvo, %2Ffree-motion-graphics", "youtube, hd-vila-100m"} <= sources
    assert any(row["video_id"].isdigit() for row in rows)
    assert any(row["video_id"].startswith("-") for row in rows)
    assert any("%20" in row["video_url"] for row in rows)
    for row in rows:
        start, end = ast.literal_eval(row["timestamp"])
        first, last = ast.literal_eval(row["framestamp"])
        assert isinstance(last, float) is row["source"].startswith(("videvo", "pixabay"))
        assert last - first == int(row["frame_number"])
        seconds = [sum(float(n) * m for n, m in zip(t.split(":"), (3600, 60, 1), strict=True)) for t in (start, end)]
        assert abs(seconds[1] - seconds[0] - float(row["seconds"])) < 0.01
        off = abs(first / float(row["fps"]) - seconds[0])
        assert (off > 0.1) is ("hd-vila" in row["source"])


def test_miradata_v1_windows(releases: dict[str, Release]) -> None:
    rows = table(releases["miradata"].annotations[1])
    long = {row["clip_id"]: row for row in rows if float(row["seconds"]) > 120}
    pattern = re.compile(r"\|\|\|\s*(\d+)\s*\|\|\|\s*(\d+)\s*\|\|\|\s*(.*?)\s*\|\|\|,")
    for row in rows:
        for column in (name for name in row if name.endswith("_caption")):
            windows = [(int(start), int(end)) for start, end, _ in pattern.findall(row[column])]
            assert (pattern.sub("", row[column]) == "[]") is (row["clip_id"] in long)
            wanted = {"3120.2": [(120, 240), (0, 120)], "5544.0": [(240, 360), (120, 240)]}
            assert windows == wanted.get(row["clip_id"], [])
    assert len(long) == 2


def test_moviebench_shots(releases: dict[str, Release]) -> None:
    (tree,) = releases["moviebench"].annotations
    shots = {path.stem: path for path in (tree / "Annotation_Shot_Desc_11.15_V2_160movies").rglob("*.json")}
    trailing, nobody = [], []
    for name, path in shots.items():
        match = SHOT_NAME.fullmatch(name)
        assert match
        assert match["movie"] == path.parent.name
        text = path.read_text(encoding="utf-8")
        value, end = json.JSONDecoder().raw_decode(text)
        assert list(value) == ["Characters", "Style Elements", "Plot", "Background Description", "Camera Motion"]
        trailing += [name] if text[end:].strip() else []
        nobody += [name] if not value["Characters"] else []
    assert len(trailing) == 1
    assert len(nobody) == 2
    assert any(name.endswith("00.01.05.200-00.01.05.380") for name in shots)
    scenes = json.loads((tree / "movies_scenes.json").read_text(encoding="utf-8"))
    split = json.loads((tree / "data_split.json").read_text(encoding="utf-8"))
    assert list(split) == ["Train", "Test"]
    assert sorted(split["Train"] + split["Test"]) == sorted(scenes)
    assert {path.parent.name for path in shots.values()} - set(scenes) == {"0907_DER_LETZTE_LEUCHTTURM"}
    listed = [shot for movie in scenes.values() for names in movie.values() for shot in names]
    assert all(re.fullmatch(r"Sence \d+: .+\.", title) for movie in scenes.values() for title in movie)
    assert len(set(listed) - set(shots)) == 1
    unlisted = [shot for shot in shots if shot not in listed and "0907" not in shot]
    assert unlisted == ["0901_The_Paper_Lighthouse_00.01.20.120-00.01.22.120"]
    assert any(names != sorted(names) for movie in scenes.values() for names in movie.values())


def test_moviebench_characters_and_texts(releases: dict[str, Release]) -> None:
    (tree,) = releases["moviebench"].annotations
    bank = tree / "Character_Bank_All_11.16"
    people = {path.parent.name for path in bank.rglob("best.jpg")}
    assert {"Valeria_Tran-Lu-Chen", "Théodora_Marchand-Éloïse_Véron", "J.P._Harkness-Captain's_Mate"} <= people
    assert {".DS_Store", "representations_vgg_face.pkl"} <= {path.name for path in bank.glob("*/*")}
    shots = (tree / "Annotation_Shot_Desc_11.15_V2_160movies").rglob("*.json")
    named = {name for path in shots for name in json.JSONDecoder().raw_decode(path.read_text("utf-8"))[0]["Characters"]}
    known = {person.partition("-")[2].replace("_", " ") for person in people}
    assert named - known == {"The Stoker"}
    rows = [line.split("\t") for line in (tree / "annotations-original.csv").read_text("utf-8").splitlines()]
    assert all(len(row) == 2 and SHOT_NAME.fullmatch(row[0]) for row in rows)
    assert any("," in sentence for _, sentence in rows)
    assert any(sentence.count('"') % 2 for _, sentence in rows)
    imdb = json.loads((tree / "mad2imdb.json").read_text("utf-8"))
    assert all(re.fullmatch(r"tt\d+", value) for value in imdb.values())
    assert len(set(imdb.values())) == len(imdb) == 5
    assert len(json.loads((tree / "mad2plot.json").read_text("utf-8"))) == 3
    assert b"00:01:03,500 --> 00:01:04,900\r\n" in (tree / "Subtitles/0901_The_Paper_Lighthouse.srt").read_bytes()


def test_lvd2m(releases: dict[str, Release]) -> None:
    folder = releases["lvd2m"].annotations[0].parent
    ytb, hdvg, webvid = (table(path) for path in releases["lvd2m"].annotations)
    assert table(folder / "random_sample_100.csv") == ytb[:2]
    shared = {"key", "url", "dataset_src", "raw_caption", "refined_caption", "rewritten_caption", "orig_caption",
              "total score", "video_time"}  # fmt: skip
    assert set(webvid[0]) == shared
    assert set(ytb[0]) == shared | {"video_id", "span"}
    assert set(hdvg[0]) == shared | {"video_id", "orig_span", "scene_cut"}
    keys = [row["key"] for row in ytb + hdvg]
    assert any("." in key for key in keys)
    assert any(key.startswith("-") for key in keys)
    assert all(row["url"].partition("?v=")[2] == row["video_id"] and len(row["video_id"]) == 11 for row in ytb + hdvg)
    assert {len(ast.literal_eval(row["span"])[0]) for row in ytb} == {len("0:01:20.880"), len("00:00:17.759")}
    wrong, count = Counter(row["refined_caption"] for row in ytb + hdvg + webvid).most_common(1)[0]
    assert count == 6
    assert all(row["raw_caption"] != wrong for row in ytb)
    for row in ytb + hdvg + webvid:
        num_parts = row["raw_caption"].count("Caption ")
        assert num_parts == (0 if float(row["video_time"]) <= 30 else -(-float(row["video_time"]) // 30))


def test_lvd2m_hdvg_times_agree(releases: dict[str, Release]) -> None:
    cuts = []
    for row in table(releases["lvd2m"].annotations[1]):
        times = (time.split(":") for time in ast.literal_eval(row["orig_span"]))
        start, end = (int(hours) * 3600 + int(minutes) * 60 + float(seconds) for hours, minutes, seconds in times)
        first, last = ast.literal_eval(row["scene_cut"])
        lengths = {fps: (last / fps if last >= 0 else end - start) - first / fps for fps in (25, 30)}
        assert any(abs(length - float(row["video_time"])) < 1e-6 for length in lengths.values())
        cuts.append((first, last))
    assert (0, -1) in cuts
    assert any(first > 0 and last == -1 for first, last in cuts)
    assert any(last > 0 for _, last in cuts)


def test_rendered_files_are_where_upstreams_scripts_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths only: rendering is `test_demo_render`, and the whole release takes 10 s."""

    def write_nothing(path: Path, *args: object, **kwargs: object) -> int:
        path.write_bytes(b"x")
        return 0

    monkeypatch.setattr("civid_loader.demo.render.render_video", write_nothing)
    releases = make_release(tmp_path)
    videos = {name: {str(p.relative_to(r.videos)) for p in r.videos.rglob("*.*")} for name, r in releases.items()}
    assert "chunk_40_80.tar" in videos["civid"]
    assert not any(path.startswith("chunk_40_80/") for path in videos["civid"])
    assert {
        "clip_video/000000008/000000008431_demoCity003-000000.mp4",
        "raw_video/000000008/000000008431_demoCity003.mp4",
        "raw_video/000000009/000000009200_demo.mp4",
        "raw_video/000000000/000000000977.mp4",
        "video_clips/000000000/000000000412.10.mp4",
    } <= videos["miradata"]
    assert (releases["miradata"].videos / "video_clips/000005000/000005000007.0.mp4").stat().st_size == 0
    listed = {row["key"]: row for path in releases["lvd2m"].annotations for row in table(path)}
    found = {path.removesuffix(".mp4") for path in videos["lvd2m"]}
    assert found == {key for key, row in listed.items() if float(row["video_time"]) < 20}
    shots = {path.stem for path in releases["moviebench"].annotations[0].rglob("*_0*.json")}
    filmed = {Path(path).stem for path in videos["moviebench"] if path.endswith(".avi")}
    assert (len(shots - filmed), len(filmed - shots)) == (1, 1)
