"""The dataset card of the demo CI-VID as the Hub shows it: Markdown -> HTML, and PNG where Chromium is installed.

    python tests/benchmarks/card.py [--output FOLDER]

Look at it after a change of `hub/card*.py`, `hub/columns.py` or `hub/plots.py`. Chromium: `apt-get install chromium`;
it is given no network.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import typer
from datasets import Features, Value
from markdown_it import MarkdownIt
from PIL import Image, ImageChops

from civid_loader.demo.release import make_release
from civid_loader.hub.card import header_and_body, render_card
from civid_loader.layers import write_layer
from civid_loader.materialize import build
from civid_loader.probing.dataset import probe_dataset
from civid_loader.schema import CAPTION_LAYER_FEATURES, arrow_schema_of, caption
from civid_loader.storage import read_table

WIDTH_PX: Final = 1000
HEIGHT_PX: Final = 20_000
"""More than the card has: what is white below is cut off."""
SCORES: Final = Features({"clip_id": Value("string"), "flow_mean_px": Value("float64"), "reason": Value("string")})
STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; color: #1f2328; }
table { border-collapse: collapse; display: block; overflow: auto; margin: 1rem 0; }
th, td { border: 1px solid #d1d9e0; }
th, td { padding: 6px 13px; } code { background: #eff1f3; padding: .1em .3em; border-radius: 4px; font-size: 85%; }
pre code { display: block; padding: 1rem; }
img { max-width: 100%; } blockquote { border-left: 4px solid #d1d9e0; margin: 0; padding: 0 1rem; color: #59636e; }
"""
"""Much as the Hub styles a card."""


def main(
    output: Annotated[Path, typer.Option(help="Folder for card.png, card.html, README.md.")] = Path("card"),
) -> None:
    """Render the card."""
    with tempfile.TemporaryDirectory() as folder:
        card = render_card(_dataset(Path(folder)), repo_id="org/civid-demo")
    for path, png in card.pictures.items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(png)
    (output / "README.md").write_text(card.text, encoding="utf-8")
    _, body = header_and_body(card.text)
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(body)
    html = output / "card.html"
    html.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body>{page}", encoding="utf-8")
    typer.echo(html)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        typer.echo("no Chromium here: open the page yourself")
        return
    screenshot = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH_PX},{HEIGHT_PX}"]
    no_network = "--host-resolver-rules=MAP * ~NOTFOUND"
    shown_at = output / "card.png"
    command = [chromium, *screenshot, no_network, f"--screenshot={shown_at.resolve()}", html.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shown_at) as picture:
        shown = picture.convert("RGB")
    filled = ImageChops.difference(shown, Image.new("RGB", shown.size, "white")).getbbox() or (0, 0, *shown.size)
    shown.crop((0, 0, shown.width, filled[3])).save(shown_at)
    typer.echo(f"{shown_at}: {shown.width} x {filled[3]} px")


def _dataset(folder: Path) -> Path:
    """The demo CI-VID with the layers a card tells of."""
    release = make_release(folder / "release")["civid"]
    root, videos = folder / "civid", release.videos
    build("civid", annotations=release.annotations, videos=videos, output=root, max_rejected=0.2, quiet=True)
    probe_dataset(root, videos=videos, quiet=True)
    ids = [one["clip_id"] for row in read_table(root, columns=["clips"])["clips"].to_pylist() for one in row]
    ids = list(dict.fromkeys(ids))
    scores = [{"clip_id": one, "flow_mean_px": i**1.5, "reason": None} for i, one in enumerate(ids)]
    texts = [
        {
            "clip_id": one,
            "captions": [caption("dense", "A new text " * (1 + i % 9), "civid_loader:demo")],
            "transition_captions": [],
            "reason": None,
        }
        for i, one in enumerate(ids)
    ]
    model = {"id": "org/model", "revision": "a" * 40, "dtype": "bfloat16", "license": "apache-2.0", "sha256": "b" * 64}
    stage = {"stage": "flow", "version": "1", "fingerprint": "c" * 16, "params": {"fps": 2, "size": 256}}
    column = {"name": "flow_mean_px", "dtype": "float64", "unit": "px", "doc": "Mean length of the optical flow."}
    told = {"fingerprint": "d" * 16, "stages": [stage | {"models": [model]}], "columns": [column]}
    for name, features, rows in (("scores-flow", SCORES, scores), ("captions-new", CAPTION_LAYER_FEATURES, texts)):
        table = pa.Table.from_pylist(rows, schema=arrow_schema_of(features))
        write_layer(root, name, {"train": [table]}, features=features, provenance=told)
    return root


if __name__ == "__main__":
    typer.run(main)
