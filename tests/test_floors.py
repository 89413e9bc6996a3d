"""The dataset's baselines, on rows whose candidates can be counted by hand, and the balance that the card promises."""

import pytest

from tests.floors import candidates, floors
from utils.data import load_qa

ROW = {"text": "Născut în 1850, a murit în 1889.", "question": "Când a murit?", "answer": "1889"}


def test_candidates_are_spans_of_the_answers_kind():
    assert candidates(ROW) == ["1850", "1889"]
    assert candidates({**ROW, "answer": "a murit"}) == []  # a common phrase has none
    row = {"text": "A plecat Ion Creangă la Iași cu Maria.", "question": "Unde?", "answer": "Iași"}
    assert candidates(row) == ["Ion Creangă", "Iași", "Maria"]


def test_floors_of_two_rows():
    found = floors([ROW, {**ROW, "answer": "1850"}])
    assert (found["first"], found["last"], found["several"]) == (0.5, 0.5, 2)
    assert (found["two_first"], found["two_second"]) == (1, 1)
    assert found["thirds"] == [0.5, 0.0, 0.5]  # characters 10 and 27 of 32


@pytest.mark.parametrize("split", ["train", "test"])
def test_of_two_candidates_the_first_is_right_as_often_as_the_second(split):
    found = floors(list(load_qa("bundled")[split]))
    assert 0.45 <= found["two_first"] / (found["two_first"] + found["two_second"]) <= 0.55
