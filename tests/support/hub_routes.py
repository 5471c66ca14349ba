"""Which request of the Hub's protocol is which, and who answers it."""

import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from support import hub_reading, hub_writing
from support.hub_store import HubError, Store
from support.hub_traffic import Answer, Call, Kind, as_json

Handle = Callable[[Store, Call], Answer]
_API = r"/api/(?P<type>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_PAGE = r"/(?:(?P<type>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"
_LFS = rf"/lfs{_PAGE}/(?P<oid>[0-9a-f]{{64}})"
_REVISION = r"(?P<revision>refs(?:/|%2F)(?:pr|convert)(?:/|%2F)[^/]+|[^/]+)"


def _xet_token(store: Store, call: Call) -> Answer:
    if call.parts["access"] == "write":
        store.writable(call.token, *call.repo)
    store.readable(call.token, *call.repo)
    if store.xet is None:
        raise HubError(404, "Xet is off")
    expiry = int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": store.xet.url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expiry)}
    return as_json({"casUrl": store.xet.url, "accessToken": "xet", "exp": expiry}, headers=headers)


_ROUTES: list[tuple[str, str, Kind, Handle]] = [
    ("POST", "/api/repos/create", "create", hub_writing.create),
    ("POST|DELETE", "/api/repos/delete", "delete", hub_writing.delete),
    ("GET", "/api/whoami-v2", "whoami", hub_reading.whoami),
    ("POST", "/api/validate-yaml", "validate-yaml", hub_reading.validate_yaml),
    ("GET", rf"{_API}(?:/revision/(?P<revision>[^/]+))?", "info", hub_reading.info),
    ("GET", rf"{_API}/auth-check(?P<write>/write)?", "auth-check", hub_reading.auth_check),
    ("GET", rf"{_API}/refs", "refs", hub_reading.refs),
    ("GET", rf"{_API}/commits/{_REVISION}", "commits", hub_reading.commits),
    ("GET", rf"{_API}/tree/{_REVISION}(?:/(?P<path>.*))?", "tree", hub_reading.tree),
    ("POST", rf"{_API}/paths-info/{_REVISION}", "paths-info", hub_reading.paths_info),
    ("GET|HEAD", rf"{_PAGE}/resolve/{_REVISION}/(?P<path>.+)", "resolve", hub_reading.resolve),
    ("PUT", rf"{_API}/settings", "settings", hub_writing.settings),
    ("POST|DELETE", rf"{_API}/branch/(?P<branch>.+)", "branch", hub_writing.branch),
    ("POST|DELETE", rf"{_API}/tag/(?P<revision>.+)", "tag", hub_writing.tag),
    ("POST", rf"{_API}/preupload/{_REVISION}", "preupload", hub_writing.preupload),
    ("POST", rf"{_PAGE}\.git/info/lfs/objects/batch", "lfs-batch", hub_writing.lfs_batch),
    ("PUT", _LFS, "lfs-upload", hub_writing.lfs_upload),
    ("PUT", rf"{_LFS}/parts/(?P<number>\d+)", "lfs-upload", hub_writing.lfs_upload_part),
    ("POST", _LFS, "lfs-complete", hub_writing.lfs_complete),
    ("POST", rf"{_LFS}/verify", "lfs-verify", hub_writing.lfs_verify),
    ("POST", rf"{_API}/commit/{_REVISION}", "commit", hub_writing.commit),
    ("GET", rf"{_API}/discussions/(?P<number>\d+)", "discussion", hub_writing.discussion),
    ("POST", rf"{_API}/discussions", "discussion", hub_writing.discussion),
    ("GET", rf"{_API}/xet-(?P<access>read|write)-token/{_REVISION}", "xet-token", _xet_token),
]


def _other(store: Store, call: Call) -> Answer:
    raise HubError(404, f"no such page: {call.method} {call.path}")


def find(method: str, path: str) -> tuple[Kind, Handle, Mapping[str, str]]:
    """Kind, answerer and named pieces of a path as sent; a piece that is not there is empty."""
    for methods, pattern, kind, handle in _ROUTES:
        found = re.fullmatch(pattern, path)
        if found and method in methods.split("|"):
            return kind, handle, {name: unquote(text or "") for name, text in found.groupdict().items()}
    return "other", _other, {}
