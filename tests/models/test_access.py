"""Access to a gated model, asked of a stand-in Hub on this machine that answers as the real one does."""

import http.server
import os
import subprocess
import sys
import threading

import pytest

from utils.environment import ROOT
from utils.models.access import check_access

TOKEN = "hf_" + "secret" * 5
ANSWERS = {
    "gated/model": (
        403,
        {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model gated/model is restricted."},
    ),
    "no/model": (404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found."}),
    "broken/model": (500, {}),
    "open/model": (200, {}),
}


class StandIn(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = next((answer for name, answer in ANSWERS.items() if name in self.path), (200, {}))
        self.send_response(found[0])
        for name, value in found[1].items():
            self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"{}")

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def ask(endpoint, asked, home):
    """Call check_access in a process of its own, where the library reads its settings anew; say how each call ended."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    code = f"""
import os
from utils.models.access import check_access
for repository, token in {asked!r}:
    os.environ.pop("HF_TOKEN", None)
    os.environ.update({{"HF_TOKEN": token}} if token else {{}})
    try:
        check_access(repository)
        print("granted")
    except Exception as error:
        print(f"{{type(error).__name__}}: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.long
def test_each_trouble_has_a_message_of_its_own(endpoint, tmp_path):
    asked = [("gated/model", None), ("gated/model", TOKEN), ("no/model", TOKEN), ("open/model", None)]
    no_token, no_access, no_model, granted = ask(endpoint, asked, tmp_path)
    assert no_token.startswith("PermissionError: No token: gated/model is gated. 1. Accept its licence on")
    said = "PermissionError: A token without access: your account may not read gated/model yet."
    assert no_access.startswith(said)
    assert no_model.startswith("ValueError: The Hub has no model no/model")
    assert granted == "granted"


@pytest.mark.long
def test_no_network_is_a_third_message(tmp_path):
    (said,) = ask("http://127.0.0.1:9", [("gated/model", TOKEN)], tmp_path)  # nothing listens on that port
    assert said.startswith("ConnectionError: No network: the Hub, which holds gated/model, cannot be reached")


def test_offline_a_model_that_is_not_in_the_cache_is_named():
    with pytest.raises(ConnectionError, match=r"No network: .*nobody/nothing.*MODEL = 'gemma-3-270m'"):
        check_access("nobody/nothing")
