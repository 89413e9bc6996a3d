"""The panels in a real JupyterLab: Playwright drives the Chromium of this machine through notebook 02.

Screenshots of both themes at two widths are kept in runs/screenshots.
"""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from utils.environment import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [p for p in ("playwright", "jupyterlab") if importlib.util.find_spec(p) is None] + ["chromium"] * (
    not CHROMIUM
)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: make setup, and your system's chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SCREENSHOTS = ROOT / "runs" / "screenshots"
NOTEBOOK = "02_fine_tuning.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("lab")
    (place / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, place / "notebooks")
    (place / "utils").symlink_to(ROOT / "utils")
    settings = {
        "notebook-extension/tracker": {
            "windowingMode": "none"
        },  # else what is scrolled out of sight is not in the page
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, values in settings.items():
        path = place / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return place


@pytest.fixture(scope="module")
def lab(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    own = {
        name: str(folder / name) for name in ("config", "data", "runtime", "settings", "workspaces", "ipython", "runs")
    }
    environment = os.environ | {
        "PROFILE": "smoke", "RUNS": own["runs"], "JUPYTER_CONFIG_DIR": own["config"], "JUPYTER_DATA_DIR": own["data"], "JUPYTER_RUNTIME_DIR": own["runtime"],
        "JUPYTERLAB_SETTINGS_DIR": own["settings"], "JUPYTERLAB_WORKSPACES_DIR": own["workspaces"], "IPYTHONDIR": own["ipython"],
    }  # fmt: skip
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (folder / "lab.log").read_text()
                assert time.monotonic() < deadline, (folder / "lab.log").read_text()
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def page(lab):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=180_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{lab}/lab/tree/notebooks/{NOTEBOOK}?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        idle = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        page.wait_for_function(idle)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells'); null")  # not waited for here
        asked, failed = (
            page.get_by_role("button", name="Ask", exact=True),
            page.get_by_text("Traceback (most recent call last)"),
        )
        asked.or_(failed).first.wait_for(timeout=400_000)  # Ask stands in the last view of the notebook
        assert not failed.count(), failed.locator("xpath=ancestor::pre").first.inner_text()
        yield page
        browser.close()


def field(page, label):
    return page.locator(".widget-inline-hbox", has=page.locator("label", has_text=re.compile(f"^{label}$")))


def enter(page, label, value):
    box = field(page, label).locator("input")
    box.fill(str(value))
    box.press("Enter")


def steps(page):
    alt = page.locator("img[alt^='Training loss by step']").first.get_attribute("alt")
    found = re.search(r"at step (\d+)", alt)
    return int(found[1]) if found else 0


def status(page, text):
    return page.locator("[role=status]", has_text=text).first


def test_01_moving_rank_changes_the_trainable_count(page):
    from playwright.sync_api import expect

    facts = status(page, "trainable, Llama 3.2 3B")
    expect(facts).to_contain_text("573,440 of 3,213,323,264 (0.0178 %)")
    handle = field(page, "rank").locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")  # by keyboard: 2 to 4
    expect(facts).to_contain_text("1,146,880 of 3,213,896,704 (0.0357 %)")
    expect(field(page, "alpha").locator("input")).to_have_value("16")
    expect(facts).to_contain_text("Table 3: EM 0.325, F1 0.455")


def test_02_a_wrong_value_is_explained_and_train_is_off(page):
    from playwright.sync_api import expect

    enter(page, "epochs", 0)
    expect(status(page, "expected a whole number, 1 or more")).to_be_visible()
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    enter(page, "epochs", 60)
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_enabled()


def test_03_a_run_draws_its_curve_and_ends_recorded(page, folder):
    from playwright.sync_api import expect

    page.get_by_role("button", name="Train", exact=True).click()
    expect(status(page, "rows/s")).to_be_visible()
    seen = {steps(page)}
    while page.get_by_role("button", name="Train", exact=True).is_disabled():
        seen.add(steps(page))
        page.wait_for_timeout(250)
    expect(status(page, "Finished: EM")).to_be_visible()
    assert len(seen - {0}) >= 2, seen  # the curve grew while the run went on
    assert steps(page) == 180  # 12 rows, batch 4, 60 epochs
    assert "finished" in statuses(folder)
    page.screenshot(path=shots() / "trained.png")


def test_04_stop_ends_a_run_early_and_keeps_it(page, folder):
    from playwright.sync_api import expect

    enter(page, "epochs", 2000)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(status(page, "rows/s")).to_be_visible()
    clicked = time.monotonic()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(status(page, "Stopped after step")).to_be_visible()
    print(f"Stop took {time.monotonic() - clicked:.1f} s, answering the test rows included.")
    assert "stopped" in statuses(folder)
    assert 0 < steps(page) < 6000


def test_05_a_run_is_loaded_from_the_history(page):
    from playwright.sync_api import expect

    page.get_by_role("button", name="Load 3", exact=True).click()  # the notebook's own run, before the two above
    expect(field(page, "epochs").locator("input")).to_have_value("3")
    expect(status(page, "trainable, Llama 3.2 3B")).to_contain_text("573,440 of ")  # rank 2 again


def test_06_the_playground_answers(page):
    from playwright.sync_api import expect

    page.get_by_label("question", exact=True).fill("")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(status(page, "Write a question about the text.")).to_be_visible()
    page.get_by_label("question", exact=True).fill("Cine a plecat?")
    page.get_by_label("text", exact=True).fill("Ana a plecat la Iași.")
    page.get_by_role("button", name="Ask", exact=True).click()
    answers = page.locator("section")
    expect(answers.first).to_contain_text("base model")
    expect(status(page, re.compile(r"^[123] answers\.$"))).to_be_visible()
    page.locator("summary", has_text="The prompt that was sent").click()
    expect(page.locator("details pre")).to_have_text(
        "Context: Ana a plecat la Iași.\nQuestion: Cine a plecat?\nAnswer:"
    )


def test_07_every_control_can_be_reached_by_keyboard_and_has_a_name(page):
    unnamed = page.evaluate("""() => [...document.querySelectorAll('.jp-OutputArea .jupyter-widgets :is(input, select, textarea, button)')]
        .filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()) || e.tabIndex < 0)
        .map(e => e.outerHTML.slice(0, 200))""")
    assert unnamed == []


def test_08_nothing_is_cut_off_at_two_widths_in_both_themes(page):
    for theme in ("Light", "Dark"):
        page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
        for width in (1280, 800):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(800)
            for name, anchor in (("form", "Model and data"), ("runs", "Runs"), ("playground", "Ask tiny-llama")):
                page.locator("b", has_text=re.compile(f"^{anchor}$")).first.evaluate(
                    "e => e.scrollIntoView({block: 'start'})"
                )
                page.wait_for_timeout(200)
                page.screenshot(path=shots() / f"{name}-{theme.lower()}-{width}.png")
            wide = page.evaluate("""() => [...document.querySelectorAll('.jp-OutputArea-output .jupyter-widgets.widget-vbox')]
                .filter(e => e.scrollWidth > e.clientWidth + 2 && e.clientWidth > 0).map(e => e.innerText.slice(0, 80))""")
            assert wide == [], f"{theme}, {width}"


def statuses(folder):
    return [json.loads(path.read_text())["status"] for path in (folder / "runs" / "smoke" / "records").glob("*.json")]


def shots():
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
