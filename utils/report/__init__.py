"""Records as tables, figures and verdicts; nothing here knows a model."""

from utils.report.claims import published_claims, published_scores, verdicts
from utils.report.dataset import answer_kinds, lengths, table_1, table_2, tokens_per_word
from utils.report.frame import as_frame, comparable, load_frame, pooled
from utils.report.mistakes import failure_counts, failures, why_it_changed
from utils.report.plots import forest, loss_curves, module_bars, scores_by_parameters, scores_by_rank
from utils.report.riddle import rank_effect, riddle, variants
from utils.report.style import as_text, save_figure, styled
from utils.report.tables import run_table, table_3, table_4, table_5, table_6

__all__ = ["answer_kinds", "as_frame", "as_text", "comparable", "failure_counts", "failures", "forest", "lengths",
           "load_frame", "loss_curves", "module_bars", "pooled", "published_claims", "published_scores", "rank_effect",
           "riddle", "run_table", "save_figure", "scores_by_parameters", "scores_by_rank", "styled", "table_1", "table_2", "table_3",
           "table_4", "table_5", "table_6", "tokens_per_word", "variants", "verdicts", "why_it_changed"]  # fmt: skip
