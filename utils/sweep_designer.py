"""The sweep designer: choose what to vary, see how many runs that is and how long they take, watch the grid fill in."""

import ipywidgets
import pandas as pd

from utils.data import fingerprint
from utils.environment import Environment
from utils.experiments import finished_record
from utils.live import BaseModel, SweepJob
from utils.panel_costs import minutes, minutes_text
from utils.panel_runs import load_history, rate_text, sweep_grid
from utils.panel_state import Settings, sweep_configs
from utils.panel_views import table_html
from utils.settings_form import RANKS, RATES
from utils.views import MUTED, WRONG, View, button, said

MODULE_SETS = (
    ("q",),
    ("q", "v"),
    ("q", "k", "v", "o"),
    ("gate", "up", "down"),
    ("q", "k", "v", "o", "gate", "up", "down"),
)


class SweepDesigner(View):
    """Vary ranks, modules, learning rates and seeds; start, stop, and go on where it stopped.

    A run is done where its record holds the same settings on the same rows, so the notebook's own sweep and this one
    find each other's runs. `table()` is the grid for the saved notebook.

    Example: SweepDesigner(settings, environment, ranks=(1, 2, 4))
    """

    def __init__(
        self, settings: Settings, environment: Environment, ranks=(2,), module_sets=(("q", "v"),), rates=None,
        base: BaseModel | None = None,
    ):  # fmt: skip
        """Offer a sweep over these values; without `rates`, at the settings' own learning rate."""
        super().__init__()
        self.settings, self.environment, self.base = settings, environment, base or BaseModel()
        self.job: SweepJob | None = None
        self.data = settings.load_data()
        self._rows, self._done, self.records = fingerprint(self.data), {}, []
        rates = tuple(rates or (settings.config.learning_rate,))
        sets = list(dict.fromkeys([*MODULE_SETS, *module_sets]))
        self.ranks = _several("ranks", sorted({*RANKS, *ranks}), ranks)
        self.modules = _several("modules", [(" ".join(m), m) for m in sets], module_sets)
        self.rates = _several("learning rates", [(rate_text(r), r) for r in sorted({*RATES, *rates})], rates)
        self.seeds = ipywidgets.Text(
            "0", description="seeds", placeholder="0, 1, 2", style={"description_width": "7.5em"}
        )
        self.seeds.continuous_update = False
        self.start = button("Start", "Do the runs that are not done yet", self._start, "primary")
        self.stop = button("Stop", "End after the current step; Start goes on from here", self._stop, "warning")
        self.status, self.grid = ipywidgets.HTML(), ipywidgets.HTML(layout={"overflow": "auto"})
        choices = ipywidgets.Box([self.ranks, self.modules, self.rates, self.seeds], layout={"flex_flow": "row wrap"})
        hint = ipywidgets.HTML(said("Several of a list: hold Ctrl or Shift. Several seeds: separate them with commas."))
        self.box = ipywidgets.VBox([choices, hint, ipywidgets.Box([self.start, self.stop]), self.status, self.grid])
        for widget in (self.ranks, self.modules, self.rates, self.seeds):
            widget.observe(lambda _: self.refresh(), "value")
        self.refresh()

    def table(self) -> pd.DataFrame:
        """Return the grid: a line for each module set, learning rate and seed, a column for each rank.

        Example: designer.table().loc[0, "rank 2"] -> "EM 0.410"
        """
        states = dict(self.job.states) if self.job else {}
        if self.job and self.job.running and self.job.steps:
            share = f"running, {100 * self.job.step / self.job.steps:.0f} %"
            states = {run_id: share if state == "running" else state for run_id, state in states.items()}
        return sweep_grid(self.configs, self._finished(), states)

    def static(self) -> str:
        """Return the grid as HTML."""
        return table_html(self.table(), wrap="normal")

    def refresh(self) -> None:
        """Show plan and grid; called after every choice, twice a second while the sweep goes on, and once after."""
        running = self.job is not None and self.job.running
        if not running:  # a plan that runs stays as it was started
            chosen = self.ranks.value, self.modules.value, self.rates.value
            self.configs, problem = sweep_configs(self.settings.config, *chosen, self.seeds.value)
            self.records, _ = load_history([self.environment.runs / "records"])
        for widget in (self.ranks, self.modules, self.rates, self.seeds):
            widget.disabled = running
        before, done = len(self._done), self._finished()
        if running and len(done) > before:  # the run that has just ended tells how fast this machine is
            self.records, _ = load_history([self.environment.runs / "records"])
        failed = self.job is not None and self.job.phase == "failed"
        left = [config for config in self.configs if config.run_id not in done]
        self.start.disabled, self.stop.disabled = running or not left, not running or self.job.stopping.is_set()
        if not running and problem:
            self.status.value, self.grid.value = said(problem, WRONG), ""
            return
        self.status.value = said(self._sentence(left), WRONG if failed else MUTED)
        self.grid.value = table_html(self.table(), wrap="normal")

    def _finished(self) -> dict[str, dict]:
        for config in self.configs:
            record = None if config.run_id in self._done else finished_record(config, self._rows, self.environment)
            if record:
                self._done[config.run_id] = record
        return self._done

    def _sentence(self, left: list) -> str:
        said_so_far = f"{len(self.configs)} runs, {len(self.configs) - len(left)} done, {len(left)} to do"
        if self.job and self.job.phase == "failed":
            return self.job.message
        rows = len(self.data["train"]), len(self.data["test"])
        each = [minutes(config, *rows, self.environment, self.records) for config in left]
        if left:
            told = (
                "time unknown until a first run of this model here"
                if None in each
                else f"about {minutes_text(sum(each))}"
            )
            said_so_far += f": {told}"
        if self.job and self.job.running:
            return said_so_far + (". Stopping after this step." if self.job.stopping.is_set() else ". Running.")
        if self.job and self.job.phase == "stopped" and left:
            return said_so_far + ". Stopped: Start goes on from here."
        trouble = f" {self.job.message}" if self.job and self.job.message else ""
        return said_so_far + "." + trouble

    def _start(self) -> None:
        if self.job and self.job.running:
            return
        self.job = SweepJob(self.configs, lambda: self.data, self.environment, self.base).start()
        self.refresh()
        self.follow(self.job, self.refresh)

    def _stop(self) -> None:
        self.job.stop()
        self.refresh()


def _several(label: str, options: list, chosen) -> ipywidgets.SelectMultiple:
    layout = {"width": "20em"}
    shown = ipywidgets.SelectMultiple(description=label, options=options, rows=6, layout=layout)
    shown.style.description_width, shown.value = "7.5em", tuple(chosen)
    return shown
