"""The panels, built and driven as a person would: in this process, and in a kernel that gets a browser's messages."""

import asyncio
import dataclasses
import re
import time
import weakref

import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient

from utils.config import RunConfig
from utils.environment import ROOT
from utils.models.base import held_base, release_base
from utils.panel import HyperparameterPanel, Playground, Settings
from utils.paper import TABLE_1
from utils.records import adapter_folder, identity_of, load_records

SETTINGS = Settings(RunConfig("tiny-llama", epochs=1, max_new_tokens=4), "bundled", 12, 6)


@pytest.fixture
def here(environment, tmp_path):
    return dataclasses.replace(environment, runs=tmp_path / "smoke")


@pytest.fixture
def panel(here):
    return HyperparameterPanel(SETTINGS, here)


def finish(view):
    view.job.join(120)
    view.refresh()


def widgets_of(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets_of(child)


def press(view, label):
    next(w for w in widgets_of(view.box) if isinstance(w, ipywidgets.Button) and w.description == label).click()


def trained(panel, **values):
    for name, value in values.items():
        panel.form.controls[name].value = value
    press(panel, "Train")
    finish(panel)
    return panel.job.record


def test_moving_rank_changes_the_facts_and_alpha_until_it_is_unlinked(panel):
    assert "573,440 of 3,213,323,264 (0.0178 %)" in panel.facts.value
    assert "Table 3: EM 0.410, F1 0.553" in panel.facts.value
    panel.form.controls["rank"].value = 4
    assert "1,146,880 of 3,213,896,704 (0.0357 %)" in panel.facts.value  # twice 573,440
    assert (panel.form.controls["alpha"].value, panel.form.controls["alpha"].disabled) == (16, True)
    panel.form.linked.value = False
    panel.form.controls["rank"].value = 8
    assert panel.form.settings.config.alpha == 16
    assert "none with these settings" in panel.facts.value


def test_a_wrong_value_is_explained_next_to_its_field_and_train_is_off(panel):
    panel.form.controls["epochs"].value = 0
    assert panel.train.disabled
    assert "is 0; expected a whole number, 1 or more" in panel.form.problems["epochs"].value
    panel.train.click()
    assert panel.job is None
    panel.form.controls["epochs"].value = 1
    assert not panel.train.disabled
    assert panel.form.problems["epochs"].value == ""
    panel.form.modules["q"].value = panel.form.modules["v"].value = False
    assert "expected letters out of" in panel.form.problems["target_modules"].value


def test_a_loaded_value_that_no_slider_offers_is_added(panel):
    other = dataclasses.replace(SETTINGS.config, rank=3, alpha=5, learning_rate=2.5e-4, shots=2)
    panel.form.load(dataclasses.replace(SETTINGS, config=other))
    assert panel.form.settings.config == other  # solved examples have no control and are kept
    assert not panel.form.linked.value
    assert [value for _, value in panel.form.controls["rank"].options] == [1, 2, 3, 4, 8, 16, 32, 64]


def test_a_run_is_trained_recorded_shown_and_loaded_again(panel, here):
    calls = []
    panel.on_record.append(lambda: calls.append(1))
    assert "No runs yet" in panel.runs.children[0].value
    first = trained(panel, rank=4)
    assert first["status"] == "finished"
    assert "Finished: EM" in panel.status.value
    assert calls
    assert 'alt="Training loss by step. Last: ' in panel.curve.value
    assert (adapter_folder(here.runs, first["run_id"], identity_of(first)) / "adapter_model.safetensors").exists()
    trained(panel, rank=8, learning_rate=3e-4)
    table = panel.history()
    assert list(table.columns) == ["run", "model", "rows", "EM", "EM 95 %", "F1", "time", "status"]
    assert table["run"].tolist() == ["r 8 q,v 3e-4, 1 epoch, seed 0", "r 4 q,v 1e-4, 1 epoch, seed 0"]
    assert set(table["rows"]) == {"12 / 6"}
    press(panel, "Load 2")  # the older one
    assert panel.form.settings.config == RunConfig.from_dict(first["config"])
    assert first["run_id"] in panel.status.value
    panel.records[1]["config"]["of later code"] = 1
    press(panel, "Load 2")
    assert "unknown settings" in panel.status.value


def test_stop_keeps_what_was_learnt_and_leaves_a_finished_run_alone(panel, here):
    trained(panel)
    panel.form.controls["epochs"].value = 400
    panel.train.click()
    while panel.job.step < 3:
        time.sleep(0.01)
    panel.stop.click()
    finish(panel)
    stopped = panel.job.record
    steps = len(stopped["training"])
    assert stopped["status"] == "stopped"
    assert 3 <= steps < 1200
    assert stopped["metrics"]["n"] == 6
    assert f"Stopped after step {steps} of 1200 and kept: EM" in panel.status.value
    assert panel.history()["status"].tolist() == ["stopped", "finished"]
    assert {record["status"] for record in load_records(here.runs / "records")[0]} == {"stopped", "finished"}


def test_a_run_that_fails_says_why_and_the_panel_goes_on(panel, monkeypatch):
    def fail(*_):
        raise FloatingPointError("The loss became <nan>")

    monkeypatch.setattr("utils.panel.jobs.run", fail)
    panel.train.click()
    finish(panel)
    assert "FloatingPointError: The loss became &lt;nan&gt;" in panel.status.value
    assert not panel.train.disabled


def test_the_playground_answers_with_base_and_adapters(panel, here):
    playground = Playground(SETTINGS, here)
    assert "only the base model answers" in playground.status.value
    panel.on_record.append(playground.reload)
    trained(panel)
    assert len(playground.adapters.value) == 1
    playground.ask.click()  # an example stands there
    finish(playground)
    assert playground.answers()["model"].tolist() == ["base model", "r 2 q,v 1e-4, 1 epoch, seed 0"]
    assert (playground.answers()["tokens_per_second"] > 0).all()
    assert "Context: " in playground.output.value
    assert all("lora" not in name for name, _ in held_base("tiny-llama", here)[0].named_parameters())
    playground.job.answers[0]["answer"] = playground.text.value[:5] + "."
    playground.refresh()
    assert f"<mark>{playground.text.value[:5]}</mark>" in playground.output.value
    assert "<table" in playground.static()


def test_the_playground_says_kindly_what_it_cannot_ask(here):
    playground = Playground(SETTINGS, here)
    assert set(playground.examples) == {topic for phase in TABLE_1 for topic in phase["topics"]}
    playground.example.value = "Mozart"
    mozart = playground.text.value
    playground.text.value = ""
    assert playground.example.value == "your own text"
    playground.ask.click()
    assert "Paste a Romanian text first" in playground.status.value
    playground.text.value, playground.question.value = mozart, " "
    playground.ask.click()
    assert "Write a question about the text." in playground.status.value
    assert playground.job is None
    playground.text.value, playground.question.value = mozart * 100, "Cine?"
    playground.ask.click()
    finish(playground)
    assert "Please shorten the text by about" in playground.status.value
    assert playground.answers().empty


SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def test_what_texts_hold_is_shown_and_never_run(panel, here, monkeypatch):
    record = trained(panel)
    for at in (record["config"], record["data"]):
        at |= {name: SCRIPT for name in ("model", "name") if name in at}
    record["run_id"] = record["status"] = SCRIPT
    panel.records = [record]
    playground = Playground(SETTINGS, here)
    playground.config = dataclasses.replace(SETTINGS.config, model="tiny-llama")
    playground.text.value, playground.question.value = f"Ana are mere. {SCRIPT}", f"Ce are {SCRIPT}?"
    playground.ask.click()
    finish(playground)
    playground.job.answers[0] |= {"model": SCRIPT, "answer": SCRIPT}
    playground.job.phase, playground.job.message = "failed", SCRIPT
    playground.refresh()
    panel._load(record | {"run_id": SCRIPT})
    panel.job.phase, panel.job.message, panel.job.record = "failed", SCRIPT, None
    panel.job.is_alive = lambda: True  # so that it does not read the records again
    panel.refresh()
    monkeypatch.setattr("utils.panel.panel.earlier_runs", lambda _: ([record], [SCRIPT]))
    panel.reload()
    shown = [w.value for view in (panel, playground) for w in widgets_of(view.box) if isinstance(w, ipywidgets.HTML)]
    shown += [view.static() for view in (panel, playground)]
    assert sum("&lt;script&gt;" in html for html in shown) >= 6
    assert not [html for html in shown if "<script" in html or "<img src=x" in html]


def test_a_text_of_a_hundred_thousand_characters_is_refused_with_a_sentence(here):
    playground = Playground(SETTINGS, here)
    for text in ("a" * 100_000, "Ana are mere. " * 7143, "\u0219" * 100_000, "\U0001f600" * 100_000):
        playground.text.value, playground.question.value = text, "Ce are Ana?"
        playground.ask.click()
        finish(playground)
        assert re.search(
            r"This is [\d,]+ tokens, the limit is 2,044\. Please shorten the text", playground.status.value
        )
        assert playground.answers().empty


def test_a_model_that_a_panel_let_go_is_gone(panel, here):
    trained(panel)
    playground = Playground(SETTINGS, here)
    playground.ask.click()
    finish(playground)
    held = weakref.ref(held_base("tiny-llama", here)[0])
    assert held() is not None
    release_base()
    assert held() is None  # though both panels are still there


def test_every_control_has_a_label_and_a_saved_notebook_has_a_fallback(panel, here, monkeypatch):
    shown = []
    monkeypatch.setattr("utils.panel.view.display", lambda content, raw: shown.append(content))
    for view in (panel, Playground(SETTINGS, here)):
        for widget in widgets_of(view.box):
            if not isinstance(widget, ipywidgets.Box | ipywidgets.HTML):
                assert widget.description, widget
        view._ipython_display_()
        assert shown[-1]["application/vnd.jupyter.widget-view+json"]["model_id"] == view.box.model_id
    assert "<img" in shown[0]["text/html"]
    assert shown[0]["text/plain"] == "HyperparameterPanel: run this notebook to use it."


@pytest.mark.long
def test_in_a_kernel_a_browsers_click_stops_a_run_while_it_trains(tmp_path):
    """No cell runs while the panel trains, so the kernel is free to take the click; its loop shows the progress."""
    cells = [
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.environ['RUNS'] = {str(tmp_path)!r}",
        "from utils.environment import detect\nfrom utils.config import RunConfig\n"
        "from utils.panel import HyperparameterPanel, Settings\nconfig = RunConfig('tiny-llama', epochs=400, max_new_tokens=4)\n"
        "panel = HyperparameterPanel(Settings(config, 'bundled', 12, 6), detect('smoke'))\npanel",
        "panel.train.model_id, panel.stop.model_id",
        "panel.job.step, panel.status.value",
        "(panel.job.record or {}).get('status'), panel.status.value, panel.job.step",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    quiet = {"kernel_name": "python3", "extra_arguments": ["--IPKernelApp.log_level=40"]}
    client = NotebookClient(notebook, timeout=300, **quiet)

    async def click(model_id):
        content = {"comm_id": model_id, "data": {"method": "custom", "content": {"event": "click"}}}
        client.kc.shell_channel.send(client.kc.session.msg("comm_msg", content))

    async def until(index, test):
        deadline = time.monotonic() + 240
        while True:
            await client.async_execute_cell(notebook.cells[index], index)
            found = eval(notebook.cells[index].outputs[0]["data"]["text/plain"])
            if test(found):
                return found
            assert time.monotonic() < deadline, found
            await asyncio.sleep(1)

    async def session():
        async with client.async_setup_kernel():
            for index in (0, 1):
                await client.async_execute_cell(notebook.cells[index], index)
            train, stop = await until(2, bool)
            await click(train)
            # The loop works between cells: what it shows has changed though no cell asked it to.
            await until(3, lambda found: found[0] > 2 and "rows/s" in found[1])
            await click(stop)
            return await until(4, lambda found: "Stopped after step" in found[1])

    status, said, step = asyncio.run(session())
    assert status == "stopped"
    assert f"Stopped after step {step} of 1200" in said
    shown = [output for output in notebook.cells[1].outputs if output.output_type == "display_data"]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]["data"]
