import os
import subprocess
import sys

import pytest

from utils.environment import ROOT


@pytest.mark.long
def test_a_few_kills_and_two_sweeps_at_once_lose_nothing():
    command = [sys.executable, "-m", "tests.torture", "--kills", "4", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.startswith("kill ") for line in lines].count(True) == 4
    assert lines[-2] == "two sweeps at once on one folder: records, adapters and table as undisturbed"
    assert lines[-1].startswith("4 kills, ")
    assert lines[-1].endswith(" folders: 0 differences.")
