import io

import pandas as pd
import pytest
from matplotlib.figure import Figure

from utils import plots
from utils.config import RunConfig
from utils.models import add_lora
from utils.training import fine_tune


def drawn(figure):
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")  # draws everything; a bad label or scale fails here
    return figure


@pytest.mark.parametrize(
    "name",
    [
        "scores_by_rank", "scores_by_parameters", "module_bars", "loss_curves", "time_and_memory", "forest", "failures",
    ],
)  # fmt: skip
def test_figures_of_records_say_what_they_show(frame, name):
    figure = drawn(getattr(plots, name)(frame))
    title = figure.get_suptitle() or figure.axes[0].get_title()
    assert "tiny-llama, profile smoke, bundled (12 train, 6 test rows)" in title
    assert all(axis.get_xlabel() for axis in figure.axes)


def test_scores_by_rank_holds_measured_and_published_points(frame):
    axis = drawn(plots.scores_by_rank(frame)).axes[0]
    lines = {line.get_label(): list(line.get_xdata()) for line in axis.lines}
    assert lines["paper, Llama 3.2 3B"] == [2]
    ranks = next(list(c.lines[0].get_xdata()) for c in axis.containers)
    assert ranks == [1, 2, 4, 8, 16, 32]


def test_several_seeds_are_one_point_and_the_title_says_how_many(seeds_frame):
    for figure in (plots.scores_by_rank, plots.forest, plots.failures, plots.scores_by_parameters):
        made = drawn(figure(seeds_frame))
        assert "3 seeds" in (made.get_suptitle() or made.axes[0].get_title())
    axis = drawn(plots.scores_by_rank(seeds_frame)).axes[0]
    assert next(list(c.lines[0].get_xdata()) for c in axis.containers) == [1, 2, 4, 8, 16, 32]


def test_the_forest_has_a_mark_for_every_comparison(frame):
    assert [len(axis.containers) for axis in plots.forest(frame).axes] == [11, 10]


def test_failures_add_up_to_all_answers(frame):
    bars = plots.failures(frame).axes[0].containers
    assert [sum(bar[i].get_width() for bar in bars) for i in range(12)] == pytest.approx([100] * 12)


def test_module_bars_has_both_learning_rates(frame):
    axis = drawn(plots.module_bars(frame)).axes[0]
    assert len(axis.patches) == 6


def test_figures_of_data(data):
    assert len(drawn(plots.lengths(data)).axes) == 3
    widths = [bar.get_width() for bar in drawn(plots.answer_kinds(data)).axes[0].patches]
    assert sum(widths[:5]) == pytest.approx(100)
    drawn(plots.tokens_per_word(pd.DataFrame({"Romanian": [1.9], "English": [1.2]}, index=["Llama 3"])))


def test_the_live_loss_follows_a_run(base, tokenizer, data, capsys):
    config = RunConfig("tiny-llama", epochs=2)
    live = plots.LiveLoss("a run", every=2)
    result = fine_tune(add_lora(base, config), tokenizer, data["train"], config, callbacks=[live])
    assert live.steps == [1, 2, 3, 4, 5, 6]
    assert live.loss == [entry["loss"] for entry in result.loss]
