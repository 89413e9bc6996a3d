"""The runs so far as lines to load or to compare."""

from collections.abc import Callable, Sequence

import ipywidgets

from utils.config import RunConfig
from utils.panel_runs import compare, describe, history
from utils.panel_views import history_line, table_html
from utils.views import button, said

SHOWN = 30  # lines; older runs stay in the records


class RunHistory:
    """A line for each run, with a button that loads its settings and a box to tick for comparing two.

    Example: RunHistory(on_load=form.load).show(records, [])
    """

    def __init__(self, on_load: Callable[[dict], None]):
        """Start empty; `on_load` is called with the record whose button was pressed."""
        self._on_load, self.records, self._ticked = on_load, [], []
        self.loads, self.ticks = [], []
        self.lines = ipywidgets.VBox(layout={"max_height": "24em", "overflow": "auto"})
        self.comparison = ipywidgets.HTML()
        self.box = ipywidgets.VBox([ipywidgets.HTML("<b>Runs</b>"), self.lines, self.comparison])

    def show(self, records: Sequence[dict], complaints: Sequence[str]) -> None:
        """Show these runs, the latest first, and what could not be read.

        Example: RunHistory(print).show(*load_history([folder]))
        """
        self.records, self._ticked = list(records[:SHOWN]), []
        table = history(self.records)
        self.loads, self.ticks, lines = [], [], []
        for number, (record, row) in enumerate(zip(self.records, table.itertuples(index=False), strict=True), 1):
            self.loads.append(
                button(
                    f"Load {number}",
                    "Show this run's settings in the form",
                    lambda r=record: self._on_load(r),
                    width="6em",
                )
            )
            tick = ipywidgets.Checkbox(description=f"compare {number}", indent=False, layout={"width": "8em"})
            tick.observe(lambda change, n=number: self._tick(n, change["new"]), "value")
            self.ticks.append(tick)
            line = ipywidgets.HTML(history_line(row), layout={"flex": "1 1 30em", "min_width": "0"})
            lines.append(
                ipywidgets.Box([line, self.loads[-1], tick], layout={"flex_flow": "row wrap", "flex": "0 0 auto"})
            )
        told = "" if lines else "No runs yet: press Train."
        self.lines.children = [ipywidgets.HTML(said(text)) for text in (told, *complaints) if text] + lines
        self.comparison.value = said("Tick two runs to see their answers side by side." if len(lines) > 1 else "")

    def _tick(self, number: int, on: bool) -> None:
        self._ticked = [n for n in self._ticked if n != number] + [number] * on
        if len(self._ticked) > 2:
            self.ticks[self._ticked[0] - 1].value = False  # the oldest gives way; this calls _tick again
            return
        if len(self._ticked) < 2:
            self.comparison.value = said("Tick two runs to see their answers side by side.")
            return
        first, second = (self.records[n - 1] for n in self._ticked)
        table = compare(first, second)
        names = [describe(RunConfig.from_dict(record["config"])) for record in (first, second)]
        head = f"A is {names[0]} ({first['status']}). B is {names[1]} ({second['status']})."
        if table.empty:
            self.comparison.value = said(f"{head} They were asked different questions: there is nothing to compare.")
            return
        right = [sum(letter in row.split(" and ") for row in table["right"]) for letter in "AB"]
        head += (
            f" Of {len(table)} shared questions A has {right[0]} right and B {right[1]}, case and punctuation forgiven."
        )
        self.comparison.value = said(head) + table_html(table)
