"""What the paper published, as data: Corbeanu and Talpalariu (2025), tables 1 to 6, and the grids that make them.

None marks a published value that this repository does not hold yet: the tables then show a dash, never a guess.
Fill a value in here, in its one place, and every table and figure shows it.
"""

HUB_DATASET = "OnnieNLP/InformationExtractionQA"

TABLE_1 = (
    {
        "phase": 1, "train": 349, "test": 51,
        "topics": (
            "Pisici", "Uniunea Europeană", "Cehia", "Germania Nazistă", "Mozart", "Vatican", "UNESCO", "Wikipedia",
            "Premiul Nobel pentru Literatură", "Haruki Murakami", "Cutremurul din 1977", "Mihai Eminescu",
            "Donald Trump", "Colivă", "Simona Halep", "Ploaie", "FCSB", "Astronomie",
        ),
    },
    {
        "phase": 2, "train": 251, "test": 149,
        "topics": (
            "Munții Carpați", "Munții Făgăraș", "Munții Bucegi", "Munții Rodnei", "Transilvania", "Bucovina",
            "Marea Neagră", "București", "Brașov", "Dunărea", "Vulturul", "Parlamentul României",
            "Revoluția din 1989", "Palatul Parlamentului", "Parcul Herăstrău", "Președintele României",
            "Vulcan noroios", "Munții Măcin", "Timișoara", "Munții Retezat", "Suceava",
        ),
    },
)  # fmt: skip

TABLE_2 = {"columns": ("text", "question", "answer", "source"), "row": None}

RANKS = (1, 2, 4, 8, 16, 32)
TARGET_MODULES = (("q",), ("q", "v"), ("q", "k", "v", "o"))
ALPHA_PER_RANK = 4
BASE_PARAMETERS = 3_212_749_824  # Llama 3.2 3B, embeddings counted once because they are tied

# Modules q and v, learning rate 1e-4. Percentages are of all parameters, adapter included, as PEFT prints them.
TABLE_3 = (
    {"rank": None, "em": None, "f1": None, "trainable_percent": None},
    {"rank": 1, "em": None, "f1": None, "trainable_percent": 0.0089},
    {"rank": 2, "em": 0.410, "f1": None, "trainable_percent": 0.0178},
    {"rank": 4, "em": None, "f1": None, "trainable_percent": 0.0357},
    {"rank": 8, "em": None, "f1": None, "trainable_percent": 0.0713},
    {"rank": 16, "em": None, "f1": None, "trainable_percent": 0.1426},
    {"rank": 32, "em": None, "f1": None, "trainable_percent": 0.2848},
)
TABLE_3_LEARNING_RATE = 1e-4
TOTAL_PARAMETERS_RANK_32 = 3_221_924_864  # called "trainable" in the paper's text; it is the total at rank 32

# Table 4 asks every rank one question. The paper's answers come in these four forms (which rank wrote which is not
# held here); its base model's answer is cut after exactly 64 Llama 3 tokens, which is where max_new_tokens comes from.
TABLE_4 = {
    "forms": ("Pleşuv", "Pleșuv", "Vulturul pleşuv", "Vulturul pleșuv."),
    "base_answer_tokens": 64,
    "answers": dict.fromkeys((None, *RANKS)),
}
# The paper's own wording is not held here: this text and question are ours, and lead to the answer the paper reports.
TABLE_4_EXAMPLE = {
    "text": (
        "Pe stema Statelor Unite ale Americii este înfățișat vulturul pleșuv, care ține în gheare o ramură de măslin "
        "și un mănunchi de săgeți, în timp ce pe stema Mexicului apare acvila de munte, așezată pe un cactus."
    ),
    "question": "Ce pasăre apare pe stema Statelor Unite ale Americii?",
    "answer": "vulturul pleșuv",
    "source": "https://ro.wikipedia.org/wiki/Vultur_pleșuv",
}

# Rank 2, modules varied. Table 5 at learning rate 3e-4, Table 6 at 1e-4.
TABLE_5 = (
    {"target_modules": ("q",), "em": 0.165, "f1": None},
    {"target_modules": ("q", "v"), "em": None, "f1": None},
    {"target_modules": ("q", "k", "v", "o"), "em": None, "f1": None},
)
TABLE_5_LEARNING_RATE = 3e-4
TABLE_6 = (
    {"target_modules": ("q",), "em": None, "f1": None},
    {"target_modules": ("q", "v"), "em": 0.345, "f1": None},
    {"target_modules": ("q", "k", "v", "o"), "em": None, "f1": None},
)
TABLE_6_LEARNING_RATE = 1e-4
MODULES_RANK = 2


