"""The committed notebooks: executed, clean, sharing one setup cell, and running to their end in fresh kernels."""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean, variance

import nbformat
import pytest
from matplotlib.testing.compare import compare_images
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import utils.__main__ as series
from utils.data import load_qa
from utils.environment import ROOT, in_colab
from utils.paper import RANKS
from utils.records import run_name
from utils.report import comparable, load_frame, pooled, rank_effect

OTHERS = ("loss on text, not", "sampled, temperature", "tested on")  # rank_effect's names for them begin so
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [
    "00_dataset",
    "01_tokenizer_checks",
    "02_fine_tuning",
    "03_rank_sweep",
    "04_target_module_sweep",
    "05_result_plots",
]


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_series_is_complete():
    assert [path.stem for path in PATHS] == NAMES


def test_all_notebooks_share_the_setup_cell_and_it_is_folded():
    assert len({code(path)[0].source for path in PATHS}) == 1
    assert all(code(path)[0].metadata.get("cellView") == "form" for path in PATHS)


def test_only_the_notebooks_that_train_ask_colab_for_a_gpu():
    for path in PATHS:
        metadata = nbformat.read(path, as_version=4).metadata
        trains = path.stem[:2] in ("02", "03", "04")
        assert metadata.get("accelerator") == ("GPU" if trains else None), path.stem
        assert metadata.get("colab", {}).get("gpuType") == ("T4" if trains else None), path.stem


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_a_notebook_is_valid_executed_and_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert notebook.cells[0].source.startswith("[![Open in Colab]")
    counts = [cell.execution_count for cell in code(path)]
    assert counts == list(range(1, len(counts) + 1)), "not executed top to bottom in a fresh kernel"
    assert any(cell.outputs for cell in code(path))
    text = path.read_text(encoding="utf-8")
    assert '"output_type": "error"' not in text
    assert not re.search(r"/(root|home|work|tmp)/", text), "an output names a path of one machine"
    assert "Warning" not in text


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_code_cells_stay_small(path):
    for cell in code(path):
        assert len(cell.source.splitlines()) <= 30


def signed(value):
    return f"{value:+.3f}".replace("0.", ".", 1)


def test_the_scores_told_in_headers_and_readme_are_those_of_the_published_records():
    runs = {profile: load_frame(ROOT / "figures" / "reference" / profile) for profile in ("demo", "full")}
    first = {profile: pooled(comparable(frame).query("seed == 0")) for profile, frame in runs.items()}
    assert [len(pool) for pool in first.values()] == [12, 12]

    def told(pool, metric, *names):
        scores = pool.set_axis([run_name(run) for run in pool.to_dict("records")])[metric]
        return [f"{scores[name]:.3f}".removeprefix("0") for name in names]

    ranks, sets = [f"r {rank} q,v 1e-4" for rank in RANKS], ("q", "q,v", "q,k,v,o")
    shown, known = (told(first["demo"], metric, "base", ranks[1]) for metric in ("em_strict", "contains"))
    em = told(first["full"], "em_strict", "base", *ranks)
    tables = [" / ".join(told(first["full"], "em_strict", *(f"r 2 {m} {r}" for m in sets))) for r in ("3e-4", "1e-4")]
    effects = rank_effect(runs["full"]).set_index("condition")
    em_by, f1_by = (effects[effects["metric"] == metric] for metric in ("exact match", "token F1"))
    main = em_by.loc["as in Table 3"]
    change = [signed(some.loc["as in Table 3", "difference"]) for some in (em_by, f1_by)]
    expected = {
        "02": (f"from {shown[0]} to {shown[1]}", f"from {known[0]} to {known[1]}"),
        "03": (f"is {', '.join(em[1:])}; base model {em[0]}",),  # the committed 03 and 04 show seed 0
        "04": (f"{tables[0]} at 3e-4 and {tables[1]} at 1e-4",),
        "05": (f"{change[0]} exact match and {change[1]} F1",),
    }
    for path in PATHS:
        header = nbformat.read(path, as_version=4).cells[0].source
        assert [text for text in expected.get(path.stem[:2], ()) if text not in header] == [], path.stem
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    every = pooled(comparable(runs["full"]))  # README and 05 show the means over the seeds
    base, *means = told(every, "em_strict", "base", *ranks)
    assert f"from {base} for the base model to between {min(means)} and {max(means)}" in readme
    assert f"in {told(every, 'contains', 'base')[0]} of the base model's generations" in readme
    assert f"{change[0]} here ({signed(main['low'])} to {signed(main['high'])}" in readme
    others = [signed(em_by.filter(like=f"{kind} ", axis=0)["difference"].item()) for kind in OTHERS]
    assert "the whole text ({}), answers by sampling ({}), or on 300 further questions ({})".format(*others) in readme
    adapters = every[every["rank"].notna()]
    assert set(adapters["seeds"]) == {(0, 1, 2)}
    header = nbformat.read(PATHS[5], as_version=4).cells[0].source
    assert all("three seeds" in text for text in (readme, header))
    by_seed = [[record["metrics"]["em_strict"] for record in records] for records in adapters["records"]]
    scatter = mean(variance(scores) for scores in by_seed) ** 0.5
    assert f"by {signed(scatter)[1:]} from seed to seed" in readme


