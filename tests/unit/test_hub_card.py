"""The dataset card: stock `datasets` loads what it names, users' own lines stay, and nothing in it can break it."""

import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import yaml
from datasets import Features, Value

from civid_loader import builders, schema
from civid_loader.errors import AnnotationError, OutputError
from civid_loader.hub.card import BEGIN, END, render_card
from civid_loader.hub.columns import EXPLANATIONS, columns_of
from civid_loader.hub.markdown import code, data, escaped, without_paths
from civid_loader.hub.sources import FLAGS, ORIGINS
from civid_loader.layers import write_layer
from civid_loader.storage import read_manifest, read_table, write_json, write_shard
from support.built import clip, write_dataset

REPO = "org/lvd2m"
SCORES = Features({"clip_id": Value("string"), "flow_px": Value("float32")})
HOSTILE = "a|b `c` <!-- x --> --- \n# $title ${x} *d* \"e': {f} [g](h)"


def _header(text: str) -> dict[str, Any]:
    header: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return header


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset with every kind of table."""
    samples = {"train": [[clip("a", "a.mp4", span=(0.0, 9.0))], [clip("b", None)]], "test": [[clip("c", "c.mp4")]]}
    root = write_dataset(tmp_path / "lvd2m", samples)
    tables: dict[str, list[dict[str, Any]]] = {
        "characters": [{"movie_id": "m", "character_id": "m/x"}],
        "movies": [{"movie_id": "m"}],
        "media": [{"clip_id": "a", "status": "ok", "clip_duration_seconds": 9.0}],
        "videos": [{"clip_id": "a", "video": {"bytes": b"no video", "path": "a.mp4"}}],
    }
    manifest = read_manifest(root)
    for table, rows in tables.items():
        manifest["shards"][table] = [f"{table}/train-00000-of-00001.parquet"]
        piece = pa.Table.from_pylist(rows, schema=schema.arrow_schema(table))
        manifest["num_rows"][table] = {"train": write_shard(root / manifest["shards"][table][0], [piece], table=table)}
    manifest["media"] = {"clips": "0", "made_with": {"civid_loader": "0.1", "av": "16"}}
    write_json(root / "manifest.json", manifest)
    _write_layers(root)
    return root


def _write_layers(root: Path, *, doc: str = "Mean flow.", params: Any = None, name: str = "flow") -> None:
    model = {"id": "raft", "revision": "v2", "dtype": "float32", "sha256": "ab" * 32, "license": "BSD-3-Clause"}
    stage = {"stage": name, "version": "1", "fingerprint": "cd" * 8, "params": params or {"fps": 2}, "models": [model]}
    told = {
        "fingerprint": "ef" * 8,
        "columns": [{"name": "flow_px", "dtype": "float32", "unit": "px", "doc": doc}],
        "stages": [stage],
        "made_with": {"civid_loader": "0.1"},
        "created_utc": "2026-01-01T00:00:00Z",
    }
    scores = pa.Table.from_pylist([{"clip_id": "a", "flow_px": 1.5}], schema=SCORES.arrow_schema)
    write_layer(root, "scores-lvd2m", {"train": [scores]}, features=SCORES, provenance=told)
    caption = schema.caption("dense", "five words are in here", "civid_loader:x")
    row = {"clip_id": "a", "captions": [caption], "transition_captions": []}
    rows = pa.Table.from_pylist([row], schema=schema.CAPTION_LAYER_FEATURES.arrow_schema)
    write_layer(root, "captions-new", {"train": [rows]}, provenance=told)


CONFIGS = ["default", "characters", "movies", "media", "videos", "captions-new", "scores-lvd2m"]


def test_stock_datasets_loads_every_config(root: Path, tmp_path: Path) -> None:
    card = render_card(root, repo_id=REPO)
    (root / "README.md").write_text(card.text, encoding="utf-8")
    header = _header(card.text)
    assert [config["config_name"] for config in header["configs"]] == CONFIGS
    assert datasets.get_dataset_config_names(str(root)) == CONFIGS
    expected = {**{name: schema.TABLES.get(name) for name in CONFIGS}, "default": schema.SAMPLE_FEATURES}
    expected |= {"captions-new": schema.CAPTION_LAYER_FEATURES, "scores-lvd2m": SCORES}
    for name in CONFIGS:
        loaded = datasets.load_dataset(str(root), name, cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].features == expected[name], name
    loaded = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "cache"))
    assert {split: part.num_rows for split, part in loaded.items()} == {"train": 2, "test": 1}
    stream = datasets.load_dataset(str(root), split="train", streaming=True, columns=["sample_id", "clips"])
    assert set(next(iter(stream))) == {"sample_id", "clips"}


def test_header_and_text_say_what_there_is(root: Path) -> None:
    card = render_card(root, repo_id=REPO)
    header = _header(card.text)
    terms = builders.find("lvd2m").TERMS
    assert header["license"] == "other"
    assert header["license_name"] == terms.license
    assert header["license_link"].startswith("https://")
    assert header["size_categories"] == ["n<1K"]
    assert header["task_categories"] == ["text-to-video"]
    for part in (
        f"> {terms.text}", "3 samples, 3 clips, 0.1 minutes", "| `default` | `test` | 1 |",
        'load_dataset("org/lvd2m", "media"',
        'load(\n    "org/lvd2m", split="train",\n    layers=["media", "captions-new", "scores-lvd2m"],\n)',
        "| `raft` | `v2` |", "| float32 | px | Mean flow. |",
        "Made with av 16", "@inproceedings{xiong2024lvd2m", "| `odd` | 2 | 67 % | Not recorded. |", "same wrong",
        "| `dense` | 1 | 5 |",
    ):  # fmt: skip
        assert part in card.text
    shown = re.findall(r"!\[.*\]\((.*)\)", card.text)
    assert sorted(shown) == sorted(card.pictures)
    assert "statistics/scores-lvd2m.png" in shown


def test_same_folder_same_bytes(root: Path) -> None:
    card = render_card(root, repo_id=REPO)
    assert render_card(root, repo_id=REPO) == card
    assert render_card(root, repo_id=REPO, existing=card.text) == card


def test_the_reason_of_a_layer_and_windows_nobody_uses_are_explained(root: Path) -> None:
    features = Features({**SCORES, "reason": Value("string")})
    rows = pa.Table.from_pylist([{"clip_id": "a", "flow_px": 1.5, "reason": None}], schema=features.arrow_schema)
    write_layer(root, "scores-lvd2m", {"train": [rows]}, features=features, provenance={})
    text = render_card(root, repo_id=REPO).text
    assert "| `reason` | string |  | Why there is no value. | 100&nbsp;% |" in text
    assert "| `transitions[].captions[].start_seconds` | float64 | s | Always null: the text is about the step" in text


def test_only_some_tables(root: Path) -> None:
    card = render_card(root, repo_id=REPO, tables=["annotations", "scores/lvd2m", "scores/gone"])
    assert [config["config_name"] for config in _header(card.text)["configs"]] == ["default", "scores-lvd2m"]
    assert "captions-new" not in card.text
    assert "No videos are inside" in card.text


def test_what_users_wrote_stays(root: Path, tmp_path: Path) -> None:
    old = f"""---
