"""The paper as data against a second transcription, made by hand from ../shared/paper/paper.txt."""

import subprocess
import sys

import pytest

from utils import paper
from utils.config import RunConfig
from utils.metrics import exact_match

# rank, exact match, F1, trainable percent
TABLE_3 = """
1   0.395 0.514 0.0089
2   0.410 0.553 0.0178
4   0.325 0.455 0.0357
8   0.230 0.419 0.0713
16  0.340 0.540 0.1426
32  0.145 0.428 0.2848
"""
TABLE_5 = "q 0.165 0.305\nqv 0.165 0.511\nqkvo 0.190 0.485"
TABLE_6 = "q 0.110 0.485\nqv 0.345 0.533\nqkvo 0.415 0.542"
PHASE_1 = """Pisici, Uniunea Europeană, Cehia, Germania Nazistă, Mozart, Vatican, UNESCO, Wikipedia, Premiul Nobel pentru
Literatură, Haruki Murakami, Cutremurul din 1977, Mihai Eminescu, Donald Trump, Colivă, Simona Halep, Ploaie, FCSB, Astronomie"""
PHASE_2 = """Munții Carpați, Munții Făgăraș, Munții Bucegi, Munții Rodnei, Transilvania, Bucovina, Marea Neagră, București,
Brașov, Dunărea, Vulturul, Parlamentul României, Revoluția din 1989, Palatul Parlamentului, Parcul Herăstrău, Președintele
României, Vulcan noroios, Munții Măcin, Timișoara, Munții Retezat, Suceava"""
CEDILLA, COMMA = "\u015f", "\u0219"


def test_table_1():
    topics = [" ".join(phase.split()).split(", ") for phase in (PHASE_1, PHASE_2)]
    assert [list(phase["topics"]) for phase in paper.TABLE_1] == topics
    assert [(p["phase"], p["train"], p["test"]) for p in paper.TABLE_1] == [(1, 349, 51), (2, 251, 149)]
    assert [len(some) for some in topics] == [18, 21]  # 39 topics; 600 and 200 rows


def test_table_2():
    assert paper.TABLE_2["row"] == {
        "text": "Cehia se învecinează cu Polonia la nord, cu Germania la vest, cu Austria la sud și cu Slovacia la est.",
        "question": "Cu ce țară se învecinează Cehia la sud?", "answer": "Austria", "source": "Wikipedia",
    }  # fmt: skip


def test_tables_3_5_and_6():
    base, *rows = paper.TABLE_3
    assert (base["em"], base["f1"], base["trainable_percent"]) == (0.100, 0.299, None)
    found = [[row["rank"], row["em"], row["f1"], row["trainable_percent"]] for row in rows]
    assert found == [[float(cell) for cell in line.split()] for line in TABLE_3.split("\n")[1:-1]]
    for table, text in ((paper.TABLE_5, TABLE_5), (paper.TABLE_6, TABLE_6)):
        lines = [line.split() for line in text.split("\n")]
        assert [(tuple(m), float(em), float(f1)) for m, em, f1 in lines] == [tuple(row.values()) for row in table]
    assert (paper.TABLE_3_LEARNING_RATE, paper.TABLE_5_LEARNING_RATE, paper.TABLE_6_LEARNING_RATE) == (1e-4, 3e-4, 1e-4)


def test_table_4_letter_by_letter():
    assert {
        "text": "Vulturul pleșuv, emblematic pentru Statele Unite, este o specie cunoscută pentru penajul alb pe cap și "
        "coadă, distinctiv față de corpul său maro închis.",
        "question": "Ce specie de vultur este simbol național al Statelor Unite și are capul alb distinctiv?",
        "answer": f"Ple{COMMA}uv", "source": "Wikipedia",
    } == paper.TABLE_4_EXAMPLE  # fmt: skip
    assert paper.TABLE_4["answers"] == {
        None: "Vulturul american, care este simbolul național al Statelor Unite, este un vultur de mare dimensiune, cu o "
        "lungime de 2,5 metri și o greutate de 15-20 de kilograme. Are un cap alb și o coadă",
        1: f"Vulturul ple{CEDILLA}uv", 2: f"Ple{CEDILLA}uv", 4: f"Ple{COMMA}uv", 8: f"Ple{CEDILLA}uv",
        16: f"Vulturul ple{CEDILLA}uv", 32: f"Vulturul ple{COMMA}uv.",
    }  # fmt: skip


