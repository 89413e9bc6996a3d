import dataclasses
import json
import shutil

import pytest
from matplotlib.testing.compare import compare_images

from tests import published
from utils.config import RunConfig
from utils.data import load_qa
from utils.environment import ROOT
from utils.metrics import failure_kind, score
from utils.records import load_records, run_name, save_record
from utils.report import comparable, load_frame


def test_the_work_is_the_papers_grid_with_three_seeds_and_what_is_asked_beside_it(data):
    more = {"train": data["train"], "test": data["test"]}
    plan = published.work(data, more)
    assert len(plan) == 12 + 12 + 2 * 5 + 5 + 2 * 11
    assert len({(config.run_id, rows is more) for config, rows, _ in plan}) == len(plan)
    asked = [(config, adapter) for config, rows, adapter in plan if adapter and rows is data]
    assert {adapter.rank for _, adapter in asked} == {2, 32}
    assert {config.draw for config, _ in asked} == set(range(5))
    for config, adapter in asked:
        assert dataclasses.replace(config, temperature=0.0, top_p=1.0, draw=0) == adapter
    names = [f"{run_name(config.as_dict())}, {config.epochs} epochs" for config in published.further()]
    assert names == [
        "r 2 q,v 1e-4, loss on text, 3 epochs", "r 32 q,v 1e-4, loss on text, 3 epochs", "base, 3 solved, 3 epochs",
        "r 2 q,v 1e-4, 1 epochs", "r 2 q,v 1e-4, 5 epochs",
    ]  # fmt: skip


def test_what_a_piece_of_work_takes(data):
    config = RunConfig("m")
    assert published.seconds(config, data, None, 2.0) == 12 * 3 / 2 + 6 / 2
    assert published.seconds(config, data, config, 2.0) == 6 / 2
    assert published.seconds(dataclasses.replace(config, loss_on="text"), data, None, 2.0) == 2.5 * 18 + 3
    assert published.seconds(config.base(), data, None, 3.0) == 6


def test_what_is_not_in_the_plan_not_finished_or_of_uncommitted_code_is_not_published(
    tmp_path, records, grid, data, environment, monkeypatch
):
    there = dataclasses.replace(environment, runs=tmp_path)
    shutil.copytree(environment.runs, tmp_path, dirs_exist_ok=True)
    changes = [{"dirty": False}, {"dirty": False}, {"dirty": True}, {"dirty": False}]
    kept = [
        record | {"environment": record["environment"] | change}
        for record, change in zip(records[:4], changes, strict=True)
    ]
    for number, record in enumerate(kept):
        save_record(record | ({"status": "stopped"} if number == 1 else {}), tmp_path / "records")
    monkeypatch.setattr(published, "PUBLISHED", tmp_path / "published")
    for _ in range(2):  # again changes nothing
        published.publish([(config, data, None) for config in grid[:3]], there)
        found, complaints = load_records(tmp_path / "published")
        assert complaints == []
        assert found == [{"schema_version": 1} | kept[0] | {"published": True}]


def test_published_records_are_small_whole_and_made_by_committed_code():
    paths = sorted(published.PUBLISHED.glob("*.json"))
    records, complaints = load_records(published.PUBLISHED)
    assert (len(records), complaints) == (len(paths), [])
    for path, record in zip(paths, records, strict=True):
        assert path.stat().st_size < 150_000
        assert record["published"] is True
        assert record["environment"]["dirty"] is False
        assert len(record["environment"]["commit"]) == 40
    frame = comparable(load_frame(published.PUBLISHED))
    assert len(frame.query("seed == 0")) == 12  # base and the paper's grid


def test_published_scores_are_those_of_the_published_answers():
    rows = [row for part in load_qa("bundled").values() for row in part]
    rows += list(load_qa("bundled", test_source="bundled-more")["test"])
    texts = {row["question"]: row["text"] for row in rows}
    for record in load_records(published.PUBLISHED)[0]:
        answers, references = zip(*((p["answer"], p["references"]) for p in record["predictions"]), strict=True)
        assert score(answers, references) == record["metrics"], record["run_id"]
        for p in record["predictions"]:
            assert failure_kind(p["answer"], p["references"], texts[p["question"]]) == p["failure"], record["run_id"]


