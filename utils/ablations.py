"""Questions that the paper leaves open, each a small grid of RunConfig fields; run only when asked for."""

import pandas as pd

from utils.config import MODULE_LETTERS, RunConfig
from utils.paper import MODULES_RANK, RANKS, TARGET_MODULES, table_3_grid
from utils.pooling import by_seed, measured, pooled
from utils.tables import interval

ABLATIONS = {
    # Are the paper's odd ranks those of a model that was trained to write the text as well?
    "loss": [fields | {"loss_on": loss} for loss in ("answer", "text") for fields in table_3_grid()],
    # The update is scaled by alpha / r: by 8 / r, by 4 at every rank (the paper's), or by 5.657 / sqrt(r) with rsLoRA.
    # The three meet at rank 2.
    "alpha": [
        {"rank": rank, "alpha": alpha, "rslora": rslora}
        for rank in RANKS
        for alpha, rslora in ((8, False), (4 * rank, False), (5.657, True))
    ],
    # The same number of parameters (on Llama 3.2 3B 9.18, 9.18 and 9.12 million), spread ever wider.
    "modules": [
        {"rank": 32, "target_modules": ("q", "v")},
        {"rank": 16, "target_modules": ("q", "k", "v", "o")},
        {"rank": 6, "target_modules": tuple(MODULE_LETTERS)},
    ],
    # Has the paper's better rate only been better for its own module set, and is a still higher one better?
    "learning_rate": [
        {"rank": MODULES_RANK, "target_modules": modules, "learning_rate": rate}
        for modules in TARGET_MODULES
        for rate in (1e-4, 3e-4, 1e-3)
    ],
    # How much of the gain is only the form of an answer, which examples in the prompt show as well?
    "shots": [{"rank": None, "shots": shots} for shots in (0, 1, 3)],
    # Do Romanian labels suit a Romanian text better?
    "language": [{"rank": rank, "prompt_language": language} for rank in (None, 2) for language in ("en", "ro")],
}


def ablation(question: str, **shared) -> list[RunConfig]:
    """Return the configurations that answer one of ABLATIONS' questions; `shared` are the fields all of them have.

    Example: [c.shots for c in ablation("shots", model="gemma-3-270m")] -> [0, 1, 3]
    """
    if question not in ABLATIONS:
        raise ValueError(f"Unknown ablation {question!r}; expected one of {list(ABLATIONS)}.")
    configs = [RunConfig(**shared | fields) for fields in ABLATIONS[question]]
    return list(dict.fromkeys(config.base() if config.is_base else config for config in configs))


def ablation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row per configuration: rank, the settings that vary, parameters, exact match and token F1 with intervals.

    Example: styled(ablation_table(as_frame(sweep(ablation("shots", model=model), data, environment))))
    """
    pool = pooled(frame)
    settings = [f for f in RunConfig.__dataclass_fields__ if f in pool and f != "rank"]
    kinds = [runs for _, runs in pool.groupby(pool["rank"].isna())]  # a base model's training settings say nothing
    varied = [f for f in settings if any(runs[f].nunique() > 1 for runs in kinds)]
    rows = []
    for _, run in pool.iterrows():
        em, f1 = by_seed(run["records"])
        row = {"rank": "base" if pd.isna(run["rank"]) else f"{run['rank']:.0f}", **{f: _shown(run[f]) for f in varied}}
        row |= {"trainable": f"{run['trainable']:,.0f}", "EM": run["em_strict"], "EM 95 %": interval(em)}
        rows.append(row | {"F1": run["f1_strict"], "F1 95 %": interval(f1)})
    table = pd.DataFrame(rows)
    table.attrs["caption"] = f"Beyond the paper. {measured(pool)}"
    return table


def _shown(value) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return "–" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)
