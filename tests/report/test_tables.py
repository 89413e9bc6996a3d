import pandas as pd
import pytest

from utils import paper
from utils.report.frame import as_frame
from utils.report.style import as_text, captioned, styled
from utils.report.tables import interval, table_3, table_4, table_5, table_6


@pytest.mark.parametrize("frame_or_none", ["frame", "nothing"])
def test_every_published_value_stands(frame, frame_or_none):
    shown = frame if frame_or_none == "frame" else frame.iloc[:0]
    three, five, six = table_3(shown), table_5(shown), table_6(shown)
    assert three["rank"].tolist() == ["base", 1, 2, 4, 8, 16, 32]
    assert three["EM, paper"].tolist() == [0.100, 0.395, 0.410, 0.325, 0.230, 0.340, 0.145]
    assert three["F1, paper"].tolist() == [0.299, 0.514, 0.553, 0.455, 0.419, 0.540, 0.428]
    assert three["trainable %, paper"].tolist()[1:] == [0.0089, 0.0178, 0.0357, 0.0713, 0.1426, 0.2848]
    assert five[["EM, paper", "F1, paper"]].to_numpy().tolist() == [[0.165, 0.305], [0.165, 0.511], [0.190, 0.485]]
    assert six[["EM, paper", "F1, paper"]].to_numpy().tolist() == [[0.110, 0.485], [0.345, 0.533], [0.415, 0.542]]
    assert six["modules"].tolist() == ["q", "q, v", "q, k, v, o"]
    assert three["EM, measured"].notna().all() == (frame_or_none == "frame")


def test_table_4_judges_published_and_measured_answers(record):
    runs = [record(fields) for fields in paper.table_3_grid()[:2]]
    runs[0]["table_4"]["question"] = "Another question?"  # as older records were asked
    table = table_4(as_frame(runs)).set_index("rank")
    assert [rank for rank in table.index if table.loc[rank, "strict, paper"] == "✓"] == [4]
    assert [rank for rank in table.index if table.loc[rank, "ro, paper"] == "✓"] == [2, 4, 8]
    assert table.loc[2, ["answer, measured", "strict, measured", "ro, measured"]].tolist() == ["Pleşuv", "✗", "✓"]
    assert table.loc[[1, 4], "answer, measured"].isna().all()
    runs[1]["table_4"]["answer"] = None
    assert table_4(as_frame(runs)).loc[2, "answer, measured"] == "(no answer)"


def test_tables_show_what_the_records_say(record):
    table = table_3(as_frame([record(paper.WINNER, right) | {"run_id": str(right)} for right in (3,)]))
    assert table.loc[2, ["EM, measured", "EM 95 %"]].tolist() == [0.5, interval([0, 0, 0, 1, 1, 1])]
    assert table["EM, measured"].isna().sum() == 6  # what was not run stays empty
    assert table_5(as_frame([record(paper.WINNER)]))["EM, measured"].isna().all()  # another learning rate


def test_tables_pool_seeds(record):
    table = table_6(as_frame([record(paper.WINNER, right, seed=seed) for seed, right in enumerate((6, 3, 0))]))
    assert table.loc[1, "EM, measured"] == 0.5
    assert table.loc[1, "EM 95 %"] == interval([[1, 1, 0]] * 3 + [[1, 0, 0]] * 3)


def test_a_caption_counts_the_seeds_of_its_own_rows(record):
    runs = [record(fields, seed=seed) for fields in paper.table_3_grid() for seed in (0, 1)]
    frame = as_frame([*runs, record(paper.table_5_grid()[0])])
    assert "seed 0; 95 % intervals over questions alone" in table_5(frame).attrs["caption"]
    assert "means over 2 seeds (0, 1);" in table_3(frame).attrs["caption"]
    assert "Measured: nothing yet." in table_5(frame[frame["learning_rate"] == 1e-4]).attrs["caption"]


def test_interval_text():
    assert interval([1.0] * 82 + [0.0] * 118) == "0.34–0.48"  # Wilson, worked out in test_stats
    assert interval([0.0] * 39) == "0.00–0.09"


@pytest.mark.parametrize("table", [table_3, table_4, table_5, table_6])
def test_every_caption_says_what_was_measured_and_published(frame, table):
    assert "in bfloat16, profile smoke" in table(frame).attrs["caption"]
    assert "Llama 3.2 3B on OnnieNLP/InformationExtractionQA, n = 200" in table(frame).attrs["caption"]


def test_a_dash_stands_where_there_is_no_value(frame):
    for shown in (as_text(table_4(frame.iloc[:0])), styled(table_3(frame)).to_html(), as_text(table_3(frame))):
        assert "–" in shown
        assert "nan" not in shown.lower()
        assert "None" not in shown
    assert styled(table_3(frame)).to_html() == styled(table_3(frame)).to_html()  # notebooks come out the same each time
    assert "0.0178" in as_text(table_3(frame))
    assert "0.410" in styled(table_3(frame)).to_html()


def test_a_p_value_is_never_nought():
    table = captioned([{"p": 1e-9, "p (Holm)": 0.0421}, {"p": 0.25, "p (Holm)": None}], "")
    assert as_text(table).split() == ["p", "p", "(Holm)", "<", "0.001", "0.042", "0.250", "–"]
    assert "< 0.001</td>" in styled(table).to_html()


def test_what_a_text_holds_is_shown_and_never_run():
    table = pd.DataFrame({"answer": ["<script>x</script>", None], "<b>": [1.0, None]})
    table.attrs["caption"] = "<i>file</i>.csv"
    table = pd.concat([table, table])  # an index that stands twice
    html = styled(table).to_html()
    assert "&lt;script&gt;x" in html
    assert "&lt;b&gt;" in html
    assert "&lt;i&gt;file" in html
    assert not any(tag in html for tag in ("<script>", "<b>", "<i>"))


def test_a_table_of_nothing_but_numbers_or_without_a_caption():
    table = pd.DataFrame({"steps": [3], "loss": [0.25]})
    assert "0.250" in styled(table).to_html()
    assert as_text(table).split() == ["steps", "loss", "3", "0.250"]
