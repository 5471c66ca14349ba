"""Pushes and reads in client processes of their own, each with a clean cache."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from support.hub_server import WRITER_TOKEN, HubServer

PUSH: Final = """
import json, sys, warnings
from dataclasses import asdict
warnings.simplefilter("ignore")
from civid_loader.errors import CividLoaderError
from civid_loader.hub import retrying
from civid_loader.hub.push import push_to_hub
retrying._BACK_OFF = lambda state: 0.1
told = []
for repo, settings in json.loads(sys.argv[2]):
    try:
        told.append(asdict(push_to_hub(sys.argv[1], repo, quiet=True, **settings)))
    except CividLoaderError as error:
        told.append({"error": f"{type(error).__name__}: {error}"})
print(json.dumps(told))
"""

READ: Final = """
import json, sys
sys.modules["civid_loader"] = None                      # nothing of ours may be needed
from datasets import Dataset, load_dataset
repo, config, revision = json.loads(sys.argv[1])
told = {}
for is_streaming in (False, True):
    splits = load_dataset(repo, config, revision=revision, streaming=is_streaming)
    for split, rows in splits.items():
        if any(getattr(kind, "_type", "") == "Video" for kind in rows.features.values()):
            bare = type(rows.features["video"])(decode=False)
            rows = rows.decode(False) if is_streaming else rows.cast_column("video", bare)
        told[f"{split} {is_streaming}"] = {
            "rows": [{k: v if k != "video" else len(v["bytes"]) for k, v in row.items()} for row in rows],
            "features": str(rows.features),
        }
print(json.dumps(told, default=str))
"""


def push(hub: HubServer, root: Path, repo: str, home: Path, *, token: str | None = WRITER_TOKEN, **told: Any) -> Any:
    """The report of a push, or its error."""
    return push_each(hub, root, [(repo, told)], home, token=token)[0]


def push_each(
    hub: HubServer, root: Path, pushes: Sequence[tuple[str, Any]], home: Path, *, token: str | None = WRITER_TOKEN
) -> Any:
    """Several, one after the other, each with its settings."""
    return hub.run(PUSH, str(root), json.dumps(pushes), home=home, token=token, limit_seconds=300)


def start_push(hub: HubServer, root: Path, repo: str, home: Path) -> "subprocess.Popen[bytes]":
    """A push that is still running."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", PUSH, str(root), json.dumps([(repo, {})])],
        env=inherited | hub.environment(home=home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def read(hub: HubServer, repo: str, config: str, home: Path, *, revision: str | None = None) -> Any:
    """Rows and features of each split, as stock `datasets` gives them, whole and streamed."""
    return hub.run(READ, json.dumps([repo, config, revision]), home=home)