def test_committed_notebooks_run_in_their_profiles_and_on_the_published_records(tmp_path, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "DTYPE", "RUNS"):
        monkeypatch.setenv(name, "")  # set by the call, and taken back after the test
    published, asked = tmp_path / "figures" / "reference" / "full", []
    shutil.copytree(ROOT / "figures" / "reference", tmp_path / "figures" / "reference")
    monkeypatch.setattr(series, "ROOT", tmp_path)

    def execute(paths, target, profile):
        asked.append(([path.stem for path in paths], profile, os.environ["DTYPE"]))
        return True

    monkeypatch.setattr(series, "run_notebooks", execute)
    (tmp_path / "runs" / "published" / "full" / "records").mkdir(parents=True)
    (tmp_path / "runs" / "published" / "full" / "records" / "older.json").write_text("{}")
    assert series.run_committed(tmp_path)
    assert asked == [(NAMES[:3], "demo", "float32"), (NAMES[3:], "full", "bfloat16")]
    found = sorted(path.name for path in Path(os.environ["RUNS"], "full", "records").iterdir())
    assert found == sorted(path.name for path in published.iterdir())


@pytest.mark.long
@pytest.mark.skipif(in_colab(), reason="to the letter only under the versions of constraints.txt")
def test_03_to_05_come_out_of_the_published_records_once_more(tmp_path, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "DTYPE", "RUNS", "PROFILE"):
        monkeypatch.setenv(name, "")
    shutil.copytree(ROOT / "figures" / "reference", tmp_path / "figures" / "reference")
    monkeypatch.setattr(series, "ROOT", tmp_path)
    execute = series.run_notebooks
    monkeypatch.setattr(series, "run_notebooks", lambda *asked: asked[2] == "demo" or execute(*asked))
    assert series.run_committed(tmp_path)
    pictures = 0
    for path in PATHS[3:]:
        for committed, anew in zip(code(path), code(tmp_path / path.name), strict=True):
            if "utils.environment.report(" in committed.source:  # this machine's
                continue
            for one, other in zip(committed.outputs, anew.outputs, strict=True):
                shown, again = (
                    dict(output.get("data") or {"text": output.text.replace(f"{tmp_path}/", "")})
                    for output in (one, other)
                )
                images = [part.pop("image/png", "") for part in (shown, again)]
                for part in (shown, again):
                    if " at 0x" in part.get("text/plain", "") or any(images):
                        del part["text/plain"]  # an address in memory, a figure's size
                assert shown == again, f"{path.stem}: {committed.source}"
                for name, image in zip(("committed", "anew"), images, strict=True):
                    (tmp_path / f"{name}.png").write_bytes(base64.b64decode(image))
                if any(images):
                    pictures += 1
                    assert compare_images(tmp_path / "committed.png", tmp_path / "anew.png", tol=2) is None, path.stem
    assert pictures >= 6


@pytest.mark.long
def test_the_series_runs_in_the_smoke_profile_and_again_skips_what_is_finished(tmp_path):
    token = "hf_" + "planted" * 5  # a secret that must be found in nothing that a run prints or writes
    environment = os.environ | {"PROFILE": "smoke", "RUNS": str(tmp_path), "HF_TOKEN": token}

    def reproduce():
        command = [sys.executable, "-m", "utils", "reproduce"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert token not in done.stdout + done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.suffix for path in written} >= {".ipynb", ".json", ".md", ".safetensors", ".png"}
        assert not [path for path in written if token.encode() in path.read_bytes()]
        return done.stdout

    printed = reproduce()
    for number, name in enumerate(NAMES, 1):
        assert f"[{number}/6] {name} " in printed
    for table in ("Table 3", "Table 4", "Table 5", "Table 6"):
        assert f"\n{table}. " in printed
    assert "finished runs were found" not in printed
    folder = tmp_path / "smoke"
    records = {path: path.stat().st_mtime_ns for path in (folder / "records").glob("*.json")}
    assert len(records) == 12
    assert len(list((folder / "adapters").iterdir())) == 11
    assert [p.stem for p in sorted((folder / "notebooks").glob("*.ipynb"))] == NAMES
    shown = next((folder / "records").glob("r2-a8-qv-lr1e-4-*.json"))  # 02 trains this one each time, to show it
    answers = json.loads(shown.read_text())["predictions"]
    assert "12 finished runs were found and read" in reproduce()
    after = {path: path.stat().st_mtime_ns for path in (folder / "records").glob("*.json")}
    assert {path for path in after if after[path] != records.get(path)} == {shown}
    assert json.loads(shown.read_text())["predictions"] == answers


