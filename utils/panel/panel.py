"""The hyperparameter panel: change a run's settings by hand, train, stop, and see the runs before."""

import html
import time
from collections.abc import Callable
from functools import partial

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from utils.environment import Environment
from utils.panel import curve
from utils.panel.form import SettingsForm
from utils.panel.jobs import TrainingJob, earlier_runs
from utils.panel.settings import Settings, describe, facts, settings_of
from utils.panel.view import MUTED, WRONG, View, button, said
from utils.records import duration
from utils.report.style import styled
from utils.stats import wilson

CURVES = 4  # earlier runs drawn behind the current one; more cannot be told apart
SHOWN = 30  # runs with a line of their own; older ones stay in the records


class HyperparameterPanel(View):
    """Change settings and see at once what follows; train with a live curve, stop, and load earlier runs.

    It only shows: settings are decided in panel.settings, runs are done by jobs.TrainingJob through experiments.run,
    and everything it tells of a run comes from its record.

    Example: HyperparameterPanel(Settings(config, "bundled", 78, 39), environment)
    """

    def __init__(self, settings: Settings, environment: Environment):
        """Show the settings; no model is loaded before Train."""
        super().__init__()
        self.environment = environment
        self.job: TrainingJob | None = None
        self.records: list[dict] = []
        self.on_record: list[Callable[[], None]] = []  # called when a run has ended
        self._drawn = None
        self.facts, self.status, self.curve = (ipywidgets.HTML() for _ in range(3))
        self.train = button("Train", "Train an adapter with these settings", self._train, "primary")
        tip = "End the run after its current step; what was learnt is kept"
        self.stop = button("Stop", tip, lambda: self.job.stopping.set(), "warning")
        self.stop.disabled = True
        self.bar = ipywidgets.IntProgress(description="steps", layout={"width": "22em", "display": "none"})
        self.form = SettingsForm(settings, environment.profile, self._show_facts)
        self.runs = ipywidgets.VBox(layout={"max_height": "24em", "overflow": "auto"})
        buttons = ipywidgets.Box([self.train, self.stop, self.bar], layout={"flex_flow": "row wrap"})
        parts = [self.form.box, self.facts, buttons, self.status, self.curve, ipywidgets.HTML("<b>Runs</b>"), self.runs]
        self.box = ipywidgets.VBox(parts)
        self.reload()
        self._show_facts()

    def reload(self) -> None:
        """Read the records again: a line for each run, with a button that loads its settings, and the curves."""
        self.records, complaints = earlier_runs(self.environment)
        lines = []
        for number, row in enumerate(self.history().itertuples(index=False)):
            scores = f"EM {row[3]:.3f} ({row[4]}), F1 {row[5]:.3f}, rows {row[2]}, {row[6]}, {row[7]}"
            told = f"{html.escape(f'{row[1]}, {row[0]}')}<br><b>{html.escape(scores)}</b>"
            line = ipywidgets.HTML(f'<div style="line-height: 1.3">{told}</div>', layout={"flex": "1 1 30em"})
            tip, act = "Show this run's settings in the form", partial(self._load, self.records[number])
            load = button(f"Load {number + 1}", tip, act, width="6em")
            lines.append(ipywidgets.Box([line, load], layout={"flex_flow": "row wrap", "flex": "0 0 auto"}))
        notes = [*complaints] if lines else ["No runs yet: press Train.", *complaints]
        self.runs.children = [*(ipywidgets.HTML(said(note)) for note in notes), *lines]
        self._draw()

    def history(self) -> pd.DataFrame:
        """Return a line for each run: settings, rows, exact match with its 95 % interval, F1, time, and its status.

        Example: panel.history().loc[0, "status"] -> "finished"
        """
        lines = []
        for record in self.records[:SHOWN]:
            metrics, data, timing = record["metrics"], record["data"], record["timing"]
            low, high = wilson(metrics["em_strict"], metrics["n"])
            lines.append({
                "run": describe(record["config"]), "model": record["config"]["model"],
                "rows": f"{data['train_rows']} / {data['test_rows']}", "EM": metrics["em_strict"],
                "EM 95 %": f"{low:.2f}–{high:.2f}", "F1": metrics["f1_strict"],
                "time": duration(timing["train_seconds"] + timing["answer_seconds"]), "status": record["status"],
            })  # fmt: skip
        return pd.DataFrame(lines, columns=("run", "model", "rows", "EM", "EM 95 %", "F1", "time", "status"))

    def figure(self) -> Figure:
        """Return the loss curves that the panel shows, for the saved notebook.

        Example: panel.figure().savefig("curves.png")
        """
        own = self.job.record if self.job else None
        earlier = [r for r in self.records if own is None or r["run_id"] != own["run_id"]][:CURVES]
        if self.job is None:
            return curve.loss_figure([], 0, "Earlier runs" if earlier else "No runs yet", earlier)
        steps = self.job.steps if self.job.is_alive() else 0
        title = describe(self.job.settings.config.as_dict())
        return curve.loss_figure(list(self.job.losses), steps, title, earlier)

    def static(self) -> str:
        """Return curves and history as HTML."""
        return curve.figure_html(self.figure(), "Training loss by step") + styled(self.history()).to_html()

    def refresh(self) -> None:
        """Show where the run stands, and after it what was recorded."""
        job = self.job
        self.bar.layout.display = None if job.is_alive() else "none"
        self.bar.max, self.bar.value = max(1, job.steps), job.step
        self.train.disabled = job.is_alive() or self.form.settings is None
        self.stop.disabled = not job.is_alive() or job.stopping.is_set() or job.phase == "answering"
        self.status.value = said(_sentence(job), WRONG if job.phase == "failed" else MUTED)
        if job.is_alive():
            self._draw()
        else:
            self.reload()
            for act in self.on_record:
                act()

    def _train(self) -> None:
        if self.form.settings is None or (self.job and self.job.is_alive()):
            return
        self.job = TrainingJob(self.form.settings, self.environment)
        self.follow(self.job)

    def _load(self, record: dict) -> None:
        try:
            settings, problem = settings_of(record, self.form.before)
        except ValueError as error:  # a record of other code, with settings that this code does not know
            self.status.value = said(str(error), WRONG)
            return
        self.form.load(settings)
        self.status.value = said(problem or f"Settings of {record['run_id']} loaded. Change what you like, and Train.")

    def _draw(self) -> None:
        job = self.job
        state = job and (job.settings, job.is_alive(), len(job.losses)), [r["run_id"] for r in self.records]
        if state != self._drawn:  # a figure costs a tenth of a second
            self._drawn = state
            last = f" Last: {job.losses[-1][1]:.2f} at step {job.losses[-1][0]}." if job and job.losses else ""
            self.curve.value = curve.figure_html(self.figure(), f"Training loss by step.{last}")

    def _show_facts(self) -> None:
        self.train.disabled = self.form.settings is None or bool(self.job and self.job.is_alive())
        if self.form.settings is None:
            self.facts.value = said("Train waits until the fields marked in red are mended.", WRONG)
            return
        told = facts(self.form.settings.config).items()
        lines = [f"<span style='color: {MUTED}'>{html.escape(name)}:</span> {html.escape(fact)}" for name, fact in told]
        self.facts.value = f"<div role='status' style='margin: 8px 0; line-height: 1.4'>{'<br>'.join(lines)}</div>"


def _sentence(job: TrainingJob) -> str:
    if job.phase == "training":
        pace = job.step / max(time.perf_counter() - job.began, 1e-9)
        loss = f", loss {job.losses[-1][1]:.2f}" if job.losses else ""
        left = f", {duration((job.steps - job.step) / pace)} left" if job.step else ""
        rows = f"{pace * job.settings.config.batch_size:.1f} rows/s"
        return "Stopping. " * job.stopping.is_set() + f"Step {job.step} of {job.steps}{loss}, {rows}{left}."
    if job.record and not job.is_alive():
        metrics, run = job.record["metrics"], describe(job.record["config"])
        ended = "Finished" if job.phase == "finished" else f"Stopped after step {job.step} of {job.steps} and kept"
        return f"{ended}: EM {metrics['em_strict']:.3f}, F1 {metrics['f1_strict']:.3f} on {metrics['n']} questions ({run})."
    phases = {"loading": "Loading the base model and the rows.", "answering": "Trained. Answering the test questions."}
    return job.message or phases.get(job.phase, "Starting: waiting for the base model.")
