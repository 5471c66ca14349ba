"""Models that see and write, where they lie on this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import transformers

from civid_loader.errors import CaptionerError, ModelError
from civid_loader.processing.backends.batching import Batcher
from civid_loader.processing.captioner import NO_THINKING, Request, Response
from civid_loader.processing.weights import ModelNeed, Weights, find_weights


@dataclass(kw_only=True)
class LocalCaptioner:
    """What captioners have in common whose model is on this machine and answers in batches. `load` calls `start`."""

    model: str
    """Folder, or `org/name[@revision]` on the Hub."""
    batch_size: int
    """Requests that are answered together."""
    may_download: bool = False
    """Fetch what is not on this machine."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """Of the model's chat template. None: thinking is switched off, where the template knows of it."""
    batcher: Batcher[Request, Response] | None = field(default=None, init=False, repr=False)
    """None: not loaded."""

    @property
    def template_variables(self) -> dict[str, Any]:
        """What the chat template gets."""
        return dict(NO_THINKING if self.chat_template_kwargs is None else self.chat_template_kwargs)

    @property
    def max_in_flight(self) -> int:
        """See `Captioner`: while a batch is answered, the next one comes together."""
        return 2 * self.batch_size

    @property
    def num_slots(self) -> int:
        """See `Captioner`."""
        return self.batch_size

    @cached_property
    def weights(self) -> Weights:
        """The model's files."""
        return find_model(self.model, may_download=self.may_download)

    def check(self) -> None:
        """See `Captioner`."""
        check_model(self.weights)

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """See `Captioner`."""
        if self.batcher is None:
            raise CaptionerError(f"model {self.model} is not loaded, or was let go of")
        return self.batcher(requests)

    def start(self, answer: Callable[[Sequence[Request]], Sequence[Response]]) -> None:
        """Batches are answered so from now on; each answer took as long as its batch."""

        def timed(requests: Sequence[Request]) -> list[Response]:
            start = perf_counter()
            responses = answer(requests)
            seconds = perf_counter() - start
            return [replace(one, seconds=seconds) for one in responses]

        self.batcher = Batcher(timed, batch_size=self.batch_size)


def find_model(name: str, *, may_download: bool) -> Weights:
    """The folder of a model, and what identifies it: its commit, or the bytes of its files.

    Args:
        name: folder, or `org/name[@revision]` on the Hub.
        may_download: fetch what is not on this machine yet.

    Raises:
        CaptionerError: it is not here, and may not be fetched.
    """
    need = ModelNeed(id=name.partition("@")[0], license="")
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
