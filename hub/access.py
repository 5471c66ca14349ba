"""A dataset on the Hub at one commit, and what the Hub's errors mean for the user.

Everything is read at the commit a revision stood at when it was resolved: what others push meanwhile is not seen.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from civid_loader.errors import CividLoaderError, HubError
from civid_loader.repo_names import parse_repo

TRANSPORT_ERROR: Final[type[Exception]] = next(k for k in HfHubHTTPError.__mro__ if k.__name__ == "HTTPError")
"""What the client's HTTP library raises, of whatever name: huggingface_hub changed it between versions."""
REFUSED_BY_STORAGE: Final = frozenset({400, 403, 404})
"""Answers to an upload whose address is out of date, or whose pieces were put together already."""
MAIN: Final = "main"
_TOKEN: Final = re.compile(r"hf_\w{8,}|(?i:bearer)\s+\S+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A dataset repository at one commit."""

    repo_id: str
    """`org/name`"""
    sha: str
    """Of the commit."""
    is_private: bool
    token: str | None = field(repr=False)
    """As given; None: the one huggingface_hub keeps, if any."""

    @property
    def api(self) -> HfApi:
        """A client of the Hub with the token."""
        return HfApi(token=self.token)

    def url(self, path: str) -> str:
        """A file as fsspec opens it, always of this commit."""
        return f"hf://datasets/{self.repo_id}@{self.sha}/{path}"


def resolve(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Snapshot:
    """The commit that a branch, a tag or a hash names now.

    Raises:
        HubError: no such repository or revision, no permission, or no connection.
    """
    with hub_errors(repo_id, revision):
        return snapshot_of(repo_id, revision=revision, token=token)


def snapshot_of(repo_id: str, *, revision: str | None, token: str | None) -> Snapshot:
    """The same, with the errors of huggingface_hub as they come."""
    info = HfApi(token=token).dataset_info(repo_id, revision=revision)
    return Snapshot(repo_id=repo_id, sha=str(info.sha), is_private=bool(info.private), token=token)


def repository(text: str) -> str:
    """`org/name` of what a user wrote: that, or the address of the dataset.

    Raises:
        HubError: it names no repository, or one at a revision.
    """
    named = parse_repo(text.removeprefix("https://huggingface.co/datasets/"))
    if named is not None and named.revision is not None:
        raise HubError(f"{text}: a push goes to the end of a branch; give {named.repo_id} and --branch (branch=)")
    if named is not None:
        return named.repo_id
    raise HubError(
        f"{text}: a repository is named org/name, your own name or that of an organization before the slash, such as "
        f"me/{re.sub(r'[^a-zA-Z0-9_.-]+', '-', text).strip('-') or 'data'}"
    )


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Errors of huggingface_hub as ours: what, of which repository, and what to do. They never show a token."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, TRANSPORT_ERROR) as error:
        message = _message(error, revision)
        if message is None:
            raise
        raise HubError(f"{repo_id}{message}") from error


def _message(error: BaseException, revision: str | None) -> str | None:
    """What an error means, to be read after the name of the repository; None: it is none of the Hub's."""
    at = "" if revision is None else f" at revision {revision!r}"
    match error:
        case CividLoaderError():
            return None
        case RuntimeError() if (cause := cause_of(error)) is not error:
            refused = f"{at}: the storage behind the Hub refuses (HTTP {status_of(cause)})"
            meaning = refused if status_of(cause) in REFUSED_BY_STORAGE else _message(cause, revision)
            return None if meaning is None else f"{meaning} [{_shown(error)}]; run the same command again to go on"
        case GatedRepoError():
            return (
                ": its owner has to grant access; ask for it on the repository's page, then log in with `hf auth login`"
            )
        case RepositoryNotFoundError():
            return (
                ": no such dataset on the Hub, or it is private and you are not logged in as somebody who may read it; "
                "check the name, and log in with `hf auth login` or set HF_TOKEN"
            )
        case RevisionNotFoundError():
            return f": there is no revision {revision!r}; give a branch, a tag or a commit"
        case EntryNotFoundError():
            return f"{at}: {_shown(error)}"
        case HfHubHTTPError():
            return f"{at}: {_refusal(error)}"
        case LocalTokenNotFoundError():
            return ": this needs you to be logged in: `hf auth login`, or set HF_TOKEN"
        case HFValidationError():
            return f": {_shown(error)}; a repository is named org/name"
        case OfflineModeIsEnabled():
            return ": HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"
    if isinstance(error, TRANSPORT_ERROR | ConnectionError | TimeoutError):
        return f": the Hub cannot be reached ({_shown(error)}); check the network, try again"
    return None


def cause_of(error: BaseException) -> BaseException:
    """What is behind the RuntimeError that huggingface_hub makes of a failed upload."""
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of huggingface_hub; None where no reply came."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _refusal(error: HfHubHTTPError) -> str:
    status = status_of(error)
    if status == 401:
        return "the Hub does not accept the token; log in again with `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return "the token may not do this; use one with write access to the repository"
    if status == 429:
        return "the Hub's rate limit is reached; wait a few minutes and run the same command again"
    if status is not None and status >= 500:
        return f"the Hub has a problem of its own (HTTP {status}); run the same command again later"
    return _shown(error)


def _shown(error: BaseException) -> str:
    """The first line of a message, without anything that looks like a token."""
    lines = str(error).strip().splitlines()
    return _TOKEN.sub("<token>", lines[0]) if lines else type(error).__name__
