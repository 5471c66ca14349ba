"""Names of datasets on the Hub, as users write them: `org/name`, `org/name@revision`, `hf://datasets/org/name`."""

import os
import re
from dataclasses import dataclass
from typing import Final

_REPO: Final = re.compile(r"(?:hf://datasets/)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^@]+?))?/?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class RepoName:
    """A dataset on the Hub."""

    repo_id: str
    """`org/name`"""
    revision: str | None
    """Branch, tag or commit, if the name has one."""


def parse_repo(text: str) -> RepoName | None:
    """The dataset that a text names; None: it names none."""
    match = _REPO.fullmatch(text)
    return None if match is None else RepoName(repo_id=match["repo"], revision=match["revision"])


def pull_hint(path: str | os.PathLike[str]) -> str:
    """For a message that `path`, as the user wrote it, is no built dataset here: how to get it if it is on the Hub."""
    # A Path makes one slash of two.
    text = re.sub("^hf:/+datasets/", "", os.fspath(path))
    if os.path.exists(text) or not _PLAIN.fullmatch(text):
        return ""
    return f"; if it is on the Hub, fetch it first: `civid pull {text} FOLDER`"


def url_hint(root: str) -> str:
    """For a message that `root`, as the user wrote it, is no folder of videos: its URL if it is on the Hub."""
    return f"; or did you mean the dataset on the Hub, 'hf://datasets/{root}'?" if _PLAIN.fullmatch(root) else ""
