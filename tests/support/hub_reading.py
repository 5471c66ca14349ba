"""What the loopback Hub answers to requests that only look."""

import re
from typing import Any
from urllib.parse import parse_qs, urlencode

import yaml

from support.hub_store import POINTER, Blob, Commit, HubError, Repo, Store, git_oid
from support.hub_traffic import Answer, Call, as_json

EXPANDED_PAGE_SIZE = 50
"""Entries of a page whose entries tell their last commit; the Hub's own number."""


def whoami(store: Store, call: Call) -> Answer:
    """GET /api/whoami-v2."""
    account = store.account(call.token)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    role = "write" if account.can_write else "read"
    return as_json(
        {
            "type": "user",
            "id": git_oid(account.name.encode())[:24],
            "name": account.name,
            "fullname": account.name,
            "orgs": [{"type": "org", "name": name, "roleInOrg": role} for name in account.organizations],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}},
        }
    )


def auth_check(store: Store, call: Call) -> Answer:
    """GET /api/{kind}s/{id}/auth-check[/write]."""
    if call.parts["write"]:
        store.writable(call.token, *call.repo)
    store.readable(call.token, *call.repo)
    return as_json({})


def info(store: Store, call: Call) -> Answer:
    """GET /api/{kind}s/{id}[/revision/{revision}]."""
    repo = store.readable(call.token, *call.repo)
    commit = repo.at(call.parts["revision"] or "main")
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
    if call.query.get("blobs", "").lower() in ("1", "true"):
        siblings = [_file_entry(path, blob) | {"rfilename": path} for path, blob in sorted(commit.files.items())]
        for sibling in siblings:
            sibling["blobId"] = sibling.pop("oid")
            if "lfs" in sibling:
                sibling["lfs"]["sha256"] = sibling["lfs"]["oid"]
    return as_json(
        {
            "_id": git_oid(repo.repo_id.encode())[:24],
            "id": repo.repo_id,
            "author": repo.repo_id.partition("/")[0],
            "sha": commit.oid,
            "private": repo.is_private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "createdAt": repo.created,
            "lastModified": commit.date,
            "siblings": siblings,
        }
    )


