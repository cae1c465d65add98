"""Every example of docs/howto/schedule.md is what it says: it parses, begins yesterday's night, and knows the codes."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pipelines.__main__ import app
from pipelines.daily_run import ALARM
from recdistill import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "schedule.md").read_text(encoding="utf-8")
CODES = {each.exit_code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_code")}
HOPELESS = CODES - {errors.StageError.exit_code}
# Stands for the command: keeps its words, says what it was told to, and ends so.
FAKE = """#!{python}
import json, os, sys
print(json.dumps({{"words": sys.argv[1:], "cwd": os.getcwd()}}), file=open({file!r}, "w"))
print(os.environ.get("SAID", "{{}}"))
sys.exit(int(os.environ.get("CODE", "0")))
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def srv(tmp_path, monkeypatch):
    """A directory in the place of /srv/recs, with a command that writes down how it was called."""
    command = tmp_path / ".venv" / "bin" / "recdistill"
    command.parent.mkdir(parents=True)
    command.write_text(FAKE.format(python=sys.executable, file=str(tmp_path / "called")))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def begins_yesterdays_night(srv: Path, command: str) -> None:
    """Run a shell's command, and see what it made of itself; midnight may pass meanwhile."""
    before = datetime.now(UTC).date()
    subprocess.run(["sh", "-c", command.replace("/srv/recs", str(srv))], cwd=srv, check=True, timeout=60)
    called = yaml.safe_load((srv / "called").read_text())
    assert called["cwd"] == str(srv)
    day = date.fromisoformat(called["words"][3])
    assert day in {before - timedelta(days=1), datetime.now(UTC).date() - timedelta(days=1)}
    assert called["words"] == ["run", "nightly.yaml", "--partition", str(day), "--json"]
    app.parse_args(called["words"], exit_on_error=False, print_error=False)  # raises where there is no such option


def five_fields(line: str) -> str:
    """Return the command of a line of a crontab."""
    *fields, command = line.split(maxsplit=5)
    assert len(fields) == 5
    assert all(re.fullmatch(r"[0-9*,/-]+", field) for field in fields)
    return command


def test_the_crontab_is_one(srv) -> None:
    (text,) = blocks("text")
    lines = [line for line in text.splitlines() if not re.match(r"[A-Z_]+=", line)]
    assert "CRON_TZ=UTC" in text
    (command,) = map(five_fields, lines)
    assert "%" not in command.replace("\\%", "")  # a bare one is a newline there
    begins_yesterdays_night(srv, command.replace("\\%", "%"))


def test_the_units_of_systemd_are_ones(srv) -> None:
    units = [configparser.ConfigParser(interpolation=None) for _ in blocks("ini")]
    for unit, text in zip(units, blocks("ini"), strict=True):
        unit.optionxform = str  # type: ignore[method-assign]
        unit.read_string(text)
    service, timer = units
    assert timer["Timer"]["OnCalendar"].endswith("UTC")
    assert service["Service"]["WorkingDirectory"] == "/srv/recs"
    assert {int(code) for code in service["Service"]["RestartPreventExitStatus"].split()} == HOPELESS
    assert service["Service"]["SuccessExitStatus"] == str(ALARM)
    words = shlex.split(service["Service"]["ExecStart"].replace("$$", "$").replace("%%", "%"))
    assert words[:2] == ["/bin/sh", "-c"]
    begins_yesterdays_night(srv, words[2])


