"""Weights are found, fetched from where their authors publish them, and never without being asked."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

from civid_loader.errors import ModelError
from civid_loader.processing.registry import make
from civid_loader.processing.weights import ModelNeed, find_weights
from support.servers import RangeServer, serve

CONTENT = b"weights of a small model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NEED = ModelNeed(id="someone/model", license="CC-BY-NC-4.0", is_noncommercial=True)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """With one file, and a cache of torch's own that is empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve({f"models/small-{SHA256[:8]}.pth": CONTENT, "models/other-00000000.pth": CONTENT}) as running:
        yield running


def need_of(server: RangeServer, name: str) -> ModelNeed:
    return ModelNeed(id="a/small", license="BSD-3-Clause", is_on_hub=False, url=server.address(f"models/{name}.pth"))


def test_a_file_elsewhere_is_fetched_once_and_only_when_told(server: RangeServer, tmp_path: Path) -> None:
    need = need_of(server, f"small-{SHA256[:8]}")
    message = f"a/small .raft. is not on this machine; fetch it with --download, or get {need.url} and name the file"
    with pytest.raises(ModelError, match=message):
        find_weights("raft", need, given=None, may_download=False)
    assert server.requests == []
    found = find_weights("raft", need, given=None, may_download=True)
    assert found.path == tmp_path / "hub" / "checkpoints" / f"small-{SHA256[:8]}.pth"
    assert found.path.read_bytes() == CONTENT
    assert (found.id, found.license, found.sha256) == ("a/small", "BSD-3-Clause", SHA256)
    assert find_weights("raft", need, given=None, may_download=False) == found
    assert len(server.requests) == 1


def test_a_file_that_is_another_is_not_kept(server: RangeServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be fetched: invalid hash value"):
        find_weights("raft", need_of(server, "other-00000000"), given=None, may_download=True)
    with pytest.raises(ModelError, match="cannot be fetched: HTTP Error 404"):
        find_weights("raft", need_of(server, "none"), given=None, may_download=True)
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())
    damaged = tmp_path / "hub" / "checkpoints" / f"small-{SHA256[:8]}.pth"
    damaged.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match="is not what its name says"):
        find_weights("raft", need_of(server, f"small-{SHA256[:8]}"), given=None, may_download=False)


def test_raft_is_where_torchvision_has_it() -> None:
    for backend, weights in (
        ("raft_large", Raft_Large_Weights.C_T_SKHT_V2),
        ("raft_small", Raft_Small_Weights.C_T_V2),
    ):
        need = make("optical_flow", {"backend": backend}).weights_needed()["raft"]
        assert need.url == weights.url
        assert need.id == f"torchvision/{backend}-{weights.name}"


def test_a_licence_is_accepted_wherever_the_file_lies(tmp_path: Path) -> None:
    (path := tmp_path / "own.pth").write_bytes(CONTENT)
    for given in (None, str(path), "someone/model", "someone/model@main"):
        with pytest.raises(ModelError, match=r"forbids commercial use.*--accept-license someone/model"):
            find_weights("tracker", NEED, given=given, may_download=False)
    found = find_weights("tracker", NEED, given=str(path), may_download=False, accepted=frozenset({NEED.id}))
    assert found.license == "CC-BY-NC-4.0 (that of someone/model; file as given)"
    assert found.id == "own.pth"
    # Another model has a licence of its own, which is the user's to know.
    with pytest.raises(ModelError, match=r"another/model .tracker. is not on this machine"):
        find_weights("tracker", NEED, given="another/model", may_download=False)


def test_a_file_that_is_named_keeps_the_licence_of_its_model(tmp_path: Path) -> None:
    (path := tmp_path / "raft.pth").write_bytes(CONTENT)
    need = make("optical_flow").weights_needed()["raft"]
    found = find_weights("raft", need, given=str(path), may_download=False)
    assert found.license == "BSD-3-Clause (that of torchvision/raft_large-C_T_SKHT_V2; file as given)"
    unknown = find_weights("embedding", ModelNeed(id="mine", license=""), given=str(path), may_download=False)
    assert unknown.license == "as given"
