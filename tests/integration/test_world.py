"""Several processes are one run: the same curves whatever the layout, and errors that end every rank alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zygote

# Two ranks add the same numbers in another order, and training carries the difference from step to step. NDCG moves
# by whole ranks of single users, so a validation is compared absolutely, by less than two users' worth of 200.
RELATIVE = 2e-4
ABSOLUTE_VALID = 0.005

SHARE = """
import sys
from recdistill import world
from recdistill.errors import DataError

def fail():
    raise DataError("no such file", where="log.parquet", fix="write it")

with world.world(device="cpu") as joined:
    assert joined.share(lambda: {"rank": joined.rank, "list": [1, None]}) == {"rank": 0, "list": [1, None]}
    assert joined.share_local(lambda: object()) is None or joined.rank == 0
    rows = joined.slice(10)
    assert (rows.start, rows.stop) == ((0, 5), (5, 10))[joined.rank]
    said = ""
    try:
        joined.share(fail)
    except DataError as error:
        said = str(error)
    try:
        joined.share(lambda: 1 / 0)
    except Exception as error:
        said += " | " + type(error).__name__
    assert joined.share(lambda: 7) == 7
    joined.barrier()
    with open(f"{sys.argv[1]}/rank{joined.rank}.txt", "w") as file:
        file.write(said)
"""


# Kills rank 1 of the first attempt as it opens its part of a checkpoint.
MORTAL = """
import os, re, signal, sys
part = re.compile(r"(checkpoint-4\\.tmp)/__1_")
def hook(event, arguments):
    found = event == "open" and isinstance(arguments[0], (str, os.PathLike)) and part.search(os.fspath(arguments[0]))
    if found and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        with open("died", "w") as file:
            file.write(os.environ["RANK"] + " " + found.group(1))
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from pipelines.__main__ import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def config(tiny):
    return tiny.config("many", registry=None)


def curves(tiny, outcome, store):
    stages = {row["stage"]: row for row in outcome["stages"]}
    names = ("scratch", "teacher", "student")
    return {n: json.loads((tiny.at("fit", stages[n], store) / "curve.json").read_text()) for n in names}


def assert_same_curves(one, many):
    for name, points in one.items():
        assert [p["step"] for p in many[name]] == [p["step"] for p in points]
        for ours, theirs in zip(points, many[name], strict=True):
            assert theirs.keys() == ours.keys()
            losses = ours.keys() - {"step", "valid"}
            assert {k: theirs[k] for k in losses} == pytest.approx({k: ours[k] for k in losses}, rel=RELATIVE), name
            assert theirs["valid"] == pytest.approx(ours["valid"], abs=ABSOLUTE_VALID), name


def lend_labels(tiny, done, store):
    """Give `store` the labels of the run by one process.

    Scores that differ in the seventh digit put near ties in another order, and a student of other lists is another.
    """
    labels = tiny.at("labels", done.stages["labels"])
    shutil.copytree(labels, tiny.home / store / "labels" / labels.name)


@pytest.fixture(scope="module")
def several(tiny, done, config):
    """Run the path to the student in a layout on so many processes, once; return the outcome and the store."""
    made = {}

    def run(layout, processes):
        store = f"several/{layout}-{processes}"
        if store not in made:
            lend_labels(tiny, done, store)
            words = ("run", config, "--json", "--until", "student", "--set", f"exec.store={store}")
            process = tiny(*words, "--set", f"exec.tables={layout}", processes=processes)
            assert process.returncode == 0, process.stdout + process.stderr
            made[store] = json.loads(process.stdout)  # one object: only one rank speaks
        return made[store], store

    return run


@pytest.mark.parametrize(("layout", "processes"), [("table_wise", 4), ("row_wise", 2)])
def test_several_processes_draw_the_curves_of_one(tiny, done, several, layout, processes):
    outcome, store = several(layout, processes)
    assert [r["fingerprint"] for r in outcome["stages"]] == [r["fingerprint"] for r in done.outcome["stages"][:6]]
    assert_same_curves(curves(tiny, done.outcome, "runs/store"), curves(tiny, outcome, store))
    student = tiny.at("fit", outcome["stages"][5], store)
    assert json.loads((student / "manifest.json").read_text())["env"]["processes"] == str(processes)


def test_a_rank_that_dies_is_started_again_and_the_run_ends_in_the_same_bytes(tiny, several, config):
    """Rank 1 dies as it writes its part of the second checkpoint; torchrun starts both again, with the same command."""
    (tiny.home / "mortal.py").write_text(MORTAL)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "1"]
    store, (outcome, alone) = "several/restarted", several("row_wise", 2)
    words = ["run", config, "--json", "--until", "scratch", "--set", f"exec.store={store}"]
    every = ["--set", "exec.checkpoint_every=2", "--set", "exec.tables=row_wise"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(tiny.home / "mortal.py"), *words, *every],
        cwd=tiny.home,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tiny.home / "died").read_text() == "1 checkpoint-4.tmp"
    names = ("weights.safetensors", "curve.json", "users.npy", "items.npy", "plan.json")
    scratch = outcome["stages"][2]
    left = [{name: (tiny.at("fit", scratch, at) / name).read_bytes() for name in names} for at in (store, alone)]
    assert left[0] == left[1]


