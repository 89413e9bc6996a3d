"""The hyperparameter panel: change a run's settings by hand, train, stop, and see the runs before."""

import html
import time
from collections.abc import Callable, Sequence
from functools import partial

import ipywidgets
import pandas as pd
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure

from utils.environment import Environment
from utils.panel.form import SettingsForm
from utils.panel.jobs import TrainingJob, earlier_runs
from utils.panel.settings import Settings, describe, facts, settings_of
from utils.panel.view import MUTED, WRONG, View, button, said
from utils.records import duration
from utils.report.style import BLUE, GREY, SKY, set_labels, smooth, styled
from utils.stats import wilson

CURVES = 4  # earlier runs drawn behind the current one; more cannot be told apart
SHOWN = 30  # runs with a line of their own; older ones stay in the records


class HyperparameterPanel(View):
    """Change settings and see at once what follows; train with a live curve, stop, and load earlier runs.

    It only shows: settings are decided in panel.settings, runs are done by jobs.TrainingJob through experiments.run,
    and everything it tells of a run comes from its record. No model is loaded before Train; `on_record` holds what is
    called when a run has ended.
    Example: HyperparameterPanel(Settings(config, "bundled", 78, 39), environment)
    """

    def __init__(self, settings: Settings, environment: Environment):
        super().__init__()
        self.environment, self._drawn = environment, None
        self.records: list[dict] = []
        self.on_record: list[Callable[[], None]] = []
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
        for number, (record, run) in enumerate(zip(self.records, self.history().to_dict("records"), strict=False), 1):
            scores = f"EM {run['EM']:.3f} ({run['EM 95 %']}), F1 {run['F1']:.3f}"
            scores = html.escape(f"{scores}, rows {run['rows']}, {run['time']}, {run['status']}")
            told = f"{html.escape(run['model'])}, {html.escape(run['run'])}<br><b>{scores}</b>"
            line = ipywidgets.HTML(f'<div style="line-height: 1.3">{told}</div>', layout={"flex": "1 1 30em"})
            tip, act = "Show this run's settings in the form", partial(self._load, record)
            load = button(f"Load {number}", tip, act, width="6em")
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
            lines.append({
                "run": describe(record["config"]), "model": record["config"]["model"],
                "rows": f"{data['train_rows']} / {data['test_rows']}", "EM": metrics["em_strict"],
                "EM 95 %": "{:.2f}–{:.2f}".format(*wilson(metrics["em_strict"], metrics["n"])), "F1": metrics["f1_strict"],
                "time": duration(timing["train_seconds"] + timing["answer_seconds"]), "status": record["status"],
            })  # fmt: skip
        return pd.DataFrame(lines, columns=("run", "model", "rows", "EM", "EM 95 %", "F1", "time", "status"))

    def figure(self) -> Figure:
        """Return the loss curves that the panel shows, for the saved notebook.

        Example: panel.figure().savefig("curves.png")
        """
        own = self.job and self.job.record
        earlier = [r for r in self.records if r["training"] and (own is None or r["run_id"] != own["run_id"])][:CURVES]
        if self.job is None:
            return loss_figure([], 0, "Earlier runs" if earlier else "No runs yet", earlier)
        title = describe(self.job.settings.config.as_dict())
        return loss_figure(list(self.job.losses), self.job.steps if self.busy else 0, title, earlier)

    def static(self) -> str:
        """Return curves and history as HTML."""
        return figure_html(self.figure(), "Training loss by step") + styled(self.history()).to_html()

    def refresh(self) -> None:
        """Show where the run stands, and after it what was recorded."""
        job, busy = self.job, self.busy
        self.bar.layout.display = None if busy else "none"
        self.bar.max, self.bar.value = max(1, job.steps), job.step
        self.train.disabled = busy or self.form.settings is None
        self.stop.disabled = not busy or job.stopping.is_set() or job.phase == "answering"
        self.status.value = said(_sentence(job), WRONG if job.phase == "failed" else MUTED)
        if busy:
            self._draw()
        else:
            self.reload()
            for act in self.on_record:
                act()

    def _train(self) -> None:
        if self.form.settings is not None and not self.busy:
            self.follow(TrainingJob(self.form.settings, self.environment))

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
        state = job and (job.settings, self.busy, len(job.losses)), [r["run_id"] for r in self.records]
        if state != self._drawn:  # a figure costs a tenth of a second
            self._drawn = state
            last = f" Last: {job.losses[-1][1]:.2f} at step {job.losses[-1][0]}." if job and job.losses else ""
            self.curve.value = figure_html(self.figure(), f"Training loss by step.{last}")

    def _show_facts(self) -> None:
        self.train.disabled = self.form.settings is None or self.busy
        if self.form.settings is None:
            self.facts.value = said("Train waits until the fields marked in red are mended.", WRONG)
            return
        told = facts(self.form.settings.config).items()
        lines = [f"<span style='color: {MUTED}'>{html.escape(name)}:</span> {html.escape(fact)}" for name, fact in told]
        self.facts.value = f"<div role='status' style='margin: 8px 0; line-height: 1.4'>{'<br>'.join(lines)}</div>"


def loss_figure(current: list[tuple[int, float]], steps: int, title: str, earlier: Sequence[dict] = ()) -> Figure:
    """Return the running training's loss, with the smoothed curves of earlier runs behind it for comparison.

    `current` holds (step, loss) pairs of a run of so many `steps` (0: as far as the curves go); `earlier` are records,
    the latest first.
    Example: loss_figure([(1, 4.2), (2, 3.9)], 9, "r 2 q,v 1e-4")
    """
    figure = Figure(figsize=(7.6, 3), layout="constrained")
    axis = figure.subplots()
    for place, record in enumerate(earlier):
        numbers, losses = zip(*((entry["step"], entry["loss"]) for entry in record["training"]), strict=True)
        looks = {"color": GREY, "alpha": 0.9 - 0.2 * place, "linestyle": ("-", "--", "-.", ":")[place % 4]}
        axis.plot(numbers, smooth(losses), label=describe(record["config"], record["status"]), **looks)
    if current:
        numbers, losses = zip(*current, strict=True)
        axis.plot(numbers, losses, ".", color=SKY, markersize=4)
        axis.plot(numbers, smooth(losses), color=BLUE, linewidth=1.8, label="this run")
    axis.set_xlim(left=0, right=steps + 1 if steps else None)  # a run that goes on shows how far it has to go
    axis.set_ylim(0, 1.05 * axis.dataLim.y1 if current or earlier else None)
    set_labels(axis, f"step of {steps}" if steps else "step", "loss (nats per token)", title)
    if current or earlier:
        axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def figure_html(figure: Figure, alt: str) -> str:
    """Return a figure as an HTML image with a description for those who do not see it.

    Example: figure_html(loss_figure([], 0, "no run yet"), "No run yet")[:4] -> "<img"
    """
    source = print_figure(figure, bbox_inches=None, base64=True, dpi=100)
    return f'<img style="max-width: 100%; height: auto" alt="{html.escape(alt)}" src="data:image/png;base64,{source}">'


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
