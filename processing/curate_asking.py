"""Whom `curate` asks, and about what: the models of a run, loaded once in each process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from civid_loader.errors import StageError
from civid_loader.processing.answers import Answers, Usage
from civid_loader.processing.captioner import Captioner, CaptionerSpec
from civid_loader.processing.entity_asker import CaptionerAsker
from civid_loader.processing.recipe import Recipe
from civid_loader.processing.stitch_asker import StitchAsker

CuratingAsker = CaptionerAsker | StitchAsker
_STEPS: Final = {"civid": "entity_segment", "miradata": "split_stitch"}
"""Dataset -> the step that asks."""
_LOADED: Final[dict[str, CuratingAsker]] = {}
"""Of this process, loaded for its first film."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Models to ask. Picklable."""

    dataset: str
    """That the recipe makes: civid asks what a sequence is about, miradata whether a scene goes on."""
    specs: tuple[CaptionerSpec, ...]
    """One, or for miradata two."""
    device: str
    """cpu or cuda, where they run."""

    @classmethod
    def of(
        cls, recipe: Recipe, first: CaptionerSpec | None, second: CaptionerSpec | None, *, device: str
    ) -> "Asked | None":
        """Of a run; None: nobody is asked.

        Raises:
            StageError: the recipe has nothing to ask, or nothing to ask a second model.
        """
        if first is None:
            if second is not None:
                raise StageError("a second model needs a first: name a --backend and its --model")
            return None
        step = _STEPS.get(recipe.dataset)
        if step is None or recipe.step(step) is None:
            raise StageError(
                f"recipe {recipe.name} asks no model when it cuts films: leave out the backend and its model"
            )
        if second is not None and recipe.dataset != "miradata":
            raise StageError(f"recipe {recipe.name} asks one model only: leave out the second")
        return cls(dataset=recipe.dataset, specs=(first,) if second is None else (first, second), device=device)

    def identity(self) -> dict[str, Any]:
        """What decides their answers.

        Raises:
            CaptionerError: one cannot be asked.
        """
        made = [spec.make(device=self.device) for spec in self.specs]
        for one in made:
            one.check()
        identity = self._asker(made).identity
        for one in made:
            one.close()
        return identity

    def shared_by(self, num_workers: int) -> "Asked":
        """For each of so many workers, see `CaptionerSpec`."""
        specs = tuple(spec.shared_by(num_workers) for spec in self.specs)
        return Asked(dataset=self.dataset, specs=specs, device=self.device)

    def load(self) -> CuratingAsker:
        """The asker of this process."""
        key = repr(self)
        if key not in _LOADED:
            made = [spec.make(device=self.device) for spec in self.specs]
            for one in made:
                one.load()
            _LOADED[key] = self._asker(made)
        return _LOADED[key]

    def _asker(self, made: list[Captioner]) -> CuratingAsker:
        kinds: dict[str, Callable[[], CuratingAsker]] = {
            "civid": lambda: CaptionerAsker.of(made[0]),
            "miradata": lambda: StitchAsker(models=tuple(Answers(captioner=one) for one in made)),
        }
        return kinds[self.dataset]()


def close() -> None:
    """Let go of the models of this process."""
    while _LOADED:
        asker = _LOADED.popitem()[1]
        for one in _answers_of(asker):
            one.close()


def take_usage(asker: CuratingAsker) -> Usage:
    """What was asked since the last call."""
    usage = Usage()
    for one in _answers_of(asker):
        usage.add(one.take_usage())
    return usage


def _answers_of(asker: CuratingAsker) -> tuple[Answers, ...]:
    return asker.models if isinstance(asker, StitchAsker) else (asker.answers,)