def test_the_cron_job_is_one(srv) -> None:
    job, _ = map(yaml.safe_load, blocks("yml"))
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["timeZone"]) == ("batch/v1", "CronJob", "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    five_fields(spec["schedule"] + " x")
    inner = spec["jobTemplate"]["spec"]
    (rule,) = inner["podFailurePolicy"]["rules"]
    assert set(rule["onExitCodes"]["values"]) == HOPELESS | {ALARM}
    pod = inner["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # without which podFailurePolicy is refused
    (container,) = pod["containers"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert container["command"] == ["/bin/sh", "-c"]
    (command,) = container["args"]
    begins_yesterdays_night(srv, f"cd {container['workingDir']} && {command}")


class Hopeless(Exception): ...


class Again(Exception): ...


@pytest.fixture
def airflow_night(srv, monkeypatch):
    """The task's own function, out of the file as it stands, with something like Airflow around it."""
    kept = {}

    def task(**settings):
        return lambda function: kept.setdefault("night", (function, settings))[0]

    def dag(**settings):
        kept["dag"] = settings
        return lambda _: lambda: None

    parts = {
        "airflow": {},
        "airflow.exceptions": {"AirflowException": Again, "AirflowFailException": Hopeless},
        "airflow.sdk": {"dag": dag, "task": task},
        "airflow.timetables": {},
        "airflow.timetables.trigger": {"CronTriggerTimetable": lambda line, timezone: (line, timezone)},
    }
    for name, names in parts.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    (text,) = [block for block in blocks("python") if "airflow" in block]
    exec(compile(text.replace("/srv/recs", str(srv)), "nightly_dag.py", "exec"), {"__name__": "nightly_dag"})
    line, zone = kept["dag"]["schedule"]
    five_fields(line + " x")
    assert (zone, kept["dag"]["max_active_runs"]) == ("UTC", 1)
    assert kept["night"][1]["retries"] > 0
    return kept["night"][0]


@pytest.mark.parametrize("code", [0, ALARM])
def test_the_task_of_airflow_runs_the_night_of_the_day_before(srv, monkeypatch, capsys, airflow_night, code) -> None:
    told = {"partition": "2026-11-30", "status": "promoted", "version": 3, "quality": {}, "report": "r"}
    alarms = [{"text": "alarm: x"}] if code else []
    monkeypatch.setenv("SAID", json.dumps(told | {"alarms": alarms}))
    monkeypatch.setenv("CODE", str(code))
    assert airflow_night(ds="2026-12-01") == told
    called = yaml.safe_load((srv / "called").read_text())
    assert called == {"words": ["run", "nightly.yaml", "--partition", "2026-11-30", "--json"], "cwd": str(srv)}
    assert ("alarm: x" in capsys.readouterr().out) == bool(alarms)


@pytest.mark.parametrize("code", sorted(CODES))
def test_the_task_of_airflow_tries_again_what_that_can_mend(srv, monkeypatch, airflow_night, code) -> None:
    monkeypatch.setenv("SAID", '{"error": "what it was"}')
    monkeypatch.setenv("CODE", str(code))
    with pytest.raises(Hopeless if code in HOPELESS else Again, match="what it was"):
        airflow_night(ds="2026-12-01")


def test_the_table_has_every_exit_code_and_says_which_to_start_again() -> None:
    rows = re.findall(r"^\| (\d) \|.*\| (.*?) ?\|$", PAGE, flags=re.MULTILINE)
    assert {int(code) for code, _ in rows} == CODES | {0, ALARM}
    assert {int(code) for code, again in rows if again.startswith("yes")} == CODES - HOPELESS


def test_the_settings_of_the_dagster_example_are_there() -> None:
    (text,) = [block for block in blocks("python") if "pipelines.daily" in block]
    (call,) = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and node.keywords]
    tree = ast.parse((ROOT / "pipelines" / "daily.py").read_text())
    (made,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "definitions"]
    assert {each.arg for each in call.keywords} <= {each.arg for each in made.args.kwonlyargs}
    (names,) = re.findall(r"^    (data -> .*)$", PAGE, flags=re.MULTILINE)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Step"]
    said = [ast.literal_eval(each.value) for call in calls for each in call.keywords if each.arg == "name"]
    assert names.split(" -> ") == said


def test_the_settings_of_dagster_itself_are_yaml() -> None:
    _, settings = map(yaml.safe_load, blocks("yml"))
    assert settings["telemetry"] == {"enabled": False}
    (limit,) = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    assert (limit["key"], limit["limit"]) == ("recdistill/nights", 1)
