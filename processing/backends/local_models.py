"""Models that see and write, where they lie on this machine."""

from typing import Any

import transformers

from civid_loader.errors import CaptionerError, ModelError
from civid_loader.processing.weights import ModelNeed, Weights, find_weights


def find_model(name: str, *, may_download: bool) -> Weights:
    """The folder of a model, and what identifies it: its commit, or the bytes of its files.

    Args:
        name: folder, or `org/name[@revision]` on the Hub.
        may_download: fetch what is not on this machine yet.

    Raises:
        CaptionerError: it is not here, and may not be fetched.
    """
    need = ModelNeed(id=name.partition("@")[0], license="not known")
    try:
        return find_weights("captioner", need, given=name, may_download=may_download)
    except ModelError as error:
        raise CaptionerError(
            f"model {name}: there is no such folder, nor is a model of that name (org/name) on this machine; name its "
            "folder, or let it be fetched with --download"
        ) from error


def check_model(weights: Weights) -> None:
    """Make sure that it is a model that sees and writes; nothing is loaded.

    Raises:
        CaptionerError: it is none.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(weights.path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise unfit(weights, f"no config.json of a known model in {weights.path}") from error
    auto: Any = transformers.AutoModelForImageTextToText
    if type(config) not in auto._model_mapping:
        raise unfit(weights, f"its type {config.model_type!r} does not look at pictures and write")


def unfit(weights: Weights, what: str) -> CaptionerError:
    """The error of a model that cannot be asked: which, what is wrong, what to do."""
    return CaptionerError(
        f"model {weights.id}: {what}; name a model that sees and writes (image-text-to-text), its folder as it is on "
        "the Hub"
    )