@pytest.mark.parametrize(("norm", "ranks"), [("strict", [4]), ("ro", [2, 4, 8])])
def test_table_4_answers_that_are_right(norm, ranks):
    answers = paper.TABLE_4["answers"].items()
    assert [rank for rank, a in answers if exact_match(a, paper.TABLE_4_EXAMPLE["answer"], norm)] == ranks


def test_trainable_parameters_follow_from_the_architecture():
    q_and_v = 28 * ((3072 + 3072) + (3072 + 1024))  # in + out, 28 layers
    for row in paper.TABLE_3[1:]:
        trainable = paper.trainable_parameters(row["rank"])
        assert trainable == row["rank"] * q_and_v
        assert round(100 * trainable / (paper.BASE_PARAMETERS + trainable), 4) == row["trainable_percent"]
    assert paper.BASE_PARAMETERS + paper.trainable_parameters(32) == paper.TOTAL_PARAMETERS_RANK_32 == 3_221_924_864
    assert paper.trainable_parameters(32) == 9_175_040
    assert paper.trainable_parameters(1, ("gate", "up", "down")) == 3 * 28 * (3072 + 8192)
    assert paper.trainable_parameters(1, ("k", "o")) == q_and_v


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
    grids = (paper.table_3_grid(), paper.table_5_grid(), paper.table_6_grid())
    assert (
        len({RunConfig(model="x", **fields).run_id for grid in grids for fields in grid}) == 11
    )  # Tables 3 and 6 share one


def test_published_gives_a_configurations_rows():
    assert paper.published(None) == paper.published({"rank": None}) == [{"table": 3, "em": 0.100, "f1": 0.299}]
    assert [(row["table"], row["em"]) for row in paper.published(paper.WINNER)] == [(3, 0.410), (6, 0.345)]
    config = {"rank": 2, "target_modules": ["v", "q"], "learning_rate": 3e-4, "epochs": 3}
    assert paper.published(config) == [{"table": 5, "em": 0.165, "f1": 0.511}]
    assert paper.published(config | {"alpha": 2.0}) == paper.published(config | {"rank": 1}) == []


def test_claims_are_the_papers_or_named_as_ours():
    ours = [claim for claim in paper.CLAIMS if claim["ours"]]
    assert [claim["quote"] for claim in ours] == [None]
    assert ours[0]["claim"].startswith("Ours: ")
    assert all(claim["quote"] and len(claim["quote"].split()) < 15 for claim in paper.CLAIMS if not claim["ours"])
    sizes = [len(claim["comparisons"]) for claim in paper.CLAIMS]
    assert sizes == [12, 12, 10, 2, 8, 8, 0, 1]  # both metrics: 6 and 6 over the base, 5 ranks, 4 steps, 4 ranks
    better = {repr(c[1][0]) for claim in paper.CLAIMS[:2] for c in claim["comparisons"]}
    assert len(better) == 11


def test_contradictions_are_in_the_tables():
    told = " ".join(" ".join(c.values()) for c in paper.CONTRADICTIONS)
    assert all(number in told for number in ".410 .553 .345 .533 .165 .511 .485 3,221,924,864".split())
    assert "0.110" not in told  # it is Table 6's q, and the text means it


def test_the_pure_modules_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import utils.prompt, utils.metrics, utils.stats, utils.paper, utils.config, utils.records\n"
        "print(utils.config.RunConfig(model='x').run_id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r2-a8-qv-lr1e-4-s0-x-")
