"""In what way answers are wrong, run by run, and which characters make three norms disagree about them."""

import difflib

import pandas as pd
from matplotlib.figure import Figure

from utils.metrics import FAILURES, NORMS, exact_match
from utils.records import run_name
from utils.report.frame import pooled, run_title
from utils.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, YELLOW, finish, set_labels, subplots


def failure_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how many answers of each run are right and how many wrong in each way, a row a run (its run_id).

    Example: failure_counts(load_frame(folder))["verbose"].sum()
    """
    kinds = [[p.get("failure", "not recorded") or "right" for p in record["predictions"]] for record in frame["record"]]
    columns = ["right", *FAILURES, *(["not recorded"] if any("not recorded" in run for run in kinds) else [])]
    return pd.DataFrame([{c: run.count(c) for c in columns} for run in kinds], index=frame["run_id"], columns=columns)


def failures(frame: pd.DataFrame) -> Figure:
    """Return stacked bars: the share of right answers of each configuration, and of each kind of wrong ones.

    Example: failures(comparable(load_frame(folder)))
    """
    pool = pooled(frame)
    runs = [failure_counts(pd.DataFrame({"run_id": "", "record": some})).sum() for some in pool["records"]]
    shares = pd.DataFrame([100 * run / run.sum() for run in runs]).fillna(0)
    figure, axis = subplots(height=2.4 + 0.26 * len(shares))
    left, colours = 0 * shares["right"], (BLUE, GREY, SKY, GREEN, ORANGE, YELLOW, RED, PURPLE, "black", "gainsboro")
    for kind, colour in zip(shares.columns, colours, strict=False):
        axis.barh(shares.index, shares[kind], left=left, color=colour, edgecolor="white", linewidth=0.5, label=kind)
        left = left + shares[kind]
    axis.set_yticks(shares.index, [run_name(run) for _, run in pool.iterrows()])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    set_labels(axis, "share of answers (%), strict norm", "")
    return finish(figure, run_title(pool), axis)


def why_it_changed(record: dict) -> pd.DataFrame:
    """Return the predictions that are right by one norm and wrong by another, with the characters that did it.

    A row each: question, answer, reference (the nearest), 1 or 0 under each norm, and what separates the two.
    Example: why_it_changed(record)["characters"].tolist() -> ["ş U+015F for ș U+0219", ". added"]
    """
    rows = []
    for p in record["predictions"]:
        answer, references = p["answer"], p.get("references") or [p["reference"]]
        verdicts = {norm: int(exact_match(answer, references, norm)) for norm in NORMS}
        if len(set(verdicts.values())) > 1:
            fit = {r: (sum(exact_match(answer, r, n) for n in NORMS), _matcher(answer, r).ratio()) for r in references}
            nearest = max(references, key=fit.get)  # that the most norms accept, and of these the most alike
            found = {"question": p["question"], "answer": answer, "reference": nearest}
            rows.append(found | verdicts | {"characters": _difference(answer, nearest)})
    return pd.DataFrame(rows, columns=["question", "answer", "reference", *NORMS, "characters"])


def _matcher(answer: str, reference: str) -> difflib.SequenceMatcher:
    return difflib.SequenceMatcher(None, reference, answer, autojunk=False)


def _difference(answer: str, reference: str) -> str:
    said = []
    for kind, i, j, k, m in _matcher(answer, reference).get_opcodes():
        was, now = _named(reference[i:j]), _named(answer[k:m])
        texts = {"insert": f"{now} added", "delete": f"{was} missing", "replace": f"{now} for {was}"}
        said += [texts[kind]] if kind in texts else []
    return ", ".join(said) or "accepted, not the row's own answer"


def _named(part: str) -> str:
    # Letters that look alike need their code point to be told apart.
    return f"{part} U+{ord(part):04X}" if len(part) == 1 and ord(part) > 127 else repr(part) if " " in part else part