def test_two_processes_that_hold_windows_of_unlike_lengths_draw_the_curve_of_one(tiny):
    model = {"kind": "sequence", "dim": 8, "history": 8}
    teacher = {"model": model, "train": {"epochs": 3, "batch": 64, "negatives": 64}}
    config = tiny.config("windows", registry=None, features=None, teacher=teacher)
    points = []
    for processes, layout in ((1, "auto"), (2, "row_wise")):
        store = f"windows/{processes}"
        words = ("run", config, "--json", "--until", "teacher", "--set", f"exec.store={store}")
        process = tiny(*words, "--set", f"exec.tables={layout}", processes=processes)
        assert process.returncode == 0, process.stdout + process.stderr
        stages = {row["stage"]: row for row in json.loads(process.stdout)["stages"]}
        points.append(json.loads((tiny.at("fit", stages["teacher"], store) / "curve.json").read_text()))
    assert_same_curves({"teacher": points[0]}, {"teacher": points[1]})
    assert points[0][0]["task"] > points[0][-1]["task"]


def test_two_processes_taught_histories_that_nobody_had_draw_the_curve_of_one(tiny):
    train = {"epochs": 2, "batch": 512, "negatives": 64}
    teacher = {"model": {"kind": "two_tower", "dim": 16, "history": 8}, "train": train}
    labels = {"depth": 30, "transfer": {"kind": "dropout", "rate": 0.5, "share": 0.25}}
    config = tiny.config("transfer", registry=None, features=None, teacher=teacher, labels=labels)
    words, points = ("run", config, "--json", "--until"), []
    for processes, layout in ((1, "auto"), (2, "row_wise")):
        store = f"transfer/{processes}"
        if processes == 2:  # lists of the same scores: see lend_labels
            shutil.copytree(tiny.home / "transfer" / "1" / "labels", tiny.home / store / "labels")
        sets = ("student", "--set", f"exec.store={store}", "--set", f"exec.tables={layout}")
        process = tiny(*words, *sets, processes=processes)
        assert process.returncode == 0, process.stdout + process.stderr
        points.append(curves(tiny, json.loads(process.stdout), store))
    assert_same_curves(*points)


def test_two_processes_train_every_width_of_a_rounded_student_as_one(tiny):
    """A range of items and a width's own adapter are those of all rows, whoever has them."""
    train = {"epochs": 2, "batch": 512, "negatives": 64}
    teacher = {"model": {"kind": "mf", "dim": 16}, "train": train}
    model = {"kind": "two_tower", "dim": 8, "history": 8, "nested": [4], "rounding": "int8"}
    student = {"model": model, "train": train | {"list_users": 64}}
    lists = {"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}
    align = {"kind": "align", "weight": 1.0, "loss": {"kind": "distance", "adapter": {"kind": "linear"}}}
    more = {"labels": {"depth": 30, "vectors": True}, "distill": [lists, align]}
    config = tiny.config("nested", registry=None, features=None, teacher=teacher, student=student, **more)
    words, points = ("run", config, "--json", "--until", "student"), []
    for processes, layout in ((1, "auto"), (2, "row_wise")):
        store = f"nested/{processes}"
        if processes == 2:  # lists of the same scores: see lend_labels
            shutil.copytree(tiny.home / "nested" / "1" / "labels", tiny.home / store / "labels")
        sets = ("--set", f"exec.store={store}", "--set", f"exec.tables={layout}")
        process = tiny(*words, *sets, processes=processes)
        assert process.returncode == 0, process.stdout + process.stderr
        points.append(curves(tiny, json.loads(process.stdout), store))
    assert_same_curves(*points)
    assert {"task", "0.softmax_kl", "1.distance"} <= points[0]["student"][0].keys()


def test_what_two_processes_began_one_goes_on_with(tiny, done, config):
    """The student's second checkpoint is the last thing its two processes leave; one process ends the run."""
    store = "two/left"
    lend_labels(tiny, done, store)
    words = ("run", config, "--json", "--until", "student", "--set", f"exec.store={store}")
    every = ("--set", "exec.checkpoint_every=2", "--set", "exec.tables=row_wise")
    fingerprint = done.stages["student"]["fingerprint"]
    pattern = rf"{fingerprint}\.partial/checkpoint-6$"
    process = tiny(*words, *every, processes=2, kill=pattern)
    assert process.returncode != 0
    partial = tiny.home / store / "fit" / f"{fingerprint}.partial"
    assert (partial / "checkpoint-4" / "state.json").is_file()
    assert not (partial / "checkpoint-6").exists()
    process = tiny(*words)
    assert process.returncode == 0, process.stdout + process.stderr
    assert_same_curves(curves(tiny, done.outcome, "runs/store"), curves(tiny, json.loads(process.stdout), store))


def test_a_batch_that_ranks_cannot_share_is_refused_on_all(tiny, config):
    words = ("run", config, "--set", "exec.store=two/odd", "--set", "student.train.batch=511")
    process = tiny(*words, processes=2)
    assert process.returncode == 2
    text = "student.train.batch is 511, which 2 processes cannot share evenly"
    assert process.stderr.count(text) == 1
    assert "make it a multiple of 2" in process.stderr
    assert not (tiny.home / "two" / "odd").exists()


def test_an_error_of_rank_0_is_raised_on_every_rank(tmp_path: Path):
    script = tmp_path / "share.py"
    script.write_text(SHARE)
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    words = [str(script), str(tmp_path)]
    done = zygote.ranks(words, home=tmp_path, env=environment, timeout=100, processes=2)
    assert done.returncode == 0, done.stderr
    said = [(tmp_path / f"rank{rank}.txt").read_text() for rank in range(2)]
    wanted = "log.parquet: no such file\n  fix: write it"
    assert said == [f"{wanted} | ZeroDivisionError", f"{wanted} | StageError"]
