"""The panels, built and driven as a person would: in this process, and in a kernel that gets a browser's messages."""

import asyncio
import dataclasses
import time

import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient

from utils import live
from utils.config import RunConfig
from utils.environment import ROOT
from utils.live import BaseModel
from utils.panel import HyperparameterPanel, Playground, SweepDesigner
from utils.panel_state import Settings
from utils.records import adapter_folder, read_record

SETTINGS = Settings(RunConfig("tiny-llama", epochs=1, max_new_tokens=4), "bundled", 12, 6)


@pytest.fixture(scope="module")
def base():
    return BaseModel()


@pytest.fixture
def here(environment, tmp_path):
    return dataclasses.replace(environment, runs=tmp_path / "smoke")


@pytest.fixture
def panel(here, base):
    return HyperparameterPanel(SETTINGS, here, base)


def finish(view):
    view.job.wait(120)
    view.refresh()


def widgets_of(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets_of(child)


def trained(panel, **values):
    for name, value in values.items():
        panel.form.controls[name].value = value
    panel.train.click()
    finish(panel)
    return panel.job.record


def test_moving_rank_changes_the_counts_and_alpha_until_it_is_unlinked(panel):
    assert "896 of" in panel.facts.value
    assert "573,440 of 3,213,323,264 (0.0178 %)" in panel.facts.value
    assert "Table 3: EM 0.410" in panel.facts.value
    panel.form.controls["rank"].value = 4
    assert "1,792 of" in panel.facts.value
    assert panel.form.controls["alpha"].value == 16
    assert panel.form.controls["alpha"].disabled
    panel.form.linked.value = False
    panel.form.controls["rank"].value = 8
    assert panel.form.controls["alpha"].value == 16
    assert panel.form.settings.config.alpha == 16
    assert "none with these settings" in panel.facts.value


def test_a_wrong_value_is_explained_next_to_its_field_and_train_is_off(panel):
    panel.form.controls["epochs"].value = 0
    assert panel.train.disabled
    assert "expected a whole number, 1 or more" in panel.form.problems["epochs"].value
    assert panel.form.problems["epochs"].layout.display is None
    panel.train.click()
    assert panel.job is None
    panel.form.controls["epochs"].value = 1
    assert not panel.train.disabled
    assert panel.form.problems["epochs"].value == ""
    for box in panel.form.modules.values():
        box.value = False
    assert "at least one letter" in panel.form.problems["target_modules"].value


def test_train_records_a_run_and_shows_it(panel, here):
    calls = []
    panel.on_record.append(lambda: calls.append(1))
    record = trained(panel)
    assert record["status"] == "finished"
    assert "Finished: EM" in panel.status.value
    assert panel.stop.disabled
    assert calls
    assert panel.history()["status"].tolist() == ["finished"]
    assert 'alt="Training loss by step. Last: ' in panel.curve.value
    assert "about" in panel.facts.value.split("time</dt>")[1]  # the first run has told how fast this machine is
    assert "<img" in panel.static()
    folder = adapter_folder(here.runs, record["run_id"], record["data"]["fingerprint"])
    assert (folder / "adapter_model.safetensors").exists()


def test_stop_keeps_what_was_learnt_and_leaves_a_finished_run_alone(panel, here):
    finished = trained(panel)
    panel.form.controls["epochs"].value = 400
    panel.train.click()
    while panel.job.step < 3:
        time.sleep(0.01)
    panel.stop.click()
    finish(panel)
    stopped = panel.job.record
    assert stopped["status"] == "stopped"
    assert stopped["run_id"].endswith(f"-stopped-{len(stopped['training'])}")
    assert 3 <= len(stopped["training"]) < 1200
    assert stopped["metrics"]["n"] == 6
    assert f"Stopped after step {len(stopped['training'])} of 1200" in panel.status.value
    assert panel.history()["status"].tolist() == ["stopped", "finished"]
    kept = {read_record(path)["status"] for path in (here.runs / "records").glob("*.json")}
    assert kept == {"stopped", "finished"}
    assert live.finished_record(panel.job.settings.config, stopped["data"]["fingerprint"], here) is None
    assert live.finished_record(RunConfig.from_dict(finished["config"]), finished["data"]["fingerprint"], here)


def test_a_run_that_fails_says_why_and_the_panel_goes_on(panel, monkeypatch):
    monkeypatch.setattr(live, "run", lambda *a: (_ for _ in ()).throw(FloatingPointError("The loss became nan")))
    panel.train.click()
    finish(panel)
    assert "FloatingPointError: The loss became nan" in panel.status.value
    assert not panel.train.disabled


def test_history_loads_settings_and_compares_two_runs(panel):
    first = trained(panel, rank=4)
    trained(panel, rank=8, learning_rate=3e-4)
    panel.runs.loads[1].click()  # the older one
    assert panel.form.controls["rank"].value == 4
    assert panel.form.settings.config == RunConfig.from_dict(first["config"])
    assert first["run_id"] in panel.status.value
    panel.runs.ticks[0].value = panel.runs.ticks[1].value = True
    assert "Of 6 shared questions" in panel.runs.comparison.value
    assert panel.runs.comparison.value.count("<tr>") == 7
    trained(panel, rank=16)
    for tick in panel.runs.ticks:
        tick.value = True
    assert [tick.value for tick in panel.runs.ticks] == [False, True, True]  # the oldest tick gave way


def test_a_loaded_value_that_no_slider_offers_is_added(panel):
    other = dataclasses.replace(SETTINGS.config, rank=3, alpha=5, learning_rate=2.5e-4, dropout=0.1)
    panel.form.load(dataclasses.replace(SETTINGS, config=other))
    assert panel.form.settings.config == other  # dropout has no control and is kept
    assert not panel.form.linked.value
    ranks = [value for _, value in panel.form.controls["rank"].options]
    assert ranks == [1, 2, 3, 4, 8, 16, 32, 64]


def test_the_playground_answers_with_base_and_adapters(panel, here, base):
    playground = Playground(SETTINGS, here, base)
    assert "only the base model answers" in playground.status.value
    panel.on_record.append(playground.reload)
    trained(panel)
    assert len(playground.adapters.value) == 1
    assert playground.text.value
    assert playground.question.value  # an example stands there
    playground.ask.click()
    finish(playground)
    assert playground.answers()["model"].tolist()[0] == "base model"
    assert len(playground.answers()) == 2
    assert (playground.answers()["tokens_per_second"] > 0).all()
    assert "Context: " in playground.output.value
    assert "Question: " in playground.output.value
    assert all("lora" not in name for name, _ in base.get("tiny-llama", here)[0].named_parameters())
    assert "<table" in playground.static()


def test_the_playground_says_kindly_what_it_cannot_ask(here, base):
    playground = Playground(SETTINGS, here, base)
    playground.example.value = "Mozart"
    mozart = playground.text.value
    playground.text.value = ""
    assert playground.example.value == "your own text"
    playground.ask.click()
    assert "Paste a Romanian text first" in playground.status.value
    playground.text.value = mozart * 100
    playground.ask.click()
    assert "Please shorten the text" in playground.status.value
    assert playground.job is None


def test_a_sweep_fills_its_grid_stops_and_goes_on(here, base):
    designer = SweepDesigner(SETTINGS, here, ranks=(1, 2), base=base)
    assert "2 runs, 0 done, 2 to do: time unknown" in designer.status.value
    designer.seeds.value = "0, x"
    assert "expected whole numbers" in designer.status.value
    assert designer.start.disabled
    designer.seeds.value = "0"
    designer.start.click()
    finish(designer)
    assert "2 runs, 2 done, 0 to do" in designer.status.value
    assert designer.table().loc[0, "rank 1"].startswith("EM ")
    assert designer.start.disabled
    designer.ranks.value = (1, 2, 4)
    assert "3 runs, 2 done, 1 to do: about" in designer.status.value
    long = SweepDesigner(
        dataclasses.replace(SETTINGS, config=dataclasses.replace(SETTINGS.config, epochs=400)), here, base=base
    )
    long.start.click()
    while long.job.step < 2:
        time.sleep(0.01)
    long.refresh()
    assert "running, " in long.table().loc[0, "rank 2"]
    assert long.ranks.disabled
    long.stop.click()
    finish(long)
    assert "Stopped: Start goes on from here" in long.status.value
    assert long.table().loc[0, "rank 2"] == "to do"
    assert not long.start.disabled
    assert len(list((here.runs / "records").glob("*.json"))) == 2


def test_every_control_has_a_label_and_every_button_does_something(panel, here, base):
    trained(panel)
    for view in (panel, Playground(SETTINGS, here, base), SweepDesigner(SETTINGS, here, base=base)):
        for widget in widgets_of(view.box):
            if not isinstance(widget, ipywidgets.Box | ipywidgets.HTML):
                assert widget.description, widget
            if isinstance(widget, ipywidgets.Button):
                assert widget._click_handlers.callbacks


def test_a_view_shows_its_fallback_where_widgets_do_not_render(panel, monkeypatch):
    shown = []
    monkeypatch.setattr("utils.views.display", lambda content, raw: shown.append(content))
    panel._ipython_display_()
    assert shown[0]["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.box.model_id
    assert "<img" in shown[0]["text/html"]
    assert shown[0]["text/plain"] == "HyperparameterPanel: run this notebook to use it."


def test_the_panel_follows_its_run_on_the_event_loop(here, base):
    async def session():
        panel = HyperparameterPanel(SETTINGS, here, base)
        panel.form.controls["epochs"].value = 60
        seen = []
        panel.status.observe(lambda change: seen.append(change["new"]), "value")
        panel.train.click()
        await asyncio.wrap_future(panel._following)
        return seen

    seen = asyncio.run(session())
    assert any("rows/s" in text for text in seen)
    assert "Finished" in seen[-1]


def test_in_a_kernel_a_browsers_click_stops_a_run_while_it_trains(tmp_path):
    """No cell runs while the panel trains, so the kernel is free to take the click; its loop shows the progress."""
    cells = [
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.environ['RUNS'] = {str(tmp_path)!r}",
        "from utils.environment import detect\nfrom utils.config import RunConfig\nfrom utils.panel import HyperparameterPanel\n"
        "from utils.panel_state import Settings\nconfig = RunConfig('tiny-llama', epochs=400, max_new_tokens=4)\n"
        "panel = HyperparameterPanel(Settings(config, 'bundled', 12, 6), detect('smoke'))\npanel",
        "panel.train.model_id, panel.stop.model_id",
        "panel.job.step, panel.status.value",
        "(panel.job.record or {}).get('status'), panel.status.value, panel.job.step",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", extra_arguments=["--IPKernelApp.log_level=40"]
    )

    async def click(model_id):
        content = {"comm_id": model_id, "data": {"method": "custom", "content": {"event": "click"}}}
        client.kc.shell_channel.send(client.kc.session.msg("comm_msg", content))

    async def result(index):
        await client.async_execute_cell(notebook.cells[index], index)
        return eval(notebook.cells[index].outputs[0]["data"]["text/plain"])

    async def until(index, test):
        deadline = time.monotonic() + 240
        while not test(found := await result(index)):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(1)
        return found

    async def session():
        async with client.async_setup_kernel():
            for index in (0, 1):
                await client.async_execute_cell(notebook.cells[index], index)
            train, stop = await result(2)
            await click(train)
            # The loop works between cells: what it shows has changed though no cell asked it to.
            step, status = await until(3, lambda found: found[0] > 2 and "rows/s" in found[1])
            await click(stop)
            await asyncio.sleep(1)
            return step, status, await until(4, lambda found: "Stopped after step" in found[1])

    _, _, (status, said, step) = asyncio.run(session())
    assert status == "stopped"
    assert f"Stopped after step {step} of 1200" in said
    shown = [output for output in notebook.cells[1].outputs if output.output_type == "display_data"]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]["data"]
