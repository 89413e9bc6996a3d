import subprocess
import sys

from utils import paper
from utils.config import RunConfig

Q, K, V, O_ = 3072 + 3072, 3072 + 1024, 3072 + 1024, 3072 + 3072  # in + out of Llama 3.2 3B's projections


def test_table_1_adds_up_to_600_and_200_rows_of_39_topics():
    assert sum(phase["train"] for phase in paper.TABLE_1) == 600
    assert sum(phase["test"] for phase in paper.TABLE_1) == 200
    assert [len(phase["topics"]) for phase in paper.TABLE_1] == [18, 21]
    assert len({topic for phase in paper.TABLE_1 for topic in phase["topics"]}) == 39


def test_table_3_percentages_follow_from_the_architecture():
    for row in paper.TABLE_3[1:]:
        trainable = 28 * row["rank"] * (Q + V)
        assert round(100 * trainable / (paper.BASE_PARAMETERS + trainable), 4) == row["trainable_percent"]
    assert paper.BASE_PARAMETERS + 28 * 32 * (Q + V) == paper.TOTAL_PARAMETERS_RANK_32 == 3_221_924_864


def test_the_grids_are_the_papers():
    assert [(f["rank"], f["alpha"]) for f in paper.table_3_grid()] == [
        (1, 4),
        (2, 8),
        (4, 16),
        (8, 32),
        (16, 64),
        (32, 128),
    ]
    assert {f["learning_rate"] for f in paper.table_5_grid()} == {3e-4}
    assert [f["target_modules"] for f in paper.table_6_grid()] == [("q",), ("q", "v"), ("q", "k", "v", "o")]


def test_tables_3_and_6_share_one_configuration_and_publish_two_scores_for_it():
    ids = [
        [RunConfig(model="x", **f).run_id for f in grid()]
        for grid in (paper.table_3_grid, paper.table_5_grid, paper.table_6_grid)
    ]
    assert set(ids[0]) & set(ids[2]) == {ids[0][1]} == {ids[2][1]}
    assert len({i for table in ids for i in table}) == 11
    assert (paper.TABLE_3[2]["em"], paper.TABLE_6[1]["em"]) == (0.410, 0.345)


def test_the_table_4_example_holds_its_answer():
    assert paper.TABLE_4_EXAMPLE["answer"] in paper.TABLE_4_EXAMPLE["text"]


def test_every_configuration_of_the_grids_is_claimed_to_beat_the_base_model_once():
    better = [sides[1][0] for sides in paper.CLAIMS[0]["comparisons"]]
    ids = {RunConfig(model="x", **fields).run_id for fields in better}
    assert len(better) == len(ids) == 11
    assert len(paper.CLAIMS[1]["comparisons"]) == 5  # rank 2 against every other


def test_the_pure_modules_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import utils.prompt, utils.metrics, utils.stats, utils.paper, utils.config\n"
        "print(utils.config.RunConfig(model='x').run_id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r2-a8-qv-lr1e-4-s0-x-")
