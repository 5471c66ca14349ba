"""Tiers are parts of each other, and fitted ones as large as asked for."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from civid_loader.errors import StageError
from civid_loader.processing.tiers import QualityTiers, Rule, Tier, fit_tiers, passing

PAPER = (0.419, 0.118, 0.053, 0.011)


def _table(num_rows: int = 5000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=num_rows)
    return pa.table(
        {
            "aesthetic": pa.array(5 + 0.6 * shared + 0.5 * rng.normal(size=num_rows), pa.float32()),
            "flow": pa.array(np.exp(2 + shared + rng.normal(size=num_rows))),
            "nsfw": rng.random(num_rows) < 0.02,
        }
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("columns", [("aesthetic",), ("aesthetic", "flow")])
def test_fitted_tiers_are_nested_and_as_large_as_asked(columns: tuple[str, ...], seed: int) -> None:
    table = _table(seed=seed)
    tiers = fit_tiers(table, columns, PAPER)
    masks = tiers.members(table)
    for mask, share in zip(masks, PAPER, strict=True):
        assert abs(int(mask.sum()) - share * len(table)) <= 1
    for wider, mask in pairwise(masks):
        assert not (mask & ~wider).any()
    for name in columns:
        values = [rule.value for tier in tiers.tiers for rule in tier.rules if rule.column == name]
        assert values == sorted(values, key=float)


def test_quantiles_rise_together() -> None:
    table = _table()
    [tier] = fit_tiers(table, ("aesthetic", "flow"), (0.2,)).tiers
    shares = [float((np.array(table[rule.column]) < rule.value).mean()) for rule in tier.rules]
    assert abs(shares[0] - shares[1]) <= 1 / len(table) + 1e-9


def test_base_rules_and_missing_values() -> None:
    table = _table().set_column(1, "flow", pa.array([None, float("nan"), *range(4998)], pa.float64()))
    base = (Rule(column="nsfw", op="=", value=False),)
    tiers = fit_tiers(table, ("flow",), (0.5,), base=base)
    [mask] = tiers.members(table)
    assert mask.sum() == 2500
    assert not mask[:2].any()
    assert not (mask & np.array(table["nsfw"])).any()
    assert tiers.tiers[0].where.startswith("nsfw = false and flow >= ")
    with pytest.raises(StageError, match=r"5,000 rows are 5,000, but only"):
        fit_tiers(table, ("flow",), (1.0,), base=base)


def test_a_tier_must_be_a_part_of_the_one_before() -> None:
    def tier(name: str, *rules: Rule) -> Tier:
        return Tier(name=name, rules=rules)

    low, high = Rule(column="flow", op=">=", value=3.0), Rule(column="flow", op=">=", value=5.0)
    other = Rule(column="nsfw", op="=", value=False)
    QualityTiers(tiers=(tier("all"), tier("a", low), tier("b", low, other), tier("c", other, high)))
    for second in (tier("b", high), tier("b", low, Rule(column="nsfw", op="=", value=True))):
        with pytest.raises(StageError, match="tier b is no part of tier a: it has no rule at least as strict"):
            QualityTiers(tiers=(tier("a", low, other), second))
    with pytest.raises(StageError, match=r"flow >= 5\.0"):
        QualityTiers(tiers=(tier("a", high), tier("b", low)))


@pytest.mark.parametrize(
    ("strict", "loose", "expected"),
    [
        ((">", 3.0), (">=", 3.0), True),
        ((">=", 3.0), (">", 3.0), False),
        (("<", 2.0), ("<=", 3.0), True),
        (("<", 4.0), ("<", 3.0), False),
        (("=", 4.0), (">=", 3.0), True),
        ((">=", 4.0), ("<=", 5.0), False),
        (("!=", 4.0), ("!=", 4.0), True),
    ],
)
def test_what_implies_what(strict: tuple[str, float], loose: tuple[str, float], expected: bool) -> None:
    rules = [Rule(column="x", op=op, value=value) for op, value in (strict, loose)]  # type: ignore[arg-type]
    assert rules[0].implies(rules[1]) == expected


def test_rules() -> None:
    table = pa.table({"x": [1.0, 2.0, None, float("nan")], "kind": ["a", "b", "a", None]})
    for op, kept in ((">=", [False, True]), ("<", [True, False]), ("=", [False, True]), ("!=", [True, False])):
        found = passing(table, [Rule(column="x", op=op, value=2.0)])  # type: ignore[arg-type]
        assert found.tolist() == [*kept, False, False]
    assert passing(table, [Rule(column="kind", op="=", value="a")]).tolist() == [True, False, True, False]
    assert Rule(column="kind", op="=", value="it's").where == "kind = 'it''s'"
    with pytest.raises(StageError, match="no column 'y'; there are x, kind"):
        passing(table, [Rule(column="y", op="=", value=1.0)])
    with pytest.raises(StageError, match="must be one of"):
        Rule(column="x", op="~", value=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("fractions", [(), (0.0,), (1.5,), (0.1, 0.2)])
def test_fractions_that_are_none(fractions: tuple[float, ...]) -> None:
    with pytest.raises(StageError, match="fractions"):
        fit_tiers(_table(20), ("flow",), fractions)
