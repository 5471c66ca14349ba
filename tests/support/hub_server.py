"""A Hugging Face Hub on 127.0.0.1 for the real clients: it keeps repositories, counts, and fails in chosen ways."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.hub_http import HubListener
from support.hub_store import Account, Blob, Commit, Repo, Store
from support.hub_traffic import Call, Drop, Fault, Kind, Request
from support.hub_writing import LFS_NUM_BYTES, LFS_SUFFIXES
from support.hub_xet import XetStore

WRITER_TOKEN, READER_TOKEN, STRANGER_TOKEN = "hf_writer", "hf_reader", "hf_stranger"
ACCOUNTS = {
    WRITER_TOKEN: Account(name="maker", organizations=("org",)),
    READER_TOKEN: Account(name="maker", organizations=("org",), can_write=False),
    STRANGER_TOKEN: Account(name="stranger"),
}
"""Repositories of the tests are called org/..."""


class HubServer:
    """A running Hub; `with HubServer(folder) as hub`. Blobs are kept below the folder, nothing else is."""

    def __init__(
        self,
        folder: Path,
        *,
        accounts: Mapping[str, Account] | None = None,
        is_xet: bool = False,
        part_bytes: int | None = None,
        page_size: int = 1000,
    ) -> None:
        xet = XetStore(folder=folder / "cas") if is_xet else None
        self.store = Store(
            folder=folder, accounts=accounts or ACCOUNTS, page_size=page_size, part_bytes=part_bytes, xet=xet
        )
        self._listener = HubListener(self.store)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)
        self.endpoint = self._listener.endpoint
        self.faults = self._listener.faults

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
        if self._listener.crashes and error is None:
            raise AssertionError("the loopback Hub broke down:\n" + "\n".join(self._listener.crashes))

    def environment(self, *, home: Path, token: str | None = WRITER_TOKEN) -> dict[str, str]:
        """Variables of a client process; they count only when set before it imports huggingface_hub."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1" if self.store.xet is None else "0",
        }
        return variables if token is None else variables | {"HF_TOKEN": token}

    def run(
        self, script: str, *arguments: str, home: Path, token: str | None = WRITER_TOKEN, limit_seconds: float = 120.0
    ) -> Any:
        """Run Python code as a client process of its own; returns the JSON of the last line that it prints."""
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
        ended = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=inherited | self.environment(home=home, token=token),
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            check=False,
        )
        if ended.returncode != 0:
            raise AssertionError(f"the client ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
        return json.loads(ended.stdout.splitlines()[-1])

    def fail(
        self,
        match: Kind | Callable[[Call], bool],
        *,
        after: int = 0,
        times: int = 1,
        status: int | None = None,
        retry_after_seconds: int | None = None,
        rate_limit_reset_seconds: int | None = None,
        drop: Drop | None = None,
        latency_seconds: float = 0.0,
        bytes_per_second: float | None = None,
        action: Callable[[Call], None] | None = None,
    ) -> Fault:
        """Arm a fault; see `Fault`."""
        fault = Fault(
            match=match,
            after=after,
            times=times,
            status=status,
            retry_after_seconds=retry_after_seconds,
            rate_limit_reset_seconds=rate_limit_reset_seconds,
            drop=drop,
            latency_seconds=latency_seconds,
            bytes_per_second=bytes_per_second,
            action=action,
        )
        self.faults.add(fault)
        return fault

    def wait_for_clients(self, *, limit_seconds: float = 20.0) -> None:
        """Wait until what dead clients had sent is dealt with and counted; live ones keep their connections."""
        self._listener.wait_for_clients(limit_seconds)

    @property
    def requests(self) -> list[Request]:
        """All so far, in the order in which they were answered."""
        return self._listener.log.requests

    def forget_requests(self) -> None:
        """Count from here on."""
        self._listener.log.clear()

    def select(self, kind: Kind | None = None, *, path: str | None = None) -> list[Request]:
        """Requests of a kind; of a file in a repository: its downloads, and its LFS uploads once it is committed."""
        with self.store.lock:
            commits = [commit for repo in self.store.repos.values() for commit in repo.commits.values()]
        oids = {commit.files[path].sha256 for commit in commits if path is not None and path in commit.files}
        return [
            request
            for request in self.requests
            if kind in (None, request.kind) and (path is None or request.repo_path == path or request.oid in oids)
        ]

    def count(self, kind: Kind | None = None, *, path: str | None = None) -> int:
        """Number of requests; see `select`."""
        return len(self.select(kind, path=path))

    def bytes_received(self, kind: Kind | None = None, *, path: str | None = None) -> int:
        """Of the bodies of requests, those of failed ones too; see `select`."""
        return sum(request.num_bytes_received for request in self.select(kind, path=path))

    def bytes_sent(self, kind: Kind | None = None, *, path: str | None = None) -> int:
        """Of the bodies of answers; see `select`."""
        return sum(request.num_bytes_sent for request in self.select(kind, path=path))

    def repo(self, repo_id: str, *, kind: str = "dataset") -> Repo:
        """The state of a repository."""
        return self.store.repos[kind, repo_id]

    def read(self, repo_id: str, path: str, *, revision: str = "main", kind: str = "dataset") -> bytes:
        """The content of a file."""
        return self.store.path(self.repo(repo_id, kind=kind).at(revision).files[path].sha256).read_bytes()

    def create(self, repo_id: str, *, is_private: bool = False, kind: str = "dataset") -> Repo:
        """Make a repository without a client."""
        with self.store.lock:
            return self.store.create(kind, repo_id, is_private=is_private, author="maker")

    def write(
        self, repo_id: str, files: Mapping[str, bytes | None], *, branch: str = "main", kind: str = "dataset"
    ) -> Commit:
        """Commit files without a client, as another writer would; None deletes."""
        with self.store.lock:
            repo = self.repo(repo_id, kind=kind)
            parent = repo.at(branch)
            merged: dict[str, Blob | None] = dict(parent.files)
            merged |= {path: None if data is None else self._blob(repo, path, data) for path, data in files.items()}
            kept = {path: blob for path, blob in merged.items() if blob is not None}
            made = repo.add(kept, parent=parent, title="written by the test", message="", author="maker")
            repo.point(branch, made.oid)
            return made

    def _blob(self, repo: Repo, path: str, data: bytes) -> Blob:
        if not path.endswith(LFS_SUFFIXES) and len(data) < LFS_NUM_BYTES:
            return self.store.regular(data)
        sha256 = self.store.receive([data])
        repo.lfs_oids.add(sha256)
        return self.store.lfs(sha256, len(data))
