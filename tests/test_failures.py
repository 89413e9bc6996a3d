import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.failures import KINDS, failure_counts, failure_kind, why_it_changed
from utils.metrics import exact_match
from utils.records import as_frame

TEXT = "Vulturul pleșuv ține în gheare o ramură de măslin. Pe stema Mexicului apare acvila de munte."
WORDS = st.lists(st.sampled_from("Vulturul vulturul pleșuv plesuv Pleşuv pleșuv. acvila munte .".split())).map(" ".join)


@pytest.mark.parametrize(
    ("prediction", "kind"),
    [
        ("vulturul pleșuv", None),
        (None, "unanswered"),
        ("Vulturul pleșuv.", "punctuation or case only"),
        ("„vulturul  pleșuv”", "punctuation or case only"),
        ("vulturul pleşuv", "diacritics only"),  # cedilla
        ("Vulturul plesuv.", "diacritics only"),  # no mark at all, a capital and a full stop: the mark is what is left
        ("vulturul ples\u0326uv", "diacritics only"),  # the letter and its comma as two characters
        ("este vulturul pleșuv", "verbose"),
        ("Vulturul pleşuv, care zboară", "verbose"),
        ("Pleşuv", "partial"),
        ("vulturul negru", "partial"),
        ("acvila de munte", "wrong span of the text"),
        ("Acvila", "wrong span of the text"),
        ("acvilă", "wrong span of the text"),  # compared without marks
        ("în gheare", "wrong span of the text"),
        ("vultur", "not in the text"),  # words, not letters
        ("leul", "not in the text"),
        ("…", "not in the text"),
    ],
)
def test_the_first_kind_that_holds(prediction, kind):
    assert failure_kind(prediction, "vulturul pleșuv", TEXT) == kind


def test_several_references_are_tried_kind_by_kind():
    assert failure_kind("1850", ["anul 1850", "1850"], TEXT) is None
    assert failure_kind("1850.", ["anul 1850", "1850"], TEXT) == "punctuation or case only"  # not partial


def test_small_words_are_no_overlap():
    assert failure_kind("3 de zile", "la 104 de ani", TEXT) == "not in the text"
    assert failure_kind("anul 104", "la 104 de ani", TEXT) == "partial"


@given(WORDS | st.none(), WORDS)
def test_every_answer_is_right_or_wrong_in_one_way(prediction, reference):
    kind = failure_kind(prediction, reference, TEXT)
    assert (kind is None) == (exact_match(prediction, reference) == 1.0)
    assert kind is None or kind in KINDS


def answering(record, answers):
    record = copy.deepcopy(record)
    for p, (answer, references) in zip(record["predictions"], answers, strict=False):
        p |= {"answer": answer, "references": references, "failure": failure_kind(answer, references, TEXT)}
    record["predictions"] = record["predictions"][: len(answers)]
    return record


def test_a_run_counts_its_failures(records):
    right = ["vulturul pleșuv"]
    told = answering(records[1], [("vulturul pleșuv", right), (None, right), ("acvila", right), ("munte", right)])
    counts = failure_counts(as_frame([told])).iloc[0]
    assert counts[counts > 0].to_dict() == {"right": 1, "unanswered": 1, "wrong span of the text": 2}
    for p in told["predictions"]:
        del p["failure"]  # a record from before kinds were kept
    assert failure_counts(as_frame([told]))["not recorded"].tolist() == [4]


def test_records_keep_the_kind_and_every_prediction_has_one(records, frame):
    assert all(p["failure"] in (None, *KINDS) for record in records for p in record["predictions"])
    assert failure_counts(frame).sum(axis=1).tolist() == [6] * 12


def test_why_it_changed_names_the_characters(records):
    told = answering(
        records[1],
        [
            ("Pleşuv.", ["pleșuv"]),
            ("un an", ["un"]),
            ("pleșuv", ["pleșuv"]),  # the same verdict everywhere
            ("leul", ["pleșuv"]),  # wrong everywhere
            (None, ["pleșuv"]),
            ("Iași", ["la Iași", "iași"]),
        ],
    )
    table = why_it_changed(told)
    assert table[["strict", "squad", "ro"]].to_numpy().tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 1]]
    assert table["characters"].tolist() == ["P for p, ş U+015F for ș U+0219, . added", "' an' added", "I for i"]
    for p in told["predictions"]:
        del p["references"]  # a record from before several were kept
        p["reference"] = "pleșuv"
    assert len(why_it_changed(told)) == 1
