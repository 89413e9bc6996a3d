import io
import subprocess
import sys

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from utils import paper
from utils.report.dataset import answer_kinds, lengths, table_1, table_2, tokens_per_word
from utils.report.style import styled


@pytest.fixture
def rows():
    """Four train rows and one test row; texts of 3 to 6 words, questions of 3, answers of 1."""
    row = {"question": "În ce an?", "answer": "1850", "source": "<script>x</script>"}
    train = [row | {"text": "cuvânt " * n, "topic": "Cehia" if n < 5 else "Suceava"} for n in (3, 4, 5, 6)]
    return DatasetDict({"train": Dataset.from_list(train), "test": Dataset.from_list(train[:1])})


def test_table_1_puts_the_loaded_rows_beside_the_published_counts(rows):
    table = table_1(rows)
    assert table["train, paper"].tolist() == [349, 251, 600]
    assert table["test, paper"].tolist() == [51, 149, 200]
    assert table["train, loaded"].tolist() == [2, 2, 4]
    assert table["topics"].tolist() == [18, 21, 39]
    assert table_1(rows.remove_columns("topic"))["train, loaded"].isna().tolist() == [True, True, False]


def test_table_2_shows_the_papers_row_beside_one_of_ours(rows):
    table = table_2(rows)
    assert table["column"].tolist() == ["text", "question", "answer", "source"]
    assert table["paper"].tolist() == list(paper.TABLE_2["row"].values())
    assert table["loaded"].tolist()[2] == "1850"
    assert "<script>" not in styled(table).to_html()


def test_lengths_are_shares_of_rows_in_bins_of_whole_words(rows):
    axes = lengths(rows).axes
    train, test = ([bar.get_height() for bar in bars] for bars in axes[0].containers)
    assert (train, test) == ([0.25] * 4, [1, 0, 0, 0])  # 3, 4, 5 and 6 words: a bin each
    assert [bar.get_height() for bar in axes[1].containers[0]] == [1]  # all of three words
    long = rows["train"].map(lambda row, i: {"text": "cuvânt " * (1 + 10 * i)}, with_indices=True)  # 1 to 31 words
    bars = lengths(DatasetDict({"train": long, "test": long})).axes[0].containers[0]
    assert sum(bar.get_height() for bar in bars) == pytest.approx(1)
    assert len(bars) == 11  # of three words each


def test_figures_of_rows_are_drawn(rows):
    widths = [bar.get_width() for bar in answer_kinds(rows).axes[0].patches]
    assert sum(widths[:5]) == pytest.approx(100)
    tokens_per_word(pd.DataFrame({"Romanian": [1.9], "English": [1.2]}, index=["Llama 3"])).savefig(io.BytesIO())


def test_the_report_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None\nimport utils.report\nprint('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
