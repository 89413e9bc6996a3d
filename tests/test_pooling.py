import pytest

from utils import paper
from utils.pooling import find, measured, name, pooled


def test_pooling_averages_a_configurations_seeds(seeds_frame):
    pool = pooled(seeds_frame)
    assert (len(seeds_frame), len(pool)) == (34, 12)  # 11 configurations, three seeds each, and the base model once
    assert pool["seeds"].tolist() == [(0,), *[(0, 1, 2)] * 11]
    row = pool[pool["rank"] == 32].iloc[0]
    runs = seeds_frame[seeds_frame["rank"] == 32]
    assert row["f1_strict"] == pytest.approx(runs["f1_strict"].mean())
    assert [record["config"]["seed"] for record in row["records"]] == [0, 1, 2]
    assert row["record"]["run_id"] == row["run_id"]


def test_seeds_differ_in_what_the_adapter_learns(seeds_frame):
    runs = seeds_frame[seeds_frame["rank"] == 32]["record"]
    assert len({record["training"][-1]["loss"] for record in runs}) == 3


def test_a_configuration_is_found_by_its_fields(frame):
    pool = pooled(frame)
    assert find(pool, None)["run_id"].startswith("base-")
    assert find(pool, paper.WINNER)["run_id"].startswith("r2-a8-qv-lr1e-4")
    assert find(pool, paper.WINNER | {"alpha": 1}) is None


def test_names_say_what_is_unusual():
    assert name({"rank": None}) == "base"
    assert name(paper.WINNER) == "r 2 q,v 1e-04"
    assert name(paper.WINNER | {"alpha": 16}) == "r 2 q,v 1e-04 alpha 16"


def test_nothing_measured(frame):
    assert pooled(frame.iloc[:0]).empty
    assert measured(pooled(frame.iloc[:0])) == "Measured: nothing yet."
