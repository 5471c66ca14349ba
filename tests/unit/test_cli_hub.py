"""What `civid push` prints."""

import dataclasses

import pytest

from civid_loader.cli_hub import _print_push
from civid_loader.hub.push import PushReport

REPORT = PushReport(
    repo_id="org/set",
    branch="main",
    sha="abc",
    is_private=True,
    num_bytes={},
    num_files={},
    num_unchanged=7,
    deleted=(),
    num_commits=0,
)


def printed(capsys: pytest.CaptureFixture[str], **changed: object) -> str:
    _print_push(dataclasses.replace(REPORT, **changed))  # type: ignore[arg-type]
    return " ".join(capsys.readouterr().out.split())


def test_a_push_with_nothing_to_do_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "org/set (private) is up to date: all 7 files are there already." in printed(capsys)
    sent = printed(capsys, num_files={"default": 2}, num_bytes={"default": 5_000_000})
    assert "up to date" not in sent
    assert "5.00" in sent


def test_a_branch_is_named_where_it_is_loaded_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'datasets.load_dataset("org/set")' in printed(capsys)
    assert 'datasets.load_dataset("org/set", revision="exp")' in printed(capsys, branch="exp")
