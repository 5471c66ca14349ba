"""What the loopback Hub keeps: blobs on disk, repositories, refs, and commits as immutable snapshots."""

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from support.hub_xet import XetStore

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {num_bytes}\n"


class HubError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_oid(data: bytes) -> str:
    """The git object id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Who a token stands for."""

    name: str
    """User name, also a namespace of repositories."""
    organizations: tuple[str, ...] = ()
    """Further namespaces whose private repositories it sees."""
    can_write: bool = True
    """Whether the token may change what it sees."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """The content of one file."""

    sha256: str
    """Of the content, hexadecimal."""
    num_bytes: int
    """Size of the content."""
    oid: str
    """Git object id: of the content, or of the LFS pointer."""
    is_lfs: bool
    """Whether git holds a pointer instead of the content."""

    @property
    def etag(self) -> str:
        """What the client compares: sha256 of an LFS file, git id of a regular one."""
        return self.sha256 if self.is_lfs else self.oid


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One state of a repository."""

    oid: str
    """40 hexadecimal digits."""
    parent: str | None
    """`oid` of the commit before it."""
    title: str
    """First line of the message."""
    message: str
    """The rest."""
    author: str
    """User name."""
    date: str
    """ISO 8601."""
    files: Mapping[str, Blob]
    """Path -> content; never changed."""

    def under(self, path: str) -> dict[str, Blob]:
        """The file at a path, or the files below it."""
        return {at: blob for at, blob in self.files.items() if not path or at == path or at.startswith(f"{path}/")}


