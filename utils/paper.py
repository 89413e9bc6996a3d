"""What the paper published, as data: Corbeanu and Talpalariu (2025), Tables 1 to 6, its claims, the grids that test them.

Every number and every text in a table is the paper's, letter by letter (ş where it prints ş, ș where it prints ș).
"""

HUB_DATASET = "OnnieNLP/InformationExtractionQA"
TEST_ROWS = 200  # every published score is over so many

TABLE_1 = (
    {"phase": 1, "train": 349, "test": 51, "topics": (
        "Pisici", "Uniunea Europeană", "Cehia", "Germania Nazistă", "Mozart", "Vatican", "UNESCO", "Wikipedia",
        "Premiul Nobel pentru Literatură", "Haruki Murakami", "Cutremurul din 1977", "Mihai Eminescu", "Donald Trump",
        "Colivă", "Simona Halep", "Ploaie", "FCSB", "Astronomie")},
    {"phase": 2, "train": 251, "test": 149, "topics": (
        "Munții Carpați", "Munții Făgăraș", "Munții Bucegi", "Munții Rodnei", "Transilvania", "Bucovina",
        "Marea Neagră", "București", "Brașov", "Dunărea", "Vulturul", "Parlamentul României", "Revoluția din 1989",
        "Palatul Parlamentului", "Parcul Herăstrău", "Președintele României", "Vulcan noroios", "Munții Măcin",
        "Timișoara", "Munții Retezat", "Suceava")},
)  # fmt: skip

TABLE_2 = {"columns": ("text", "question", "answer", "source"), "row": {
    "text": "Cehia se învecinează cu Polonia la nord, cu Germania la vest, cu Austria la sud și cu Slovacia la est.",
    "question": "Cu ce țară se învecinează Cehia la sud?", "answer": "Austria", "source": "Wikipedia",
}}  # fmt: skip

RANKS = (1, 2, 4, 8, 16, 32)
TARGET_MODULES = (("q",), ("q", "v"), ("q", "k", "v", "o"))
ALPHA_PER_RANK = 4
BASE_PARAMETERS = 3_212_749_824  # Llama 3.2 3B, embeddings counted once because they are tied
TOTAL_PARAMETERS_RANK_32 = 3_221_924_864  # the paper's text calls it trainable; it is the total at rank 32

# Modules q and v, learning rate 1e-4. Percentages are of all parameters, adapter included, as PEFT prints them.
TABLE_3 = ({"rank": None, "em": 0.100, "f1": 0.299, "trainable_percent": None},
           {"rank": 1, "em": 0.395, "f1": 0.514, "trainable_percent": 0.0089},
           {"rank": 2, "em": 0.410, "f1": 0.553, "trainable_percent": 0.0178},
           {"rank": 4, "em": 0.325, "f1": 0.455, "trainable_percent": 0.0357},
           {"rank": 8, "em": 0.230, "f1": 0.419, "trainable_percent": 0.0713},
           {"rank": 16, "em": 0.340, "f1": 0.540, "trainable_percent": 0.1426},
           {"rank": 32, "em": 0.145, "f1": 0.428, "trainable_percent": 0.2848})  # fmt: skip
TABLE_3_LEARNING_RATE = 1e-4

# Its base model's answer breaks off after exactly 64 Llama 3 tokens, which is where max_new_tokens comes from. The
# expected answer does not stand in the text letter by letter: there it has a small p.
TABLE_4_EXAMPLE = {
    "text": "Vulturul pleșuv, emblematic pentru Statele Unite, este o specie cunoscută pentru penajul alb pe cap și "
            "coadă, distinctiv față de corpul său maro închis.",
    "question": "Ce specie de vultur este simbol național al Statelor Unite și are capul alb distinctiv?",
    "answer": "Pleșuv", "source": "Wikipedia",
}  # fmt: skip
TABLE_4 = {name: TABLE_4_EXAMPLE[name] for name in ("text", "question", "answer")}
TABLE_4["answers"] = {  # by rank, None for the base model
    None: "Vulturul american, care este simbolul național al Statelor Unite, este un vultur de mare dimensiune, cu o "
          "lungime de 2,5 metri și o greutate de 15-20 de kilograme. Are un cap alb și o coadă",
    1: "Vulturul pleşuv", 2: "Pleşuv", 4: "Pleșuv", 8: "Pleşuv", 16: "Vulturul pleşuv", 32: "Vulturul pleșuv.",
}  # fmt: skip

TABLE_5 = ({"target_modules": ("q",), "em": 0.165, "f1": 0.305},
           {"target_modules": ("q", "v"), "em": 0.165, "f1": 0.511},
           {"target_modules": ("q", "k", "v", "o"), "em": 0.190, "f1": 0.485})  # fmt: skip
TABLE_5_LEARNING_RATE = 3e-4
TABLE_6 = ({"target_modules": ("q",), "em": 0.110, "f1": 0.485},
           {"target_modules": ("q", "v"), "em": 0.345, "f1": 0.533},
           {"target_modules": ("q", "k", "v", "o"), "em": 0.415, "f1": 0.542})  # fmt: skip
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