license: mit
pretty_name: Mine
tags: [mine, video]
arxiv: 1234.5678
dataset_info:
- {{config_name: default, features: [{{name: x, dtype: string}}]}}
- {{config_name: mine, features: [{{name: sample_id, dtype: string}}]}}
configs:
- config_name: media
  description: What files hold
  data_files: old/*.parquet
- config_name: mine
  default: true
  columns: [sample_id]
  data_files: [{{split: train, path: annotations/train-*.parquet}}]
---
# Above

{BEGIN}
old text
{END}

Below.
"""
    card = render_card(root, repo_id=REPO, existing=old)
    header = _header(card.text)
    assert header["arxiv"] == 1234.5678
    assert header["license"] == "other"
    assert header["pretty_name"] == "Mine"
    assert header["tags"] == ["video", "civid_loader", "lvd2m", "mine"]
    configs = {config["config_name"]: config for config in header["configs"]}
    assert list(configs) == [*CONFIGS, "mine"]
    assert configs["media"]["description"] == "What files hold"
    assert configs["media"]["data_files"] == [{"split": "train", "path": "media/train-*.parquet"}]
    assert configs["mine"]["columns"] == ["sample_id"]
    assert [name for name, config in configs.items() if config.get("default")] == ["default"]
    assert [info["config_name"] for info in header["dataset_info"]] == ["mine"]
    body = card.text.split("---\n", 2)[2]
    assert body.startswith(f"# Above\n\n{BEGIN}\n# LVD-2M")
    assert body.endswith(f"{END}\n\nBelow.\n")
    assert "old text" not in body
    assert render_card(root, repo_id=REPO, existing=card.text) == card
    (root / "README.md").write_text(card.text, encoding="utf-8")
    cache = str(tmp_path / "cache")
    assert datasets.load_dataset(str(root), "mine", split="train", cache_dir=cache).column_names == ["sample_id"]


@pytest.mark.parametrize("header", ["", "---\nlanguage: de\n---\n", "---\r\nlanguage: de\r\n---\r\n"])
def test_a_card_of_their_own_is_kept_before_ours(root: Path, header: str) -> None:
    text = render_card(root, repo_id=REPO, existing=f"{header}# My data\n\nMine.").text
    assert f"---\n# My data\n\nMine.\n\n{BEGIN}\n" in text
    assert _header(text)["language"] == ("de" if header else ["en"])
    assert render_card(root, repo_id=REPO, existing=text).text == text


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (f"{BEGIN}\ntext", "put it back"),
        ("---\na: [\n---\n", "no YAML"),
        ("---\n- a\n---\n", "a list, not keys"),
    ],
)
def test_a_broken_card_is_refused(root: Path, broken: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        render_card(root, repo_id=REPO, existing=broken)


def test_hostile_text_breaks_nothing_and_home_paths_stay_home(root: Path) -> None:
    params = {"weights": "/home/me/My Data/w.pt", "cmd": "run --x /srv/a/b.pt", "url": "https://h.co/a/b", HOSTILE: END}
    _write_layers(root, doc=f"{HOSTILE} {END}", params=params, name=HOSTILE)
    (path,) = (root / "annotations").glob("train*.parquet")
    rows = read_table(root, split="train").to_pylist()
    rows[0]["flags"] = [HOSTILE, END, BEGIN]
    write_shard(path, [pa.Table.from_pylist(rows, schema=schema.arrow_schema("annotations"))], table="annotations")
    manifest = read_manifest(root)
    manifest["parent"] = {"folder": "/home/me/lvd2m-all", "where": f"flow_px > 3 and x != '{HOSTILE}'"}
    write_json(root / "manifest.json", manifest)
    text = render_card(root, repo_id=REPO).text
    assert render_card(root, repo_id=REPO, existing=text).text == text
    assert text.count(BEGIN) == text.count(END) == 1
    assert "/home" not in text
    assert "/srv" not in text
    assert "b&#46;pt" in text
    assert "Made from `lvd2m-all`, rows where" in text
    assert [config["config_name"] for config in _header(text)["configs"]] == CONFIGS
    assert str(root) not in text
    _check_tables(text)


def _check_tables(text: str) -> None:
    """Every row of a table has as many cells as its head."""
    num_tables = 0
    for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
        assert set(block.splitlines()[1]) <= set("|- ")
        num_tables += 1
    assert num_tables >= 10
    assert not re.search(r"^\|.*[^|\n]$", text, flags=re.MULTILINE)


def test_tables_are_well_formed(root: Path) -> None:
    _check_tables(render_card(root, repo_id=REPO).text)


@pytest.mark.parametrize("table", [*schema.TABLES, "captions"])
def test_every_column_is_explained(table: str) -> None:
    features = schema.TABLES.get(table, schema.CAPTION_LAYER_FEATURES)
    assert list(EXPLANATIONS[table]) == [name for name, _ in columns_of(features)]
    assert all(text.endswith(".") for text in EXPLANATIONS[table].values())


def test_every_dataset_and_flag_is_described() -> None:
    assert sorted(ORIGINS) == builders.names()
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Flags")[2]
    named = {flag for line in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for flag in line.split(", ")}
    assert len(named) > 15
    assert {flag.strip("`") for flag in named} <= set(FLAGS)


def test_without_a_manifest_the_rows_tell_the_dataset(root: Path) -> None:
    (root / "manifest.json").unlink()
    text = render_card(root, repo_id=REPO).text
    assert [config["config_name"] for config in _header(text)["configs"]] == CONFIGS
    assert "Not recorded." in text
    manifest = {"name": "else", "shards": {"annotations": []}}
    write_json(root / "manifest.json", manifest)
    with pytest.raises(AnnotationError):
        render_card(root, repo_id=REPO)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/data", "data"), ("~/x/y.pt", "y.pt"), (r"C:\models\w.pt", "w.pt"), ("file:///a/b", "b"), ("a / b", "a / b"),
        ("use '/a/b/c.pt'", "use 'c.pt'"), ("w/h > 1 and s/t/u", "w/h > 1 and s/t/u"), ("org/model", "org/model"),
        ("https://h.co/a/b", "https://h.co/a/b"), ("/a/b/", "b"), ("scores/lvd2m", "scores/lvd2m"),
    ],
)  # fmt: skip
def test_local_paths_are_cut(text: str, public: str) -> None:
    assert without_paths(text) == public


def test_markdown_of_any_text() -> None:
    assert escaped("a|b_c\n<d>") == r"a\|b\_c &lt;d&gt;"
    assert code("a > b") == "`a > b`"
    assert code("a|`<") == "<code>a&#124;&#96;&#60;</code>"
    assert data({"b": 1, "a": ["/x/y"]}) == '`{"a": ["y"], "b": 1}`'
