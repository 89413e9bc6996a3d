import io
from types import SimpleNamespace

from utils import progress as module
from utils.config import RunConfig
from utils.progress import Line, SweepProgress, duration

CONFIGS = [RunConfig("tiny-llama", rank=rank, epochs=2) for rank in (None, 1, 2)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def steps(callback, count, seconds, monkeypatch, clock):
    state = SimpleNamespace(max_steps=10)
    callback.on_train_begin(None, state, None)
    for _ in range(count):
        clock[0] += seconds
        callback.on_step_end(None, state, None)


def test_the_line_tells_what_is_done_how_fast_and_how_long_it_goes_on(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    with SweepProgress(CONFIGS, rows=40) as progress:  # two adapters x 40 rows x 2 epochs = 160 rows to train
        assert progress.text() == "0 of 3 configurations"
        progress.finished(CONFIGS[0])
        steps(progress.watch(CONFIGS[1:]), 4, 2.0, monkeypatch, clock)  # 4 of 10 steps: 64 rows in 8 s
        assert (
            progress.text() == "1 of 3 configurations, 2 together, 8.0 rows/s, training for about 12 s more"
        )  # 96 / 8
        steps(progress.watch(CONFIGS[1:]), 6, 2.0, monkeypatch, clock)
        assert progress.text() == "1 of 3 configurations, 2 together, 8.0 rows/s, answering the test questions"
        clock[0] += 10
        progress.finished(CONFIGS[1])
        progress.finished(CONFIGS[2])
        assert progress.text() == "3 of 3 configurations, 8.0 rows/s, 30 s in all"  # 8 + 12 + 10


def test_in_a_terminal_the_line_replaces_itself_and_makes_room(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(module.sys, "stdout", screen)
    line = Line()
    line.show("1 of 12 configurations")
    line.show("2 of 12")
    assert screen.getvalue().split("\r")[1:] == ["1 of 12 configurations", "2 of 12               "]
    line.clear()
    assert screen.getvalue().endswith("\r")
    assert "\n" not in screen.getvalue()
    line.show("12 of 12")
    line.keep()
    assert screen.getvalue().endswith("12 of 12\n")


def test_in_a_file_there_is_no_line(capsys):
    Line().show("1 of 12 configurations")
    assert capsys.readouterr().out == ""


def test_in_a_notebook_one_display_is_updated(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda text: shown.append(("update", repr(text))))
    monkeypatch.setattr(module, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(module, "display", lambda text, display_id: shown.append(("display", repr(text))) or handle)
    line = Line()
    for text in ("1 of 12", "2 of 12"):
        line.show(text)
        line.clear()
    assert shown == [("display", "1 of 12"), ("update", "2 of 12")]


def test_durations_are_said_as_a_person_says_them():
    assert [duration(s) for s in (0.4, 12, 89, 91, 3000, 9000)] == ["0 s", "12 s", "89 s", "2 min", "50 min", "2.5 h"]
