import io
import itertools

import pytest
from matplotlib.figure import Figure

from utils import paper
from utils.report import mistakes, plots, save_figure
from utils.report.frame import as_frame


def drawn(figure):
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")  # draws everything; a bad label or scale fails here
    return figure


FIGURES = [
    plots.scores_by_rank, plots.scores_by_parameters, plots.module_bars, plots.loss_curves, plots.forest, mistakes.failures,
]  # fmt: skip


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_say_what_they_show_and_stay_legible_at_400_pixels(frame, draw):
    figure = drawn(draw(frame))
    assert "gemma-3-270m in bfloat16, profile smoke, bundled (12 train, 6 test" in figure.get_suptitle()
    assert all(axis.get_xlabel() for axis in figure.axes)
    texts = [text for axis in figure.axes for text in axis.texts] + [t for g in figure.legends for t in g.get_texts()]
    smallest = min((text.get_fontsize() for text in texts), default=10)
    assert smallest / 72 * 400 / figure.get_figwidth() > 7  # pixels high where the figure is 400 wide


@pytest.mark.parametrize("draw", FIGURES)
def test_a_partial_sweep_is_drawn_too(record, draw):
    drawn(
        draw(
            as_frame([record(paper.WINNER | {"rank": 3, "alpha": 1, "learning_rate": 2e-4, "target_modules": ("up",)})])
        )
    )
    drawn(draw(as_frame([record()])))


def test_a_file_with_dollars_in_its_name_is_no_formula(record):
    run = record(paper.WINNER)
    run["data"]["name"] = "my$\\frac$"
    assert "my$\\frac$" in drawn(plots.forest(as_frame([run]))).get_suptitle().replace("\n", " ")


def lines(axis):
    return {container.get_label(): container.lines[0].get_xydata().tolist() for container in axis.containers}


@pytest.mark.parametrize("draw", FIGURES)
def test_names_that_would_be_code_are_drawn_as_they_stand(record, draw, tmp_path):
    runs = [record(), record(paper.WINNER), record(paper.WINNER, seed=1)]
    for run in runs:
        run["data"]["name"], run["config"]["model"] = "<script>$\\frac{$", "<script>$\\input{/etc/passwd}$"
    save_figure(draw(as_frame(runs)), tmp_path / "figures" / "figure.png")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["figure.png"]
    assert (tmp_path / "figures" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_scores_by_rank_puts_published_and_measured_on_one_scale(frame):
    published, measured = drawn(plots.scores_by_rank(frame)).axes
    # The two scores stand a little to either side of the rank, so that their intervals can be told apart.
    assert lines(published)["exact match"] == [[0.97 * row["rank"], row["em"]] for row in paper.TABLE_3[1:]]
    assert lines(published)["token F1"] == [[1.03 * row["rank"], row["f1"]] for row in paper.TABLE_3[1:]]
    assert lines(measured)["exact match"] == [[0.97 * rank, 0.5] for rank in paper.RANKS]
    assert published.get_ylim() == measured.get_ylim()
    assert {line.get_label(): line.get_ydata()[0] for line in published.lines if "base" in str(line.get_label())} == {
        "base, exact match": 0.100,
        "base, token F1": 0.299,
    }
    assert [text.get_text() for text in published.texts] == [".12", ".28"]  # the gap at ranks 1 and 32
    shapes = [axis.containers[0].lines[0].get_marker() for axis in (published, measured)]
    assert shapes == ["D", "o"]


def test_the_published_numbers_stand_alone_where_nothing_was_measured():
    figure = drawn(plots.scores_by_rank())
    assert len(figure.axes) == 1
    order = [text.get_text() for text in figure.legends[0].get_texts()]
    assert order == ["exact match", "base, exact match", "token F1", "base, token F1", "the gap"]


def test_scores_by_parameters_have_intervals(frame):
    containers = drawn(plots.scores_by_parameters(frame)).axes[0].containers
    assert all(container.has_yerr for container in containers)
    assert [c.get_label() for c in containers] == [
        f"{m} at {r}" for r in ("1e-4", "3e-4") for m in ("q", "q, v", "q, k, v, o")
    ]


def test_module_bars_have_both_learning_rates_and_the_papers_points(frame):
    axis = drawn(plots.module_bars(frame)).axes[1]
    assert len(axis.patches) == 6
    points = [list(line.get_ydata()) for line in axis.lines if line.get_label() == "paper, Llama 3.2 3B"]
    assert points == [[0.485, 0.533, 0.542], [0.305, 0.511, 0.485]]


def test_loss_curves_have_few_colours_and_name_every_end(frame):
    axis = drawn(plots.loss_curves(frame)).axes[0]
    assert len({line.get_color() for line in axis.lines}) == 3
    assert len(axis.texts) == 11
    assert axis.get_yscale() == "log"
    heights = sorted(text.xyann[1] for text in axis.texts)
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.05  # no name on another


def test_the_forest_has_a_mark_for_every_comparison(frame):
    assert [len(axis.containers) for axis in plots.forest(frame).axes] == [11, 10]


def test_several_seeds_are_one_point_and_the_title_says_how_many(seeds_frame):
    figure = drawn(plots.scores_by_rank(seeds_frame))
    assert "3 seeds" in figure.get_suptitle().replace("\n", " ")
    assert len(lines(figure.axes[1])["exact match"]) == 6


def test_failures_add_up_to_all_answers(frame):
    bars = mistakes.failures(frame).axes[0].containers
    assert [sum(bar[i].get_width() for bar in bars) for i in range(12)] == pytest.approx([100] * 12)
