"""Names of repositories, and where a folder is wanted the way to get one."""

from pathlib import Path

import pytest

from civid_loader.caption_diff import diff_captions
from civid_loader.errors import AnnotationError
from civid_loader.filtering import filter_dataset
from civid_loader.judging import columns_of
from civid_loader.repo_names import RepoName, parse_repo


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("org/a", "org/a", None), ("org/a@v1", "org/a", "v1"), ("hf://datasets/org/a", "org/a", None),
        ("hf://datasets/org/a@refs/pr/1", "org/a", "refs/pr/1"), ("hf://datasets/org/a/", "org/a", None),
    ],
)  # fmt: skip
def test_names(text: str, repo_id: str, revision: str | None) -> None:
    assert parse_repo(text) == RepoName(repo_id=repo_id, revision=revision)


@pytest.mark.parametrize("text", ["none", "a/b/c", "/a/b", "hf://org/a", "s3://org/a", "org/a@", ""])
def test_what_is_no_name(text: str) -> None:
    assert parse_repo(text) is None


def test_commands_on_folders_say_how_to_fetch_one(tmp_path: Path) -> None:
    hint = "fetch it first: `civid pull org/a FOLDER`"
    for name in ("org/a", "hf:/datasets/org/a", "hf://datasets/org/a"):  # a Path makes one slash of two
        with pytest.raises(AnnotationError, match=f"no manifest.json.*{hint}"):
            filter_dataset(name, where="fps > 1", output=None)
        with pytest.raises(AnnotationError, match=f"no such folder.*{hint}"):
            columns_of(name)
        with pytest.raises(AnnotationError, match=f"no such folder.*{hint}"):
            diff_captions(name, "captions-a", "captions-b")
    with pytest.raises(AnnotationError, match=r"make one with `civid build`$"):
        filter_dataset(tmp_path, where="fps > 1", output=None)
