"""Which GPU a worker process has."""

import pytest

from civid_loader.processing.engines.local import _own_gpu


@pytest.mark.parametrize(
    ("listed", "num_gpus", "expected"),
    [
        (None, 2, ["0", "1", "0", "1", "0"]),
        ("", 2, ["0", "1", "0", "1", "0"]),
        ("5,7", 2, ["5", "7", "5", "7", "5"]),
        ("GPU-a", 1, ["GPU-a"] * 5),
        (None, 8, ["0", "1", "2", "3", "4"]),
    ],
)
def test_workers_share_gpus_in_turn(
    listed: str | None, num_gpus: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [_own_gpu(number, num_gpus) for number in range(5)] == expected
