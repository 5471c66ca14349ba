"""Model folders as `from_pretrained` takes them, loaded or refused with a cure."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from civid_loader.errors import ModelError
from civid_loader.processing.weights import Weights

_logging: Final[Any] = transformers.logging


def unfit(weights: Weights, role: str, what: str) -> ModelError:
    """The error of weights that are not what a role needs: which, what is wrong, what to do."""
    return ModelError(
        f"model {weights.id} ({role}): {what}; name a folder as it is on the Hub, or the right file: "
        f"--model {role}=PATH"
    )


def read_config(weights: Weights, *, role: str) -> Any:
    """The `config.json` of a model folder, as transformers has it.

    Raises:
        ModelError: there is none, or of no type that transformers knows.
    """
    try:
        return transformers.AutoConfig.from_pretrained(weights.path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise unfit(weights, role, f"{_listed(weights.path)} has no config.json of a known model") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Without the progress bar, and the table of the weights of the other half of a CLIP."""
    before, had_bar = _logging.get_verbosity(), _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(before)
        if had_bar:
            _logging.enable_progress_bar()


def load_pretrained(kind: Any, weights: Weights, *, role: str, **options: Any) -> Any:
    """A model of transformers with the weights of a folder, in float32, to be used and not trained.

    Raises:
        ModelError: weights are missing, or of other shapes.
    """
    try:
        with quietly():
            model, told = kind.from_pretrained(
                weights.path, local_files_only=True, dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise unfit(weights, role, f"{_listed(weights.path)} cannot be loaded as {kind.__name__}: {error}") from error
    if missing := sorted(told["missing_keys"]):
        # transformers would go on with random ones.
        raise unfit(weights, role, f"its files lack {len(missing)} weights of {kind.__name__}, such as {missing[0]}")
    return model.eval().requires_grad_(False)


def _listed(path: Path) -> str:
    """A folder and what is in it."""
    names = sorted(one.name for one in path.iterdir()) if path.is_dir() else []
    return f"{path} ({', '.join(names[:8]) or 'no files'})"
