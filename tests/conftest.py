"""What every test gets: no network, and GPU tests that cannot pass by skipping where a GPU is promised."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Other processes use the cores too: how long an example takes says nothing.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Before anything imports huggingface_hub: tests touch no hub and no user's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["SVT_LOG"] = "1"  # the encoder reads it once, at its first video


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`datasets` caches of a run go away with it."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = Path(tmp_path_factory.mktemp("datasets-cache"))
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Models this small only wait for each other's threads, for minutes where other processes use the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip GPU tests without a GPU, unless FAIL_WITHOUT_CUDA is set."""
    if item.get_closest_marker("gpu") and not os.environ.get("FAIL_WITHOUT_CUDA"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
