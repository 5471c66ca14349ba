"""What the loopback Hub answers to requests that change something."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.hub_store import Blob, Commit, HubError, Repo, Store, now
from support.hub_traffic import PIECE_BYTES, Answer, Call, as_json

LFS_SUFFIXES = (
    ".parquet", ".arrow", ".mp4", ".mkv", ".webm", ".avi", ".mov",
    ".tar", ".zip", ".gz", ".zst", ".bin", ".npz", ".npy",
)  # fmt: skip
LFS_NUM_BYTES = 10 << 20
"""Files of this size go to LFS, whatever their name."""


def create(store: Store, call: Call) -> Answer:
    """POST /api/repos/create."""
    asked = call.json()
    kind, repo_id = _named(store, call, asked)
    account = store.writer(call.token, repo_id.partition("/")[0])
    is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
    known = store.repos.get((kind, repo_id))
    repo = known or store.create(kind, repo_id, is_private=is_private, author=account.name)
    answer = {"url": f"{call.endpoint}/{repo.url_path}", "name": repo_id, "id": repo_id}
    # The client takes the address from the refusal, too.
    return as_json(answer | {"error": "You already created this repo"}, status=409) if known else as_json(answer)


def delete(store: Store, call: Call) -> Answer:
    """DELETE /api/repos/delete."""
    kind, repo_id = _named(store, call, call.json())
    store.writable(call.token, kind, repo_id)
    del store.repos[kind, repo_id]
    return as_json({})


def settings(store: Store, call: Call) -> Answer:
    """PUT /api/{kind}s/{id}/settings: who may read it."""
    repo, _ = store.writable(call.token, *call.repo)
    asked = call.json()
    if "private" in asked or "visibility" in asked:
        repo.is_private = bool(asked.get("private")) or asked.get("visibility") == "private"
    return as_json({})


def branch(store: Store, call: Call) -> Answer:
    """POST or DELETE /api/{kind}s/{id}/branch/{branch}."""
    repo, _ = store.writable(call.token, *call.repo)
    name = call.parts["branch"]
    if call.method == "POST":
        start = call.json().get("startingPoint", "main")
        if name in repo.branches:
            raise HubError(409, f"Reference already exists: refs/heads/{name}")
        repo.branches[name] = repo.at(start).oid
    elif name == "main":
        raise HubError(403, "Cannot delete the main branch")
    else:
        repo.at(f"refs/heads/{name}")
        repo.branches.pop(name)
    return as_json({})


def tag(store: Store, call: Call) -> Answer:
    """POST /api/{kind}s/{id}/tag/{revision} or DELETE .../tag/{tag}."""
    repo, _ = store.writable(call.token, *call.repo)
    name = call.parts["revision"]
    if call.method == "POST":
        asked = call.json()["tag"]
        if asked in repo.tags:
            raise HubError(409, f"Tag reference exists already: refs/tags/{asked}")
        repo.tags[asked] = repo.at(name).oid
    elif repo.tags.pop(name, None) is None:
        raise HubError(404, f"Tag not found: {name}", code="RevisionNotFound")
    return as_json({})


def preupload(store: Store, call: Call) -> Answer:
    """POST /api/{kind}s/{id}/preupload/{revision}: how each file must come, and what is there now."""
    repo, _ = store.writable(call.token, *call.repo)
    files = repo.at(call.parts["revision"]).files
    answers = []
    for file in call.json()["files"]:
        is_lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] >= LFS_NUM_BYTES
        answer = {"path": file["path"], "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False}
        answers.append(answer | ({"oid": files[file["path"]].etag} if file["path"] in files else {}))
    return as_json({"files": answers})


def lfs_batch(store: Store, call: Call) -> Answer:
    """POST /[{kind}s/]{id}.git/info/lfs/objects/batch: no actions for an object that is there already."""
    repo, _ = store.writable(call.token, *call.repo)
    asked = call.json()
    part_bytes = store.part_bytes if "multipart" in asked.get("transfers", []) else None
    root = f"{call.endpoint}/lfs/{repo.url_path}"
    objects = []
    for one in asked["objects"]:
        oid, num_bytes = one["oid"], one["size"]
        objects.append({"oid": oid, "size": num_bytes})
        if oid in repo.lfs_oids:
            continue
        upload: dict[str, Any] = {"href": f"{root}/{oid}", "header": {}}
        if part_bytes is not None and num_bytes > part_bytes:
            upload["header"] = {"chunk_size": str(part_bytes)}
            for number in range(1, -(-num_bytes // part_bytes) + 1):
                upload["header"][f"{number:05d}"] = f"{root}/{oid}/parts/{number}"
        objects[-1]["actions"] = {"upload": upload, "verify": {"href": f"{root}/{oid}/verify", "header": {}}}
    is_multipart = any(len(one.get("actions", {}).get("upload", {}).get("header", {})) for one in objects)
    return as_json({"transfer": "multipart" if is_multipart else "basic", "objects": objects})


def lfs_upload(store: Store, call: Call) -> Answer:
    """PUT the whole of an object; like the storage behind the Hub it wants no token."""
    store.receive(call.body, sha256=call.parts["oid"])
    _arrived(store, call)
    return Answer()


def lfs_upload_part(store: Store, call: Call) -> Answer:
    """PUT a part of an object."""
    path = _part(store, call, call.parts["number"])
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5()
    with path.open("wb") as file:
        for piece in call.body:
            digest.update(piece)
            file.write(piece)
    return Answer(headers={"ETag": f'"{digest.hexdigest()}"'})


def lfs_complete(store: Store, call: Call) -> Answer:
    """POST the list of parts: they become the object."""
    asked = call.json()
    parts = [_part(store, call, str(part["partNumber"])) for part in asked["parts"]]
    for path, part in zip(parts, asked["parts"], strict=True):
        if not path.exists() or hashlib.md5(path.read_bytes()).hexdigest() != part["etag"].strip('"'):
            raise HubError(400, f"part {part['partNumber']} of {asked['oid']} is missing or has another etag")

    def content() -> Iterator[bytes]:
        for path in parts:
            with path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece

    store.receive(content(), sha256=call.parts["oid"])
    for path in parts:
        path.unlink()
    _arrived(store, call)
    return as_json({})


def lfs_verify(store: Store, call: Call) -> Answer:
    """POST {oid, size}: whether the object arrived."""
    repo, _ = store.writable(call.token, *call.repo)
    asked = call.json()
    if asked["oid"] not in repo.lfs_oids or store.path(asked["oid"]).stat().st_size != asked["size"]:
        raise HubError(404, f"object {asked['oid']} of {asked['size']} bytes does not exist")
    return as_json({})


def discussion(store: Store, call: Call) -> Answer:
    """POST /api/{kind}s/{id}/discussions opens a draft pull request; GET .../discussions/{number} tells about it."""
    if call.method == "POST":
        repo, _ = store.writable(call.token, *call.repo)
        asked = call.json()
        if not asked.get("pullRequest"):
            raise HubError(501, "only pull requests can be opened here")
        ref = repo.open_pull(asked["title"], oid=repo.branches["main"])
        return as_json({"num": int(ref.removeprefix("refs/pr/"))})
    repo = store.readable(call.token, *call.repo)
    ref = f"refs/pr/{call.parts['number']}"
    if ref not in repo.pulls:
        raise HubError(404, "Discussion not found")
    about = {"num": int(call.parts["number"]), "title": repo.pull_titles[ref], "status": "draft", "createdAt": now()}
    changes = {"isPullRequest": True, "changes": {"base": "refs/heads/main"}, "filesWithConflicts": [], "diff": ""}
    where = {"author": {"name": "author"}, "repo": {"name": repo.repo_id, "type": repo.kind}, "events": []}
    return as_json(about | changes | where)


@dataclass(kw_only=True)
class _Change:
    repo: Repo
    store: Store
    files: dict[str, Blob]
    header: dict[str, Any] = field(default_factory=dict)

    def apply(self, key: str, value: dict[str, Any]) -> None:
        """One line of a commit."""
        path = value.get("path", "").strip("/")
        if key == "header":
            self.header = value
        elif key == "file":
            self.files[path] = self.store.regular(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            self.files[path] = self._lfs(value["oid"], value.get("size"))
        elif key in ("deletedFile", "deletedFolder"):
            gone = [at for at in self.files if at == path or (key == "deletedFolder" and at.startswith(f"{path}/"))]
            if not gone:
                raise HubError(404, f"{path} does not exist", code="EntryNotFound")
            for at in gone:
                del self.files[at]
        else:
            raise HubError(400, f"unknown operation {key!r} in a commit")

    def _lfs(self, oid: str, num_bytes: int | None) -> Blob:
        known = (blob for commit in self.repo.commits.values() for blob in commit.files.values())
        if num_bytes is None:  # A copy within the repository.
            num_bytes = next((blob.num_bytes for blob in known if blob.sha256 == oid), None)
        if num_bytes is None or (oid not in self.repo.lfs_oids and not self.store.has(oid)):
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {oid}")
        self.repo.lfs_oids.add(oid)
        return self.store.lfs(oid, num_bytes)


def commit(store: Store, call: Call) -> Answer:
    """POST /api/{kind}s/{id}/commit/{revision}, one JSON object a line."""
    lines = [json.loads(line) for line in call.body.read().splitlines() if line.strip()]
    repo, account = store.writable(call.token, *call.repo)
    revision, is_pull = call.parts["revision"], call.query.get("create_pr") == "1"
    parent = repo.at(revision)
    if revision not in repo.branches and revision not in repo.pulls:
        raise HubError(400, f"Commits go to a branch or a pull request, not to {revision}")
    change = _Change(repo=repo, store=store, files=dict(parent.files))
    for line in lines:
        change.apply(line["key"], line["value"])
        if line["key"] == "header" and not is_pull:
            _check_parent(parent, line["value"])
    title = change.header.get("summary", "")
    message = change.header.get("description", "")
    made = repo.add(change.files, parent=parent, title=title, message=message, author=account.name)
    if is_pull:
        revision = repo.open_pull(title, oid=made.oid)
    repo.point(revision, made.oid)
    page = f"{call.endpoint}/{repo.url_path}"
    pull_url = f"{page}/discussions/{revision.removeprefix('refs/pr/')}" if is_pull else None
    answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{page}/commit/{made.oid}"}
    return as_json(answer | {"pullRequestUrl": pull_url})


def _check_parent(parent: Commit, header: dict[str, Any]) -> None:
    expected = header.get("parentCommit")
    if expected is not None and not parent.oid.startswith(expected):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")


def _named(store: Store, call: Call, asked: dict[str, Any]) -> tuple[str, str]:
    account = store.account(call.token)
    namespace = asked.get("organization") or (account.name if account else "")
    return asked.get("type") or "model", f"{namespace}/{asked['name']}"


def _arrived(store: Store, call: Call) -> None:
    with store.lock:
        if call.repo not in store.repos:
            raise HubError(404, "Repository not found", code="RepoNotFound")
        store.repos[call.repo].lfs_oids.add(call.parts["oid"])


def _part(store: Store, call: Call, number: str) -> Path:
    return store.folder / "parts" / call.parts["oid"] / number
