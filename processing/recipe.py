"""Recipes: what a paper does to its videos, as data. Which stages with which numbers, and who says so.

A number that is not published is not there; `unknown` says what is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import yaml

from civid_loader.errors import StageError
from civid_loader.processing import registry
from civid_loader.processing.tiers import QualityTiers, Rule, Tier

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Evidence = Literal["paper", "code", "secondary", "ours"]
"""The paper says so; its released code does; somebody else says so; it is our choice."""
Dataset = Literal["civid", "lvd2m", "miradata", "moviebench"]
T = TypeVar("T", bound="DataclassInstance")

_FOLDER: Final = Path(__file__).parent / "recipes"
_SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A stage of a recipe."""

    stage: str
    """Its name; in the segmentation also `keep`, see `curate.KeepParams`."""
    evidence: Evidence
    source: str
    """Who says what, in a sentence."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Those that are known; the others are the stage's defaults."""
    note: str = ""
    """What is not known, or other than in the source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterRule:
    """A condition that clips must fulfil."""

    where: str
    """As `civid filter --where` takes it."""
    evidence: Evidence
    source: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepRate:
    """A published share, to compare one's own with."""

    of: str
    """What is kept."""
    share: float
    """Of all, 0 to 1."""
    evidence: Evidence
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """See the module."""

    name: str
    dataset: Dataset
    """The dataset it makes."""
    title: str
    stages: tuple[Step, ...] = ()
    """Scores that its rules read."""
    captions: tuple[Step, ...] = ()
    """Stages that write its captions."""
    rules: tuple[FilterRule, ...] = ()
    segmentation: tuple[Step, ...] = ()
    """How a film becomes clips, in order."""
    tiers: QualityTiers = field(default_factory=lambda: QualityTiers(tiers=()))
    """None where their numbers are not published."""
    keep_rates: tuple[KeepRate, ...] = ()
    unknown: tuple[str, ...] = ()
    """What is not published."""

    @property
    def where(self) -> str:
        """All rules as one condition for `civid filter --where`; "" without rules."""
        return " and ".join(f"({rule.where})" if " " in rule.where else rule.where for rule in self.rules)

    def step(self, stage: str) -> Step | None:
        """A step of the segmentation; None: there is none."""
        return next((step for step in self.segmentation if step.stage == stage), None)

    def check_stages(self) -> None:
        """Make every stage once, without weights.

        Raises:
            StageError: there is no such stage or parameter.
            MissingDependencyError: a stage needs a package that is not installed.
        """
        for step in (*self.stages, *self.captions, *(step for step in self.segmentation if step.stage != "keep")):
            registry.make(step.stage, step.params)


def recipe_names() -> list[str]:
    """Recipes of this package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe of this package by its name, or one from a YAML file of the same form.

    Raises:
        StageError: there is no such recipe, or the file is none; says which entry, and what is allowed.
    """
    path = Path(name_or_path)
    if path.suffix not in _SUFFIXES:
        path = _FOLDER / f"{name_or_path}.yaml"
        if str(name_or_path) not in recipe_names():
            close = get_close_matches(str(name_or_path), recipe_names(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise StageError(
                f"there is no recipe {str(name_or_path)!r}; there are {', '.join(recipe_names())}, or name a .yaml "
                f"file.{hint}"
            )
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StageError(f"{path}: no such recipe file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not YAML: {error}") from error
    return recipe_of(value, where=path.name)


def recipe_of(value: Any, *, where: str) -> Recipe:
    """A recipe from plain values, checked; `where` names them in messages.

    Raises:
        StageError: see `load_recipe`.
    """
    plain = dict(_mapping(value, where))
    kinds = {"stages": Step, "captions": Step, "rules": FilterRule, "segmentation": Step, "keep_rates": KeepRate}
    for key, kind in kinds.items():
        plain[key] = tuple(_made(kind, one, f"{where}: {key}[{i}]") for i, one in enumerate(_list(plain, key, where)))
    plain["tiers"] = _tiers(_list(plain, "tiers", where), where)
    plain["unknown"] = tuple(_list(plain, "unknown", where))
    recipe = _made(Recipe, plain, where)
    if recipe.dataset not in get_args(Dataset):
        raise StageError(f"{where}: dataset {recipe.dataset!r} must be one of {', '.join(get_args(Dataset))}")
    return recipe


def _tiers(values: list[Any], where: str) -> QualityTiers:
    tiers = []
    for i, value in enumerate(values):
        place = f"{where}: tiers[{i}]"
        plain = dict(_mapping(value, place))
        rules = _list(plain, "rules", place)
        plain["rules"] = tuple(_made(Rule, rule, f"{place}: rules[{j}]") for j, rule in enumerate(rules))
        tiers.append(_made(Tier, plain, place))
    return QualityTiers(tiers=tuple(tiers))


def _made(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from a mapping: no key missing, none too many, texts that are texts."""
    plain = _mapping(value, where)
    known = [one.name for one in fields(kind)]
    if strange := sorted(map(str, plain.keys() - set(known))):
        raise StageError(f"{where}: unknown key {strange[0]!r}; it may have {', '.join(known)}")
    for name in ("name", "title", "dataset", "stage", "where", "source", "note", "of", "column", "op"):
        if name in plain and (not isinstance(plain[name], str) or not (plain[name] or name == "note")):
            raise StageError(f"{where}: {name} must be a text, not {plain[name]!r}")
    if "evidence" in plain and plain["evidence"] not in get_args(Evidence):
        raise StageError(f"{where}: evidence {plain['evidence']!r} must be one of {', '.join(get_args(Evidence))}")
    if "params" in plain:
        _mapping(plain["params"], f"{where}: params")
    if "share" in plain and not (isinstance(plain["share"], int | float) and 0 <= plain["share"] <= 1):
        raise StageError(f"{where}: share {plain['share']!r} must be a number from 0 to 1")
    try:
        return kind(**plain)
    except TypeError as error:
        raise StageError(f"{where}: {str(error).partition('() ')[2]}") from error


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise StageError(f"{where}: must be a mapping of names, not {value!r:.80}")
    return value


def _list(plain: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = plain.get(key) or []
    if not isinstance(value, list):
        raise StageError(f"{where}: {key} must be a list, not {value!r:.80}")
    return value