def published(fields: dict | None) -> list[dict]:
    """Return what the paper published for a configuration's fields (None: the base model): table, em, f1; often nothing.

    Rank, alpha, modules (in any order) and learning rate decide; the paper leaves other fields unsaid.
    Example: [row["em"] for row in published(table_3_grid()[1])] -> [0.41, 0.345], of Tables 3 and 6
    """
    if not fields or fields["rank"] is None:
        return [{"table": 3, "em": TABLE_3[0]["em"], "f1": TABLE_3[0]["f1"]}]
    modules = sorted(fields["target_modules"])
    return [
        {"table": table, "em": row["em"], "f1": row["f1"]}
        for table, rows, grid in ((3, TABLE_3[1:], _BY_RANK), (5, TABLE_5, _FAST), (6, TABLE_6, _SLOW))
        for row, own in zip(rows, grid, strict=True)
        if sorted(own["target_modules"]) == modules
        and all(fields.get(key, own[key]) == own[key] for key in ("rank", "alpha", "learning_rate"))
    ]


def trainable_parameters(rank: int, target_modules: tuple[str, ...] = ("q", "v")) -> int:
    """Return how many parameters a LoRA adapter has on Llama 3.2 3B: rank * (in + out) a projection, in 28 layers.

    Example: trainable_parameters(2) -> 573440, which is 0.0178 % of all
    """
    hidden, keys, middle = 3072, 8 * 128, 8192  # 24 heads, 8 of keys and values, of 128 each; the feed-forward's width
    outer = {"q": hidden, "k": keys, "v": keys, "o": hidden, "gate": middle, "up": middle, "down": middle}
    return sum(28 * rank * (hidden + outer[letter]) for letter in target_modules)


def _row(rank: int, modules: tuple[str, ...], learning_rate: float) -> dict:
    return {"rank": rank, "alpha": ALPHA_PER_RANK * rank, "target_modules": modules, "learning_rate": learning_rate}


_BY_RANK, _FAST, _SLOW = table_3_grid(), table_5_grid(), table_6_grid()
WINNER = _BY_RANK[1]  # rank 2, q and v, 1e-4: the configuration the paper recommends
_BOTH = ("em", "f1")

# Each claim with the paper's own words (None: one of ours, of which the paper says nothing) and what tests it:
# comparisons (metric, better, worse), where a side is a list of RunConfig fields (None: the base model) whose scores
# are averaged. A claim holds where every "better" side beats its "worse" side.
CLAIMS = (
    {"claim": "Every rank of Table 3 beats the base model", "ours": False,
     "quote": "all LoRA configurations significantly outperform the base model",
     "comparisons": [(metric, [fields], [None]) for metric in _BOTH for fields in _BY_RANK]},
    {"claim": "All experiments of Tables 5 and 6 beat it too", "ours": False,
     "quote": "All experiments showed improved performance of the fine-tuned model",
     "comparisons": [(metric, [fields], [None]) for metric in _BOTH for fields in (*_FAST, *_SLOW)]},
    {"claim": "Rank 2 is the best rank", "ours": False, "quote": "The best F1 score (0.553) and EM (0.410)",
     "comparisons": [(metric, [WINNER], [fields]) for metric in _BOTH for fields in _BY_RANK if fields != WINNER]},
    {"claim": "q alone is insufficient", "ours": False,
     "quote": "adapting the query projection alone is insufficient for this task",
     "comparisons": [("em", [grid[1]], [grid[0]]) for grid in (_SLOW, _FAST)]},
    {"claim": "More modules help exact match and F1", "ours": False,
     "quote": "Adding more modules gives a boost both in EM and F1.",
     "comparisons": [(metric, [grid[more]], [grid[more - 1]])
                     for metric in _BOTH for grid in (_FAST, _SLOW) for more in (1, 2)]},
    {"claim": "Rank 2 beats the greater ranks 4 to 32", "ours": False,
     "quote": "a lower rank (2) performed better that greater ranks",
     "comparisons": [(metric, [WINNER], [fields]) for metric in _BOTH for fields in _BY_RANK[2:]]},
    {"claim": "The share of trainable parameters is as published", "ours": False,
     "quote": "with corresponding trainable parameter percentages",
     "comparisons": [], "trainable_percent": TABLE_3[1:]},
    {"claim": "Ours: learning rate 1e-4 beats 3e-4", "ours": True, "quote": None,
     "comparisons": [("em", _SLOW, _FAST)]},  # over the three module sets
)  # fmt: skip

# What the paper says and its own tables do not bear out, or say twice and differently.
CONTRADICTIONS = (
    {"about": "rank 2 on q and v at 1e-4", "one": "EM .410, F1 .553 in Table 3", "other": "EM .345, F1 .533 in Table 6",
     "why": "One configuration, two scores: different runs, or different settings that are not reported."},
    {"about": "“Adding more modules gives a boost both in EM and F1”", "one": "said of Tables 5 and 6",
     "other": "in Table 5, q to q, v leaves EM at .165, and q, v to q, k, v, o lowers F1 from .511 to .485",
     "why": "It holds in Table 6 alone."},
    {"about": "3,221,924,864 parameters", "one": "called trainable in the text", "other": "0.2848 % at rank 32 in Table 3",
     "why": "It is the total at rank 32, adapter included; 9,175,040 of them are trainable, which is the 0.2848 %."},
)  # fmt: skip