def refs(store: Store, call: Call) -> Answer:
    """GET /api/{kind}s/{id}/refs."""
    repo = store.readable(call.token, *call.repo)

    def listed(prefix: str, oids: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": oid} for name, oid in oids.items()]

    pulls = {ref.removeprefix("refs/"): oid for ref, oid in repo.pulls.items()}
    return as_json(
        {
            "branches": listed("refs/heads/", repo.branches),
            "tags": listed("refs/tags/", repo.tags),
            "converts": [],
            "pullRequests": listed("refs/", pulls) if "include_prs" in call.query else [],
        }
    )


def commits(store: Store, call: Call) -> Answer:
    """GET /api/{kind}s/{id}/commits/{revision}, newest first."""
    repo = store.readable(call.token, *call.repo)
    listed = []
    for commit in repo.history(repo.at(call.query.get("cursor", call.parts["revision"]))):
        entry: dict[str, Any] = {"id": commit.oid, "title": commit.title, "message": commit.message}
        listed.append(entry | {"date": commit.date, "authors": [{"user": commit.author}]})
        if call.query.get("expand[]") == "formatted":
            listed[-1]["formatted"] = {"title": commit.title, "message": commit.message}
    page, rest = listed[: store.page_size], listed[store.page_size :]
    return as_json(page, headers=_next_page(call, rest[0]["id"] if rest else None))


def tree(store: Store, call: Call) -> Answer:
    """GET /api/{kind}s/{id}/tree/{revision}[/{path}], in pages of one commit."""
    repo = store.readable(call.token, *call.repo)
    oid, _, start = call.query.get("cursor", "").partition(":")
    commit = repo.at(oid or call.parts["revision"])
    folder = (call.parts["path"] or "").strip("/")
    below = {path: blob for path, blob in commit.under(folder).items() if path != folder}
    if folder and not below:
        raise HubError(404, f'{folder} does not exist on "{call.parts["revision"]}"', code="EntryNotFound")
    entries = _entries(below, folder=folder, is_recursive=call.query.get("recursive", "").lower() in ("1", "true"))
    is_expanded = call.query.get("expand", "").lower() in ("1", "true")
    begin, size = int(start or 0), min(store.page_size, EXPANDED_PAGE_SIZE) if is_expanded else store.page_size
    page = [_expanded(entry, repo, commit) if is_expanded else entry for entry in entries[begin : begin + size]]
    more = f"{commit.oid}:{begin + size}" if begin + size < len(entries) else None
    return as_json(page, headers=_next_page(call, more))


def paths_info(store: Store, call: Call) -> Answer:
    """POST /api/{kind}s/{id}/paths-info/{revision}; unknown paths are left out."""
    repo = store.readable(call.token, *call.repo)
    commit = repo.at(call.parts["revision"])
    form = parse_qs(call.body.read().decode())
    found = []
    for path in form.get("paths", []):
        if path in commit.files:
            found.append(_file_entry(path, commit.files[path]))
        elif below := commit.under(path.strip("/")):
            found.append(_folder_entry(path.strip("/"), below))
    is_expanded = form.get("expand", [""])[0].lower() in ("1", "true")
    return as_json([_expanded(entry, repo, commit) if is_expanded else entry for entry in found])


def resolve(store: Store, call: Call) -> Answer:
    """HEAD or GET /[{kind}s/]{id}/resolve/{revision}/{path}, with ranges."""
    repo = store.readable(call.token, *call.repo)
    commit = repo.at(call.parts["revision"])
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    blob = commit.files.get(call.parts["path"])
    if blob is None:
        raise HubError(404, "Entry not found", code="EntryNotFound", headers=headers)
    headers |= {"ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
    if blob.is_lfs:
        headers |= {"X-Linked-Size": str(blob.num_bytes), "X-Linked-Etag": f'"{blob.sha256}"'}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range", ""))
    start, stop = 0, blob.num_bytes
    if asked and asked[1]:
        start, stop = int(asked[1]), min(blob.num_bytes, int(asked[2] or blob.num_bytes - 1) + 1)
    elif asked and asked[2]:
        start = max(0, blob.num_bytes - int(asked[2]))
    if asked and start >= stop:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{blob.num_bytes}"})
    if asked:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.num_bytes}"
    # A HEAD must not fetch the content from elsewhere.
    file = None if call.method == "HEAD" else store.path(blob.sha256)
    headers["Content-Length"] = str(stop - start)
    return Answer(status=206 if asked else 200, headers=headers, file=file, start=start, num_bytes=stop - start)


def validate_yaml(store: Store, call: Call) -> Answer:
    """POST /api/validate-yaml: the metadata at the top of a README."""
    front = re.match(r"\s*---\r?\n(.*?)(^|\n)---[ \t]*(\r?\n|$)", call.json()["content"], re.DOTALL)
    errors, warnings = [], []
    if front is None or not front[1].strip():
        warnings = [{"message": "empty or missing yaml metadata in repo card"}]
    else:
        errors = [{"message": message} for message in _metadata_errors(front[1])]
    return as_json({"errors": errors, "warnings": warnings}, status=400 if errors else 200)


def _metadata_errors(text: str) -> list[str]:
    try:
        metadata = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}"]
    if not isinstance(metadata, dict):
        return [f"YAML Metadata Error: must be an object, not {type(metadata).__name__}"]
    configs = metadata.get("configs", [])
    if not isinstance(configs, list):
        return ['"configs" must be an array']
    return [
        f'"configs[{at}].config_name" is required'
        for at, config in enumerate(configs)
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str)
    ]


def _entries(below: dict[str, Blob], *, folder: str, is_recursive: bool) -> list[dict[str, Any]]:
    skipped = len(folder) + 1 if folder else 0
    entries = {}
    folders: dict[str, dict[str, Blob]] = {}
    for path, blob in below.items():
        names = path[skipped:].split("/")
        for depth in range(1, len(names)):
            folders.setdefault(path[:skipped] + "/".join(names[:depth]), {})[path] = blob
        if is_recursive or len(names) == 1:
            entries[path] = _file_entry(path, blob)
    for path, inside in folders.items():
        if is_recursive or "/" not in path[skipped:]:
            entries[path] = _folder_entry(path, inside)
    return [entries[path] for path in sorted(entries)]


def _file_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "oid": blob.oid, "size": blob.num_bytes, "path": path}
    pointer_bytes = len(POINTER.format(sha256=blob.sha256, num_bytes=blob.num_bytes))
    lfs = {"oid": blob.sha256, "size": blob.num_bytes, "pointerSize": pointer_bytes}
    return entry | ({"lfs": lfs} if blob.is_lfs else {})


def _folder_entry(path: str, inside: dict[str, Blob]) -> dict[str, Any]:
    listing = "".join(f"{at} {blob.oid}\n" for at, blob in sorted(inside.items()))
    return {"type": "directory", "oid": git_oid(listing.encode()), "size": 0, "path": path}


def _expanded(entry: dict[str, Any], repo: Repo, commit: Commit) -> dict[str, Any]:
    change = repo.last_change(commit, entry["path"])
    return entry | {"lastCommit": {"id": change.oid, "title": change.title, "date": change.date}}


def _next_page(call: Call, cursor: str | None) -> dict[str, str]:
    if cursor is None:
        return {}
    query = urlencode({**call.query, "cursor": cursor})
    return {"Link": f'<{call.endpoint}{call.path}?{query}>; rel="next"'}
