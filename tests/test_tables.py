import json

import pytest

from utils.data import load_qa
from utils.pooling import per_question
from utils.records import as_frame
from utils.tables import as_text, interval, styled, table_1, table_2, table_3, table_4, table_5, table_6


def test_table_1_puts_the_loaded_rows_beside_the_published_counts():
    table = table_1(load_qa("bundled"))
    assert table["train, paper"].tolist() == table["train, loaded"].tolist() == [349, 251, 600]
    assert table["test, paper"].tolist() == table["test, loaded"].tolist() == [51, 149, 200]
    assert table["topics"].tolist() == [18, 21, 39]


def test_table_2_shows_a_row_and_no_invented_one(data):
    table = table_2(data)
    assert table["column"].tolist() == ["text", "question", "answer", "source"]
    assert table["loaded"].tolist()[2] == data["train"][0]["answer"]
    assert table["paper"].isna().all()  # not held here


def test_table_3_has_the_base_model_and_six_ranks(frame):
    table = table_3(frame)
    assert table["rank"].tolist() == ["base", "1", "2", "4", "8", "16", "32"]
    assert table.loc[2, "EM, paper"] == 0.410
    assert table["trainable %, paper"].tolist()[1:] == [0.0089, 0.0178, 0.0357, 0.0713, 0.1426, 0.2848]
    assert table["EM, measured"].notna().all()
    assert table["trainable %, measured"].is_monotonic_increasing
    assert "tiny-llama, profile smoke, dataset bundled (12 train and 6 test rows)" in table.attrs["caption"]


def test_tables_show_what_the_records_say(records):
    record = json.loads(json.dumps(records[2]))  # rank 2, q and v, 1e-4
    answers = ["x"] * 3 + [p["reference"] for p in record["predictions"][3:]]
    for prediction, answer in zip(record["predictions"], answers, strict=True):
        prediction["answer"] = answer
    record["metrics"] |= {"em_strict": 0.5, "f1_strict": 0.5}
    record["table_4"]["answer"] = "Vulturul pleşuv."
    frame = as_frame([record])
    assert per_question(record)[0] == [0, 0, 0, 1, 1, 1]
    assert table_3(frame).loc[2, "EM, measured"] == 0.5
    assert table_3(frame).loc[2, "EM 95 %"] == interval([0, 0, 0, 1, 1, 1])
    assert table_3(frame)["EM, measured"].isna().sum() == 6  # what was not run stays empty
    assert table_6(frame).loc[1, "EM, measured"] == 0.5
    assert table_5(frame)["EM, measured"].isna().all()  # another learning rate
    assert table_4(frame).loc[2, ["answer, measured", "EM strict", "EM ro"]].tolist() == ["Vulturul pleşuv.", 0.0, 1.0]


def test_tables_pool_seeds(seeds_frame):
    same = (seeds_frame["rank"] == 2) & (seeds_frame["learning_rate"] == 1e-4)
    runs = seeds_frame[same & (seeds_frame["target_modules"] == ("q", "v"))].copy()
    records = json.loads(json.dumps(runs["record"].tolist()))
    for right, record in zip((6, 3, 0), records, strict=True):
        for p in record["predictions"][right:]:
            p["answer"] = "x"
        for p in record["predictions"][:right]:
            p["answer"] = p["reference"]
        record["metrics"]["em_strict"] = right / 6
    table = table_3(as_frame(records))
    assert table.loc[2, "EM, measured"] == 0.5
    assert table.loc[2, "EM 95 %"] == interval([[1, 1, 0]] * 3 + [[1, 0, 0]] * 3)
    assert "n = 6 questions, means over 3 seeds (0, 1, 2)" in table.attrs["caption"]
    assert "intervals over questions and seeds" in table.attrs["caption"]


def test_with_one_seed_the_table_says_so(frame, seeds_frame):
    assert "n = 6 questions, seed 0; 95 % intervals over questions alone" in table_5(frame).attrs["caption"]
    assert "means over 2 to 3 seeds" in table_5(seeds_frame.iloc[:-1]).attrs["caption"]


def test_tables_5_and_6_publish_what_is_known(frame):
    assert table_5(frame)["EM, paper"].tolist()[0] == 0.165
    assert table_6(frame)["EM, paper"].tolist()[1] == 0.345
    assert table_5(frame)["modules"].tolist() == ["q", "q, v", "q, k, v, o"]


def test_a_dash_stands_where_there_is_no_value(frame):
    text = as_text(table_3(frame))
    assert "–" in text.splitlines()[2]
    assert "nan" not in text.lower()
    assert "0.0178" in text
    html = styled(table_3(frame)).to_html()
    assert "0.410" in html
    assert "nan" not in html.lower()


def test_interval_text():
    assert interval([1.0] * 82 + [0.0] * 118) in ("0.34–0.48", "0.34–0.47", "0.35–0.48")
    assert interval([0.0, 0.0]) == "no spread"


def test_an_empty_frame_gives_the_published_values_alone(frame):
    assert table_3(frame.iloc[:0])["EM, measured"].isna().all()


@pytest.mark.parametrize("table", [table_3, table_4, table_5, table_6])
def test_every_caption_says_what_was_measured(frame, table):
    assert "profile smoke" in table(frame).attrs["caption"]