@pytest.mark.long
def test_a_notebook_that_fails_shows_its_traceback_and_no_secret(tmp_path, monkeypatch):
    token = "hf_" + "planted" * 5
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setenv("RUNS", str(tmp_path))
    notebook = nbformat.read(PATHS[2], as_version=4)
    for cell in notebook.cells:  # a gated model, and no network
        cell.source = cell.source.replace('MODEL = ""', 'MODEL = "llama-3.2-3b"')
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
    with pytest.raises(CellExecutionError, match="No network: the Hub, which holds meta-llama/Llama-3.2-3B") as caught:
        client.execute()
    assert token not in str(caught.value)
    assert token not in nbformat.writes(notebook)


def test_the_translated_questions_of_01_stand_in_the_bundled_rows():
    source = next(cell.source for cell in code(PATHS[1]) if cell.source.startswith("pairs = {"))
    pairs = ast.literal_eval(source.removeprefix("pairs = "))
    bundled = load_qa("bundled")
    assert len(pairs) == 10
    assert set(pairs) <= {row["question"] for split in bundled for row in bundled[split]}


@pytest.mark.long
def test_the_setup_cell_clones_the_repository_where_there_is_none(tmp_path):
    setup = code(PATHS[0])[0].source.replace("/content", str(tmp_path))
    repository = re.search(r'REPOSITORY, BRANCH = "(.+?)", "(.+?)"', setup)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "origin")], check=True)
    subprocess.run(
        ["git", "-C", str(tmp_path / "origin"), "switch", "--quiet", "--force-create", repository[2]], check=True
    )
    redirect = {  # git fetches this repository where the cell names GitHub
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path / 'origin'}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{repository[1]}",
    }
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    command = [sys.executable, "-c", f"{setup}\nprint(utils.__file__)"]
    for _ in range(2):  # running it again is harmless
        done = subprocess.run(command, cwd=elsewhere, env=os.environ | redirect, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(tmp_path / "romanian-qa-lora" / "utils" / "__init__.py")


def test_a_repository_that_cannot_be_fetched_ends_in_one_sentence(tmp_path):
    setup = code(PATHS[0])[0].source.replace("/content", str(tmp_path))
    repository = re.search(r'REPOSITORY, BRANCH = "(.+?)", "(.+?)"', setup)
    nowhere = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path / 'nothing'}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{repository[1]}",
    }
    done = subprocess.run(
        [sys.executable, "-c", setup], cwd=tmp_path, env=os.environ | nowhere, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert "make badges" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_packages_the_setup_cell_ends_in_one_sentence():
    hidden = "import sys\nsys.modules['peft'] = sys.modules['pandas'] = None\n"
    command = [sys.executable, "-c", hidden + code(PATHS[0])[0].source]
    done = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "ModuleNotFoundError: Not installed for this Python: peft, pandas. Run 'make lab'"
    )


@pytest.mark.long
def test_05_without_any_records_shows_the_published_ones_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setenv("RUNS", str(tmp_path))
    notebook = nbformat.read(PATHS[5], as_version=4)
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    count = len(comparable(load_frame(ROOT / "figures" / "reference" / "full")))
    assert f"From figures/reference/full, published with this repository, not yours. Runs: {count}." in str(notebook)
    assert list((tmp_path / "smoke" / "figures").glob("*.png"))


@pytest.mark.long
def test_every_cell_of_02_run_twice_does_the_same_as_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setenv("RUNS", str(tmp_path))
    notebook = nbformat.read(PATHS[2], as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # A list is filled and a model is trained in these cells: what they did the second time shows in what they print.
    # After the last cell the training cell is run once more, and what follows it: by then the panel has had the base.
    trains = next(i for i, cell in enumerate(cells) if "result = fine_tune(" in cell.source)
    order = [cell for cell in cells for _ in range(2)] + cells[trains:]
    notebook.cells = [nbformat.v4.new_code_cell(cell.source) for cell in order]
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    printed = ["".join(o.get("text", "") for o in cell.outputs if o.get("name") == "stdout") for cell in notebook.cells]
    twice, later = printed[: 2 * len(cells)], printed[2 * len(cells) :]
    pairs = [*zip(twice[::2], twice[1::2], strict=True), *zip(twice[1::2][trains:], later, strict=True)]
    for first, second in pairs:
        timeless = [re.sub(r"[\d.]+ (s|rows/s)", "", text) for text in (first, second)]
        assert timeless[0] == timeless[1]
    assert len(list((tmp_path / "smoke" / "records").glob("*.json"))) == 2  # the base model's and the run's
    record = json.loads(next((tmp_path / "smoke" / "records").glob("r2-*.json")).read_text())
    assert [entry["step"] for entry in record["training"]] == list(range(1, 10))  # trained once, three epochs of three


@pytest.mark.long
def test_the_series_runs_in_four_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setenv("RUNS", str(tmp_path))
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    for path in PATHS:
        notebook = nbformat.read(path, as_version=4)
        settings = next(cell for cell in notebook.cells if 'QUANTIZATION = "none"' in cell.source)
        settings.source = settings.source.replace('QUANTIZATION = "none"', 'QUANTIZATION = "nf4"')
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    records = [json.loads(path.read_text()) for path in (tmp_path / "smoke" / "records").glob("*.json")]
    assert len(records) == 12
    assert {(r["status"], r["environment"]["quantization"]) for r in records} == {("finished", "nf4")}
