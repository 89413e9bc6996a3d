"""The hyperparameter panel: change a run's settings by hand, train, stop, and compare with the runs before."""

import html
from collections.abc import Callable

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from utils import panel_costs, panel_runs, panel_views
from utils.config import RunConfig
from utils.environment import Environment
from utils.live import BaseModel, TrainingJob
from utils.panel_state import Settings, settings_of, with_quantization
from utils.playground import Playground
from utils.run_history import RunHistory
from utils.settings_form import SettingsForm
from utils.sweep_designer import SweepDesigner
from utils.views import MUTED, WRONG, View, button, said

__all__ = ["HyperparameterPanel", "Playground", "SweepDesigner"]

CURVES = 4  # earlier runs drawn behind the current one; more cannot be told apart


class HyperparameterPanel(View):
    """Change settings and see at once what follows; train with a live curve, stop, load and compare earlier runs.

    It only shows: settings are decided in panel_state, runs are done by live.TrainingJob through experiments.run, and
    everything it tells of a run comes from its record. `base` is the base model shared with the notebook's playground.

    Example: HyperparameterPanel(Settings(config, "bundled", 78, 39), environment)
    """

    def __init__(self, settings: Settings, environment: Environment, base: BaseModel | None = None):
        """Show the settings; no model is loaded before Train."""
        super().__init__()
        self.environment, self.base = environment, base or BaseModel()
        self.job: TrainingJob | None = None
        self.records: list[dict] = []
        self.on_record: list[Callable[[], None]] = []  # called when a run was recorded
        self._drawn = None
        self.facts, self.status, self.curve = (ipywidgets.HTML() for _ in range(3))
        self.train = button("Train", "Train an adapter with these settings", self._train, "primary")
        self.stop = button("Stop", "End the run after its current step; what was learnt is kept", self._stop, "warning")
        self.stop.disabled = True
        self.bar = ipywidgets.IntProgress(description="steps", layout={"width": "22em", "display": "none"})
        self.form = SettingsForm(settings, environment.profile, self._show_facts)
        self.runs = RunHistory(self._load)
        buttons = ipywidgets.Box([self.train, self.stop, self.bar], layout={"flex_flow": "row wrap"})
        parts = [self.form.box, self.facts, buttons, self.status, self.curve, self.runs.box]
        self.box = ipywidgets.VBox(parts)
        self.reload()

    def reload(self) -> None:
        """Read the records again: the history, the curves, and what a run takes here."""
        folders = [with_quantization(self.environment, q).runs / "records" for q in ("none", "nf4")]
        self.records, complaints = panel_runs.load_history(folders)
        self.runs.show(self.records, complaints)
        self._draw()
        self._show_facts()

    def history(self) -> pd.DataFrame:
        """Return the table of runs, for the saved notebook.

        Example: panel.history().loc[0, "status"] -> "finished"
        """
        return panel_runs.history(self.records)

    def figure(self) -> Figure:
        """Return the loss curves that the panel shows, for the saved notebook.

        Example: panel.figure().savefig("curves.png")
        """
        own = self.job.record if self.job else None
        earlier = [r for r in self.records if own is None or r["run_id"] != own["run_id"]][:CURVES]
        if self.job is None:
            return panel_views.loss_figure([], 0, "Earlier runs" if earlier else "No runs yet", earlier)
        title = panel_runs.describe(self.job.settings.config)
        return panel_views.loss_figure(list(self.job.losses), self.job.steps if self.job.running else 0, title, earlier)

    def static(self) -> str:
        """Return curves and history as HTML."""
        curves = panel_views.figure_html(self.figure(), "Training loss by step")
        return curves + panel_views.table_html(self.history(), precision=3)

    def refresh(self) -> None:
        """Show where the run stands; called twice a second while it goes on, and once after."""
        job = self.job
        self.bar.layout.display = None if job.running else "none"
        self.bar.max, self.bar.value = max(1, job.steps), job.step
        self.train.disabled = job.running or self.form.settings is None
        self.stop.disabled = not job.running or job.stopping.is_set() or job.phase == "answering"
        self.status.value = said(_sentence(job), WRONG if job.phase == "failed" else MUTED)
        if job.running:
            self._draw()
        else:
            self.reload()
            for act in self.on_record:
                act()

    def _train(self) -> None:
        if self.form.settings is None or (self.job and self.job.running):
            return
        self.job = TrainingJob(self.form.settings, self.environment, self.base).start()
        self.refresh()
        self.follow(self.job, self.refresh)

    def _stop(self) -> None:
        self.job.stop()
        self.refresh()

    def _load(self, record: dict) -> None:
        settings, problem = settings_of(record, self.form.before)
        self.form.load(settings)
        self.status.value = said(
            problem or f"Settings of {record['run_id']} loaded. Change what you like, and press Train."
        )

    def _draw(self) -> None:
        state = (
            self.job and (self.job.settings, self.job.running, len(self.job.losses)),
            [r["run_id"] for r in self.records],
        )
        if state != self._drawn:  # a figure costs a tenth of a second
            self._drawn = state
            last = (
                f" Last: {self.job.losses[-1][1]:.2f} at step {self.job.losses[-1][0]}."
                if self.job and self.job.losses
                else ""
            )
            self.curve.value = panel_views.figure_html(self.figure(), f"Training loss by step.{last}")

    def _show_facts(self) -> None:
        settings, running = self.form.settings, self.job is not None and self.job.running
        self.train.disabled = settings is None or running
        if settings is None:
            self.facts.value = said("Train waits until the fields marked in red are mended.", WRONG)
            return
        told = panel_costs.facts(settings, with_quantization(self.environment, settings.quantization), self.records)
        # JupyterLab gives terms a width and a weight of its own.
        term = f"color: {MUTED}; width: auto; font-weight: normal; padding: 0; margin: 0"
        cells = "".join(
            f"<dt style='{term}'>{html.escape(n)}</dt><dd style='margin: 0; width: auto; padding: 0'>{html.escape(v)}</dd>"
            for n, v in told.items()
        )
        columns = "display: grid; align-items: start; grid-template-columns: max-content 1fr; gap: 2px 1em; margin: 8px 0; line-height: 1.4"
        self.facts.value = f'<dl role="status" style="{columns}">{cells}</dl>'


def _sentence(job: TrainingJob) -> str:
    if job.phase == "training":
        rows, left = job.pace()
        ending = "Stopping after this step. " if job.stopping.is_set() else ""
        loss = f", loss {job.losses[-1][1]:.2f}" if job.losses else ""
        return f"{ending}Step {job.step} of {job.steps}{loss}, {rows:.1f} rows/s, {panel_costs.minutes_text(left / 60)} left."
    if job.record and not job.running:
        metrics, place = job.record["metrics"], RunConfig.from_dict(job.record["config"])
        ended = (
            "Finished"
            if job.phase == "finished"
            else f"Stopped after step {job.step} of {job.steps}, evaluated and kept"
        )
        return f"{ended}: EM {metrics['em_strict']:.3f}, F1 {metrics['f1_strict']:.3f} on {metrics['n']} questions ({panel_runs.describe(place)})."
    said_of = {
        "waiting": "Starting.",
        "loading": "Loading the base model and the rows.",
        "answering": "Trained. Answering the test questions.",
    }
    return job.message or said_of.get(job.phase, job.phase)
