"""The command line as a process, against the system as it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from local.emulator_address import free_port
from tests.e2e.running import ROOT, Paceline

CLI = (sys.executable, "-m", "operations")


def environment(port: int, **settings: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "client")])
    return {**os.environ, "PACELINE_URL": "", "HOST": "", "PORT": str(port), "PYTHONPATH": paths, **settings}


def cli(paceline: Paceline, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = environment(paceline.port, LOG_DIR=paceline.env["LOG_DIR"], STAGE="")
    return subprocess.run([*CLI, *words], env=env, input=stdin, capture_output=True, text=True, timeout=90, check=False)


def test_tasks_are_submitted_watched_and_found_in_the_log(paceline: Paceline) -> None:
    watched = cli(
        paceline, "submit", "cli-ann", "--payload", "-", "--count", "5", "--watch", "--json", stdin='{"n": 1}'
    )
    assert (watched.returncode, watched.stderr) == (0, "")
    tasks = [json.loads(line) for line in watched.stdout.splitlines()]
    assert [(task["seq"], task["state"]) for task in tasks] == [(seq, "succeeded") for seq in range(1, 6)]
    shown = cli(paceline, "status", "cli-ann", tasks[0]["task_id"]).stdout
    assert "succeeded" in shown
    assert len(cli(paceline, "logs", "--no-follow", "--user", "cli-ann").stdout.splitlines()) == 5
    audited = cli(paceline, "audit", "--user", "cli-ann", "--limits", "3/second; 10/4 seconds")
    assert (audited.returncode, audited.stdout.splitlines()[-1]) == (0, "audit: clean")


def test_a_lane_is_paused_and_resumed(paceline: Paceline) -> None:
    assert cli(paceline, "pause", "cli-bob", "--for", "10m").returncode == 0
    submitted = json.loads(cli(paceline, "submit", "cli-bob", "--json").stdout)
    assert json.loads(cli(paceline, "lane", "cli-bob", "--json").stdout)["backlog"] == 1
    assert cli(paceline, "cancel", "cli-bob", submitted["task_id"]).returncode == 0
    assert cli(paceline, "status", "cli-bob", submitted["task_id"]).returncode == 1
    assert json.loads(cli(paceline, "resume", "cli-bob", "--json").stdout)["paused"] is False


def test_a_parked_task_is_listed_cancelled_and_watched(paceline: Paceline) -> None:
    submitted = json.loads(cli(paceline, "submit", "cli-kim", "--delay", "10m", "--json").stdout)
    assert (submitted["seq"], submitted["delay_ms"]) == (0, 600_000)
    assert f"{submitted['task_id']}  scheduled for " in cli(paceline, "lane", "cli-kim").stdout
    assert cli(paceline, "cancel", "cli-kim", submitted["task_id"]).returncode == 0
    assert "scheduled" not in cli(paceline, "lane", "cli-kim").stdout
    watched = cli(paceline, "submit", "cli-kim", "--delay", "2s", "--count", "2", "--watch")
    assert [line.split()[1:] for line in watched.stdout.splitlines()] == [["seq", n, "succeeded"] for n in "12"]


def test_a_refusal_and_silence_have_their_exit_codes(paceline: Paceline) -> None:
    cli(paceline, "limits", "cli-eve", "1/minute")
    assert [cli(paceline, "submit", "cli-eve", "--strict").returncode for _ in range(2)] == [0, 4]
    silent = cli(paceline, "lane", "cli-eve", "--url", f"http://127.0.0.1:{free_port()}")
    assert silent.returncode == 3
    assert silent.stderr.endswith("start it with make run\n")


def test_the_demo_uses_what_runs_and_ends_with_a_picture(paceline: Paceline, tmp_path: Path) -> None:
    shown = cli(paceline, "demo", "--fast", "--out", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == f"Using the Paceline at http://127.0.0.1:{paceline.port}"
    assert "\naudit: clean\n" in shown.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pace.png", "pace.svg"]


def test_a_demo_of_its_own_ends_quietly_and_leaves_nothing_behind(tmp_path: Path) -> None:
    env = environment(free_port(), TMPDIR=str(tmp_path))
    with subprocess.Popen([*CLI, "demo"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        assert demo.stderr
        while "submits" not in (line := demo.stdout.readline()):
            assert line, demo.stderr.read()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(90) == 130
        assert demo.stderr.read() == ""
    assert not list(tmp_path.glob("paceline-demo-*"))