@dataclass(kw_only=True)
class Repo:
    """A repository."""

    kind: str
    """model, dataset or space."""
    repo_id: str
    """namespace/name."""
    is_private: bool
    """Hidden from accounts outside of its namespace."""
    created: str = field(default_factory=now)
    """ISO 8601."""
    commits: dict[str, Commit] = field(default_factory=dict)
    """oid -> commit, oldest first."""
    branches: dict[str, str] = field(default_factory=dict)
    """Name -> oid."""
    tags: dict[str, str] = field(default_factory=dict)
    """Name -> oid."""
    pulls: dict[str, str] = field(default_factory=dict)
    """refs/pr/N -> oid."""
    pull_titles: dict[str, str] = field(default_factory=dict)
    """refs/pr/N -> title."""
    lfs_oids: set[str] = field(default_factory=set)
    """sha256 of the LFS objects received, committed or not."""

    @property
    def url_path(self) -> str:
        """Path of its page, without the leading slash."""
        return self.repo_id if self.kind == "model" else f"{self.kind}s/{self.repo_id}"

    def at(self, revision: str = "main") -> Commit:
        """The commit of a branch, a tag, a ref or a (shortened) commit oid."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.branches.get(name) or self.tags.get(name) or self.pulls.get(name)
        if oid is None and re.fullmatch("[0-9a-f]{7,40}", name):
            oid = next((known for known in self.commits if known.startswith(name)), None)
        if oid is None:
            raise HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        return self.commits[oid]

    def history(self, commit: Commit) -> Iterator[Commit]:
        """A commit and all before it, newest first."""
        yield commit
        while commit.parent is not None:
            commit = self.commits[commit.parent]
            yield commit

    def last_change(self, commit: Commit, path: str) -> Commit:
        """The newest commit, up to the given one, that changed a file or a folder."""
        for change in self.history(commit):
            if change.parent is None or self.commits[change.parent].under(path) != change.under(path):
                return change
        raise AssertionError("a history ends with a commit without parent")

    def add(self, files: Mapping[str, Blob], *, parent: Commit | None, title: str, message: str, author: str) -> Commit:
        """Keep a new snapshot; no ref points to it yet."""
        oid = hashlib.sha1(f"{self.repo_id} {len(self.commits)} {title} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = Commit(
            oid=oid,
            parent=parent.oid if parent else None,
            title=title,
            message=message,
            author=author,
            date=now(),
            files=dict(files),
        )
        return self.commits[oid]

    def point(self, revision: str, oid: str) -> None:
        """Move a branch or a pull request to a commit."""
        (self.pulls if revision.startswith("refs/pr/") else self.branches)[revision] = oid

    def open_pull(self, title: str, *, oid: str) -> str:
        """A new pull request: its ref."""
        ref = f"refs/pr/{len(self.pulls) + 1}"
        self.pulls[ref], self.pull_titles[ref] = oid, title
        return ref


@dataclass(kw_only=True)
class Store:
    """All repositories, accounts and blobs; `lock` guards the repositories."""

    folder: Path
    """Holds the blobs, one file each, named by sha256."""
    accounts: Mapping[str, Account]
    """Token -> who it stands for."""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    """(kind, repo_id) -> repository."""
    page_size: int = 1000
    """Most entries of a page of a tree or of a list of commits."""
    part_bytes: int | None = None
    """LFS objects above this size come in parts of it; None = always in one piece."""
    xet: XetStore | None = None
    """Where blobs are that did not come through this server."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a blob lies."""
        path = self.folder / "blobs" / sha256
        if self.xet is not None and not path.exists():
            self.xet.fetch(sha256, path)
        return path

    def has(self, sha256: str) -> bool:
        """Whether a blob is here or in the Xet store."""
        return (self.folder / "blobs" / sha256).exists() or (self.xet is not None and self.xet.find(sha256) is not None)

    def regular(self, data: bytes) -> Blob:
        """Keep the content of a regular file."""
        sha256 = self.receive([data])
        return Blob(sha256=sha256, num_bytes=len(data), oid=git_oid(data), is_lfs=False)

    def lfs(self, sha256: str, num_bytes: int) -> Blob:
        """A blob whose content was uploaded apart."""
        oid = git_oid(POINTER.format(sha256=sha256, num_bytes=num_bytes).encode())
        return Blob(sha256=sha256, num_bytes=num_bytes, oid=oid, is_lfs=True)

    def receive(self, pieces: Iterable[bytes], *, sha256: str | None = None) -> str:
        """Stream a blob to disk; returns its sha256, which must be the expected one if given."""
        digest = hashlib.sha256()
        temporary = self.folder / f"incoming-{threading.get_ident()}"
        try:
            with temporary.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            if sha256 not in (None, digest.hexdigest()):
                raise HubError(400, f"content has sha256 {digest.hexdigest()}, expected {sha256}")
            temporary.replace(self.folder / "blobs" / digest.hexdigest())
        finally:
            temporary.unlink(missing_ok=True)
        return digest.hexdigest()

    def account(self, token: str | None) -> Account | None:
        """Who asks; None without a token."""
        if token is None:
            return None
        if token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts[token]

    def writer(self, token: str | None, namespace: str) -> Account:
        """Who asks, if it may write to a namespace."""
        account = self.account(token)
        if account is None:
            raise HubError(401, "Invalid username or password.", code="RepoNotFound")
        if not account.can_write or namespace not in (account.name, *account.organizations):
            raise HubError(403, f"Forbidden: you don't have the rights to write to {namespace}")
        return account

    def readable(self, token: str | None, kind: str, repo_id: str) -> Repo:
        """A repository, if the token may see it."""
        account = self.account(token)
        repo = self.repos.get((kind, repo_id))
        namespaces = (account.name, *account.organizations) if account else ()
        if repo is None or (repo.is_private and repo_id.partition("/")[0] not in namespaces):
            # The Hub tells nobody whether a repository is missing or private.
            if account is None:
                raise HubError(401, "Invalid username or password.", code="RepoNotFound")
            raise HubError(404, "Repository not found", code="RepoNotFound")
        return repo

    def writable(self, token: str | None, kind: str, repo_id: str) -> tuple[Repo, Account]:
        """A repository and who asks, if the token may change it."""
        repo = self.readable(token, kind, repo_id)
        return repo, self.writer(token, repo_id.partition("/")[0])

    def create(self, kind: str, repo_id: str, *, is_private: bool, author: str) -> Repo:
        """A new repository with its first commit."""
        repo = Repo(kind=kind, repo_id=repo_id, is_private=is_private)
        attributes = self.regular(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n")
        first = repo.add({".gitattributes": attributes}, parent=None, title="initial commit", message="", author=author)
        repo.branches["main"] = first.oid
        self.repos[kind, repo_id] = repo
        return repo
