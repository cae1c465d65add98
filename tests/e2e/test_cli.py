from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recdistill

ROOT = Path(recdistill.__file__).parents[1]
COMMANDS = ("check", "plan", "plan-tables", "run", "label", "show", "report", "verify", "promote", "rollback")
COMMANDS += ("methods", "sweep", "doctor", "import", "synth")
HEAVY = ("torch", "torchrec", "fbgemm_gpu", "mlflow", "faiss", "matplotlib")


def run(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a user or a scheduler does."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pipelines", *words]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": path, **env}, capture_output=True, text=True, check=False
    )


def loaded(*words: str, cwd: Path) -> list[str]:
    """Return which heavy libraries a command has imported when it ends, and check that it went well."""
    code = f"""
import sys
from pipelines.__main__ import main
code = main({list(words)!r})
print("heavy:", *[m for m in {HEAVY!r} if m in sys.modules])
sys.exit(code)
"""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def config(tmp_path: Path, **changes: str) -> Path:
    lines = {
        "name": "tiny",
        "log": "{path: d/interactions.parquet, user: user_id, item: item_id, time: timestamp}",
        "teacher": "{model: {kind: mf, dim: 8}, train: {epochs: 1}}",
        "student": "{model: {kind: mf, dim: 4}, train: {epochs: 1}}",
        **changes,
    }
    file = tmp_path / "run.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    return file


def test_help_names_every_command_and_is_light(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in COMMANDS:
        assert f" {word} " in done.stdout
    assert loaded("--help", cwd=tmp_path) == []
    assert loaded("run", "--help", cwd=tmp_path) == []
    assert loaded("label", "--help", cwd=tmp_path) == []


def test_data_commands_are_light(tmp_path: Path) -> None:
    assert loaded("synth", "d", "--users", "20", "--items", "40", "--events-per-user", "5", cwd=tmp_path) == []
    assert loaded("check", str(config(tmp_path)), cwd=tmp_path) == []
    assert loaded("run", str(config(tmp_path)), "--until", "split", cwd=tmp_path) == []


def test_check_says_ok(tmp_path: Path) -> None:
    done = run("check", str(config(tmp_path)), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "run.yaml: ok" in done.stdout


def test_check_prints_the_resolved_configuration_as_json(tmp_path: Path) -> None:
    done = run("check", str(config(tmp_path)), "--set", "student.model.dim=12", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["config"]["student"]["model"]["dim"] == 12


def test_check_names_every_problem_and_exits_2(tmp_path: Path) -> None:
    config(tmp_path, name="Tiny", lables="{}")
    done = run("check", "run.yaml", "--set", "student.train.epoch=3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        "run.yaml:1:1",
        "run.yaml:5:1",
        "--set student.train.epoch",
    ]
    assert "did you mean 'labels'?" in done.stderr


def test_an_error_as_json_is_one_object(tmp_path: Path) -> None:
    config(tmp_path, name="Tiny")
    done = run("check", "run.yaml", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert (said["kind"], said["exit_code"]) == ("ConfigError", 2)
    assert said["problems"][0]["where"] == "run.yaml:1:1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chekc", "x"], 'Did you mean "check"?'),
        (["check"], "CONFIG"),
        (["check", "x", "--jsn"], "Did you mean --json?"),
        (["check", "missing.yaml"], "missing.yaml: no such file"),
        (["synth", "d", "--users", "many"], "many"),
    ],
)
def test_a_slip_on_the_command_line_exits_2(tmp_path: Path, words: list[str], message: str) -> None:
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_data_exits_3_and_leaves_nothing(tmp_path: Path) -> None:
    done = run("import", "movielens-10k", "x", "out", cwd=tmp_path)
    assert done.returncode == 3
    assert "movielens-100k" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_artifact_exits_5(tmp_path: Path) -> None:
    assert run("verify", "nothing", cwd=tmp_path).returncode == 5
    assert run("show", "no/thing", cwd=tmp_path).returncode == 5
    done = run("promote", "model", cwd=tmp_path)
    assert done.returncode == 5
    assert "there is no registry here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_rank_speaks(tmp_path: Path) -> None:
    done = run("check", "missing.yaml", cwd=tmp_path, RANK="1")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("check", "missing.yaml", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "no such file" in done.stderr.splitlines()[-1]


def test_import_writes_parquet(tmp_path: Path) -> None:
    source = tmp_path / "gowalla"
    source.mkdir()
    (source / "train.txt").write_text("0 1 2\n1 0\n")
    (source / "test.txt").write_text("0 0\n1 1 2\n")
    done = run("import", "lightgcn", "gowalla", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["out"] == "out"
    assert list((tmp_path / "out").glob("*.parquet"))


def test_synth_writes_what_it_says(tmp_path: Path) -> None:
    done = run("synth", "d", "--users", "20", "--items", "40", "--events-per-user", "5", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["users"] == 20
    assert (tmp_path / "d" / "interactions.parquet").is_file()


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m pipelines check {config(tmp_path)} --json | true; echo ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_doctor_finds_this_installation_fit(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["ok"] else 1)
    names = {check["name"] for check in said["checks"]}
    assert {"python", "versions that fit", "embedding kernels", "SIMD", "GPU", "cores", "memory", "disk"} <= names
    assert all(check["todo"] for check in said["checks"] if check["state"] != "ok")
    assert {c["name"]: c["state"] for c in said["checks"]}["embedding kernels"] == "ok"
