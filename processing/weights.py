"""Model weights: which are needed, where they lie, and what identifies them. Nothing is downloaded unasked."""

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from civid_loader.errors import MissingDependencyError, ModelError

FILES: Final = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""What a model folder on the Hub is fetched for; no pickles, no code."""
_HASH_IN_NAME: Final = re.compile("-([0-9a-f]{8,})$")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelNeed:
    """A model that a stage was made for."""

    id: str
    """On the Hub, `org/name`; or how its authors call it, where it is not there."""
    license: str
    """As its authors state it; "" where it is not known."""
    is_noncommercial: bool = False
    """Loaded only where the user accepts the licence by name."""
    is_on_hub: bool = True
    """Whether it can be fetched by its id; else by `url`, or the user names a file or folder."""
    url: str | None = None
    """Of the file, where its authors publish it elsewhere. A name that ends in `-<8 hex digits>` begins its sha256."""
    files: tuple[str, ...] = FILES
    """Of its folder on the Hub, those that are fetched."""
    package_file: tuple[str, str] | None = None
    """(import package, file in it) that brings the weights, where it is installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Weights on this machine, found once; a stage loads them in `setup`."""

    path: Path
    """Folder, as `from_pretrained` takes it, or file."""
    id: str
    """As in `ModelNeed`, or what the user named instead; a local path is told by its last part."""
    revision: str | None
    """Commit on the Hub."""
    sha256: str | None
    """Of local files, where there is no commit."""
    license: str

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the results: the commit, or the bytes; not where they lie, nor the licence."""
        return {"id": self.id, "revision": self.revision} if self.revision else {"sha256": self.sha256}

    @property
    def provenance(self) -> dict[str, Any]:
        """For the layer's metadata."""
        return {"id": self.id, "revision": self.revision, "sha256": self.sha256, "license": self.license}


def find_weights(
    role: str, need: ModelNeed, *, given: str | None, may_download: bool, accepted: frozenset[str] = frozenset()
) -> Weights:
    """The weights for a role: what the user named, else the model that the stage was made for.

    Args:
        role: of the stage, for messages.
        need: that model.
        given: file, folder, or `org/name[@revision]` on the Hub; None: `need.id`.
        may_download: fetch what is not on this machine yet.
        accepted: ids of non-commercial models whose licence the user accepts.

    Raises:
        ModelError: they are not here and may not be fetched, or cannot be; or the licence is not accepted.
        MissingDependencyError: a package that brings them is not installed.
    """
    is_path = given is not None and Path(given).exists()
    is_another = given is not None and not is_path and given.partition("@")[0] != need.id
    # Where a file lies changes nothing about its licence.
    if need.is_noncommercial and not is_another and need.id not in accepted:
        raise ModelError(
            f"model {need.id} ({role}) is under {need.license}, which forbids commercial use; if yours is none, say "
            f"so: --accept-license {need.id}"
        )
    if given is None and need.package_file is not None:
        path = _in_package(*need.package_file)
        return Weights(path=path, id=need.id, revision=None, sha256=_sha256(path), license=need.license)
    if given is not None and is_path:
        path = Path(given)
        license_ = f"{need.license} (that of {need.id}; file as given)" if need.license else "as given"
        return Weights(path=path, id=path.name, revision=None, sha256=_sha256(path), license=license_)
    if given is None and not need.is_on_hub:
        path = _from_url(role, need, may_download=may_download)
        return Weights(path=path, id=need.id, revision=None, sha256=_sha256(path), license=need.license)
    repo_id, _, revision = (given or need.id).partition("@")
    if given is not None and repo_id.count("/") != 1:
        raise ModelError(f"--model {role}={given}: no such file or folder, and no name on the Hub (org/name)")
    patterns = list(need.files)
    license_ = (repo_id == need.id and need.license) or "not known"
    try:
        # From the cache first: a run must not depend on the network where the weights are here.
        path = Path(
            snapshot_download(repo_id, revision=revision or None, allow_patterns=patterns, local_files_only=True)
        )
    except LocalEntryNotFoundError as error:
        if not may_download:
            raise ModelError(
                f"model {repo_id} ({role}) is not on this machine; fetch it with --download, or name a folder: "
                f"--model {role}=FOLDER"
            ) from error
        commit = HfApi().model_info(repo_id, revision=revision or None).sha
        path = Path(snapshot_download(repo_id, revision=commit, allow_patterns=patterns))
    return Weights(path=path, id=repo_id, revision=path.name, sha256=None, license=license_)


def _from_url(role: str, need: ModelNeed, *, may_download: bool) -> Path:
    """The file in torch's cache, where torchvision keeps its own; fetched once."""
    if need.url is None:
        raise ModelError(f"model {need.id} ({role}) is not on the Hub; name its file or folder: --model {role}=PATH")
    path = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(need.url).name
    named = _HASH_IN_NAME.search(path.stem)
    if not path.is_file():
        if not may_download:
            raise ModelError(
                f"model {need.id} ({role}) is not on this machine; fetch it with --download, or get "
                f"{need.url} and name the file: --model {role}=PATH"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(need.url, str(path), named and named[1], progress=False)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"model {need.id} ({role}): {need.url} cannot be fetched: {error}; try again, or get it another way "
                f"and name the file: --model {role}=PATH"
            ) from error
    if named and not _sha256(path).startswith(named[1]):
        raise ModelError(f"{path} is not what its name says: its sha256 does not begin with {named[1]}; delete it")
    return path


def _in_package(package: str, file: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            f"{package} brings the model, and is not installed: pip install {package.replace('_', '-')}"
        )
    return Path(found.submodule_search_locations[0]) / file


@lru_cache(maxsize=64)
def _sha256(path: Path) -> str:
    """Of a file, or of a folder's files with their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listed = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    told = "".join(f"{one.relative_to(path).as_posix()} {_sha256(one)}\n" for one in listed)
    return hashlib.sha256(told.encode()).hexdigest()