def test_readmes_table_and_figures_are_those_of_the_published_records(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    published.write_results(tmp_path / "README.md", tmp_path)
    stale = "is stale: make results writes it anew"
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), f"README.md {stale}"
    for path in tmp_path.glob("*.png"):
        assert compare_images(ROOT / "figures" / path.name, path, tol=2) is None, f"{path.name} {stale}"
    assert {path.name for path in tmp_path.glob("*.svg")} == {path.name for path in (ROOT / "figures").glob("*.svg")}


def test_a_configuration_without_a_record_is_said_not_to_be_run():
    frame = comparable(load_frame(published.PUBLISHED))
    lines = published.results(frame[frame["rank"].isna()]).splitlines()
    assert len(lines) == 2 + 12
    assert lines[2].startswith("| base | 0.100 | 0.299 | **")
    assert lines[4] == "| r 2 q,v 1e-4 | 0.410 / 0.345 | 0.553 / 0.533 | not run |"


@pytest.mark.long
def test_the_published_runs_go_on_where_they_stopped(tmp_path, environment, monkeypatch, capsys):
    there = dataclasses.replace(environment, runs=tmp_path)
    rows = {"more": load_qa("bundled", 12, 6, test_source="bundled-more"), "own": load_qa("bundled", 12, 6)}
    monkeypatch.setattr(published, "detect", lambda profile: there)
    monkeypatch.setattr(published, "load_qa", lambda name, test_source="": rows["more" if test_source else "own"])
    monkeypatch.setattr(published, "MODEL", "tiny-llama")
    monkeypatch.setattr(published, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(published, "write_results", lambda: None)
    monkeypatch.setattr(published, "git", lambda *arguments: "")
    monkeypatch.setattr("utils.experiments.record.git", lambda *arguments: "")  # nothing changed
    monkeypatch.setattr(published.sys, "argv", ["published"])
    published.main()
    assert capsys.readouterr().out.startswith("61 of 61 pieces of work are left: about ")
    records = sorted((tmp_path / "published").iterdir())
    assert len(records) == 61
    gone = next(path for path in records if path.name.startswith("r4-"))
    before = json.loads(gone.read_text())
    gone.unlink()
    (tmp_path / "records" / gone.name).unlink()
    published.main()
    assert capsys.readouterr().out.startswith("1 of 61 pieces of work are left")
    assert_same(json.loads(gone.read_text()), before)
    shutil.rmtree(tmp_path / "records")  # another machine: it has what was published, and no adapter
    shutil.rmtree(tmp_path / "adapters")
    gone = next(path for path in records if '"draw": 3' in path.read_text())
    before = json.loads(gone.read_text())
    gone.unlink()
    published.main()
    assert capsys.readouterr().out.startswith("1 of 61 pieces of work are left")
    assert_same(json.loads(gone.read_text()), before)
    assert len(list((tmp_path / "adapters").iterdir())) == 2  # one trained anew, and the one that answered again
    greedy = RunConfig.from_dict(before["config"] | {"temperature": 0.0, "top_p": 1.0, "draw": 0})
    first = next(
        path for path in records if path.name.startswith(greedy.run_id) and "bundled-more" not in path.read_text()
    )
    first.write_text(first.read_text().replace('"generation": "', '"generation": "another machine\'s '))
    gone.unlink()
    shutil.rmtree(tmp_path / "records")
    shutil.rmtree(tmp_path / "adapters")
    for _ in range(2):  # trained anew it answers otherwise, and does so still when asked again
        with pytest.raises(
            SystemExit, match=f"{greedy.run_id}, trained anew, does not answer as the published adapter"
        ):
            published.main()
        assert not gone.exists()


def assert_same(one, other):
    for part in ("predictions", "training", "metrics"):
        assert one[part] == other[part]
