"""What `make bench` measured, for a person: a table, a verdict on the losses, a figure, and the JSON they come from."""

import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from utils.data_plots import BLUE, GREEN, GREY, ORANGE, set_labels, subplots


def table(record: dict) -> pd.DataFrame:
    """Return one row per trainer, in the units that a person reads.

    Example: print(table(bench(detect())).to_string(index=False))
    """
    first = record["trainers"][0]["trainer"]
    return pd.DataFrame(
        {
            "trainer": m["trainer"],
            "samples/s": round(m["samples_per_second"], 2),
            "tokens/s": round(m["tokens_per_second"]),
            f"times {first}": round(m["times_first"], 1),
            "final loss": round(m["final_loss"], 3),
            "peak GiB": round(m["peak_bytes"] / 2**30, 2),
            "% of ceiling": round(100 * m["of_ceiling"], 1),
            "s to first step": round(m["until_first_step_seconds"], 1),
        }
        for m in record["trainers"]
    )


def verdict(record: dict) -> str:
    """Return in one sentence whether every trainer has the losses of the first one, within the tolerance.

    Example: print(verdict(bench(detect())))
    """
    tolerance, trainers = record["loss_tolerance"], record["trainers"]
    off = [f"{m['trainer']} by {m['loss_difference']:.1%}" for m in trainers if m["loss_difference"] > tolerance]
    widest = max(m["loss_difference"] for m in trainers)
    if not losses_agree(record):
        return (
            f"THE LOSSES DISAGREE, so the speeds cannot be compared: from the loss of {trainers[0]['trainer']!r} at a step "
            f"differ {', '.join(off)}; at most {tolerance:.1%} comes from rounding in {record['environment']['dtype']}."
        )
    return (
        f"The same objective: at no step does a loss differ from that of {trainers[0]['trainer']!r} by more than {widest:.1%} "
        f"(rounding in {record['environment']['dtype']}; up to {tolerance:.1%} is taken for that)."
    )


def losses_agree(record: dict) -> bool:
    """Return whether no trainer's loss differs from the first one's at any step by more than the tolerance.

    Example: losses_agree(bench(detect())) -> True
    """
    return all(m["loss_difference"] <= record["loss_tolerance"] for m in record["trainers"])


def title(record: dict) -> str:
    """Return what was measured on what, in one line.

    Example: title(record) -> "gemma-3-270m, profile demo, bundled (28 rows), rank 2, batch 4, 2 CPU cores, bfloat16"
    """
    config, machine = record["config"], record["environment"]
    where = f"{record['threads']} CPU cores" if machine["device"] == "cpu" else machine["device"]
    return (
        f"{config['model']}, profile {machine['profile']}, {record['data']['name']} ({record['data']['train_rows']} rows), "
        f"rank {config['rank']}, batch {config['batch_size']}, {where}, {machine['dtype']}"
    )


def speeds(record: dict) -> Figure:
    """Return samples per second of every trainer, and how the cost of ours grows with rows, adapters and rank.

    Example: speeds(record).savefig("bench.png")
    """
    figure, (left, right) = subplots(1, 2, figsize=(10, 3.8), width_ratios=(1.25, 1))
    trainers = record["trainers"]
    colours = [BLUE if m["trainer"].startswith("ours") else GREY for m in trainers]
    bars = left.barh([m["trainer"] for m in trainers], [m["samples_per_second"] for m in trainers], color=colours)
    left.bar_label(bars, [f"{m['samples_per_second']:.3g}  (×{m['times_first']:.3g})" for m in trainers], padding=4)
    left.set_xlim(right=1.35 * max(m["samples_per_second"] for m in trainers))
    left.invert_yaxis()
    set_labels(left, f"rows trained a second (× {trainers[0]['trainer']})", "")
    for what, colour, mark in (("rows", GREEN, "s"), ("adapters", BLUE, "o"), ("rank", ORANGE, "^")):
        if points := [g for g in record["growth"] if g["grows"] == what]:
            sizes = [g["to"] / points[0]["to"] for g in points]
            costs = [g["seconds"] / points[0]["seconds"] for g in points]
            unit = points[0]["samples"] if what == "rows" else 1
            label = f"{what}, {points[0]['to'] * unit} to {points[-1]['to'] * unit}"
            right.plot(sizes, costs, marker=mark, color=colour, label=label)
    if record["growth"]:
        right.axline((1, 1), (2, 2), color=GREY, linestyle=":", label="in proportion")
        right.set_xscale("log", base=2)
        right.set_yscale("log", base=2)
        for axis in (right.xaxis, right.yaxis):
            axis.set_major_formatter("×{x:g}")
        right.legend(frameon=False, fontsize=9)
    set_labels(right, "as much of it", "seconds of training")
    figure.suptitle(title(record), fontsize=11)
    return figure


def save(record: dict, folder: Path) -> None:
    """Write reference/bench.json and bench.png to the folder.

    Example: save(bench(detect()), ROOT / "figures")
    """
    (folder / "reference").mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "reference" / "bench.json").write_text(text + "\n", encoding="utf-8")
    speeds(record).savefig(folder / "bench.png", dpi=150)