def table_3_grid() -> list[dict]:
    """Return the RunConfig fields of Table 3's rows: six ranks, alpha = 4 * rank, modules q and v, 1e-4.

    Example: table_3_grid()[1] -> {"rank": 2, "alpha": 8, "target_modules": ("q", "v"), "learning_rate": 0.0001}
    """
    return [_row(rank, ("q", "v"), TABLE_3_LEARNING_RATE) for rank in RANKS]


def table_5_grid() -> list[dict]:
    """Return the RunConfig fields of Table 5's rows: rank 2, three module sets, learning rate 3e-4.

    Example: table_5_grid()[0]["target_modules"] -> ("q",)
    """
    return [_row(MODULES_RANK, modules, TABLE_5_LEARNING_RATE) for modules in TARGET_MODULES]


def table_6_grid() -> list[dict]:
    """Return the RunConfig fields of Table 6's rows: rank 2, three module sets, learning rate 1e-4.

    Example: table_6_grid()[1] == table_3_grid()[1] -> True, the configuration that two tables share
    """
    return [_row(MODULES_RANK, modules, TABLE_6_LEARNING_RATE) for modules in TARGET_MODULES]


def _row(rank: int, target_modules: tuple[str, ...], learning_rate: float) -> dict:
    alpha = ALPHA_PER_RANK * rank
    return {"rank": rank, "alpha": alpha, "target_modules": target_modules, "learning_rate": learning_rate}


WINNER = table_3_grid()[1]  # rank 2, q and v, 1e-4: the configuration the paper recommends

# Each claim with what tests it: comparisons (metric, better, worse), where each side is a list of RunConfig fields (None:
# the base model) whose scores are averaged. A claim holds where every "better" side beats its "worse" side.
CLAIMS = (
    {
        "claim": "Every LoRA configuration beats the base model",
        "comparisons": [
            ("em", [fields], [None]) for fields in (*table_3_grid(), *table_5_grid(), *table_6_grid()[::2])
        ],
    },
    {
        "claim": "Rank 2 is the best rank",
        "comparisons": [("em", [WINNER], [fields]) for fields in table_3_grid() if fields != WINNER],
    },
    {
        "claim": "Higher ranks do worse",  # as a whole: ranks 1, 2, 4 against ranks 8, 16, 32
        "comparisons": [("em", table_3_grid()[:3], table_3_grid()[3:])],
    },
    {
        "claim": "q alone is insufficient",
        "comparisons": [("em", [grid[1]], [grid[0]]) for grid in (table_5_grid(), table_6_grid())],
    },
    {
        "claim": "Adding modules helps exact match and F1",
        "comparisons": [
            (metric, [grid[more]], [grid[more - 1]])
            for metric in ("em", "f1")
            for grid in (table_5_grid(), table_6_grid())
            for more in (1, 2)
        ],
    },
    {
        "claim": "Learning rate 1e-4 beats 3e-4",  # over the three module sets
        "comparisons": [("em", table_6_grid(), table_5_grid())],
    },
    {"claim": "The share of trainable parameters is as published", "trainable_percent": TABLE_3[1:], "comparisons": []},
)

# What the paper says twice and differently.
CONTRADICTIONS = (
    {
        "about": "exact match of rank 2 on q and v at 1e-4",
        "one": "0.410 in Table 3",
        "other": "0.345 in Table 6",
        "why": "One configuration, two scores: different runs, or different settings that are not reported.",
    },
    {
        "about": "exact match of q alone",
        "one": "0.110 in the text",
        "other": "0.165 in Table 5",
        "why": "The text and the table it speaks of do not agree.",
    },
    {
        "about": "3,221,924,864 parameters",
        "one": "called trainable in the text",
        "other": "0.2848 % trainable at rank 32 in Table 3",
        "why": "It is the total at rank 32, adapter included; 9,175,040 of them are trainable, which is the 0.2848 %.",
    },
)
