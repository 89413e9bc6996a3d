"""Records made by hand: what tables and figures see of a run, without a model."""

import pytest

from utils import paper
from utils.config import RunConfig
from utils.metrics import score
from utils.report.frame import as_frame, comparable

GRID = [
    None,
    *paper.table_3_grid(),
    *paper.table_5_grid(),
    *paper.table_6_grid()[::2],
]  # base and eleven configurations


def make(fields=None, right=3, n=6, *, environment=None, model=None, data=None, **settings):
    """A finished record of which the first `right` of n questions are answered as expected."""
    config = RunConfig("gemma-3-270m", **{"rank": None} | (fields or {}) | settings)
    answers = ["da" if i < right else "nu e" for i in range(n)]
    trainable = paper.trainable_parameters(config.rank, config.target_modules) if config.rank else 0
    return {
        "run_id": config.run_id,
        "config": config.as_dict(),
        "data": {"name": "bundled", "train_rows": 12, "test_rows": n, "fingerprint": "abc"} | (data or {}),
        "model": {"id": "g", "revision": "1", "total": 10**9, "trainable": trainable, "trainable_percent": trainable / 10**7}
        | (model or {}),
        "environment": {"profile": "smoke", "device": "cpu", "dtype": "bfloat16", "quantization": "none"} | (environment or {}),
        "status": "finished",
        "timing": {"train_seconds": 1.0, "answer_seconds": 1.0, "samples_per_second": 12.0},
        "memory": {"peak_bytes": 2**30},
        "training": [{"step": i, "epoch": i / 2, "loss": 2 / i} for i in range(1, 7)] if config.rank else [],
        "metrics": score(answers, ["da"] * n),
        "predictions": [
            {"index": i, "question": str(i), "references": ["da"], "generation": f" {a}", "answer": a,
             "failure": None if a == "da" else "not in the text"}
            for i, a in enumerate(answers)
        ],
        "table_4": {"question": paper.TABLE_4_EXAMPLE["question"], "answer": "Pleşuv"},
    }  # fmt: skip


@pytest.fixture
def record():
    return make


@pytest.fixture
def grid():
    """The paper's grid as records: `grid(right, n)` asks the function `right` how many answers of a config are right."""
    return lambda right=lambda config: 3, n=6, seeds=(0,): [
        make(fields, right(RunConfig("x", **{"rank": None} | (fields or {}))), n, **({"seed": seed} if fields else {}))
        for fields in GRID
        for seed in (seeds if fields else (0,))
    ]


@pytest.fixture
def frame(grid):
    return comparable(as_frame(grid()))


@pytest.fixture
def seeds_frame(grid):
    return comparable(as_frame(grid(seeds=(0, 1, 2))))
