from utils.report.frame import as_frame
from utils.report.mistakes import failure_counts, why_it_changed


def answering(record, answers):
    run = record()
    run["predictions"] = [
        {"question": str(i), "answer": answer, "references": references}
        for i, (answer, references) in enumerate(answers)
    ]
    return run


def test_a_run_counts_its_failures(record):
    run = answering(record, [("da", ["da"])] * 4)
    for p, kind in zip(run["predictions"], (None, "unanswered", "partial", "partial"), strict=True):
        p["failure"] = kind
    counts = failure_counts(as_frame([run])).iloc[0]
    assert counts[counts > 0].to_dict() == {"right": 1, "unanswered": 1, "partial": 2}
    for p in run["predictions"]:
        del p["failure"]  # a record from before kinds were kept
    assert failure_counts(as_frame([run]))["not recorded"].tolist() == [4]


def test_why_it_changed_names_the_characters(record):
    told = answering(
        record,
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
