"""G1, G2: a student's training, BPR with one negative a positive, d=64: positives a second, sampling included."""

from __future__ import annotations

from benchmarks.goals import Row, compare, missing
from benchmarks.setting import OURS, Setting
from benchmarks.timing import interleaved
from benchmarks.workers import Crew

BATCHES, DIM = (2048, 8192), 64
POSITIVES = 400_000  # of a round
SLOW = 4  # how much less the slow ones do
MODEL = {"space": "dot", "temperature": 1.0}
GIVEN, DRAWS = "bare TorchRec, batches given", "bare TorchRec, draws its own"
PEERS = {  # who our training is compared with -> goal, must, aim
    "RecBole BPR": ("G1", 5.0, 8.0),
    "torch, dense Adam": ("G1", None, None),
    "torch, fused Adam": ("G1", None, None),
    "torch, sparse Adagrad": ("G1", None, None),
    "implicit BPR": ("G1", None, None),
    "lightfm BPR": ("G1", None, None),
    "lightfm-next BPR": ("G1", None, None),
    GIVEN: ("G2", 0.9, 1.3),
    DRAWS: ("G2", 0.9, 1.3),
}


def rows(setting: Setting) -> list[Row]:
    found = []
    batches = BATCHES[-1:] if setting.quick else BATCHES
    for batch in batches:
        with setting.crew(f"training {batch}") as crew:
            _hire(crew, setting, batch, alone=batch == batches[0])
            crew.need("ours")
            found += _measured(crew, setting, batch)
    return found


def settings(batch: int) -> dict[str, object]:
    """Return our student's training, as a configuration has it."""
    return {"batch": batch, "loss": "bpr", "negatives": 1, "lr": 0.05}


def _hire(crew: Crew, setting: Setting, batch: int, *, alone: bool) -> None:
    """Start the peers; those that have no batches stand `alone` beside one of ours."""
    steps = max(SLOW, setting.share(POSITIVES) // batch)
    asked = {"data": setting.log, "dim": DIM, "batch": batch}
    few = steps // SLOW
    crew.add("ours", OURS, "train", data=setting.log, dim=DIM, steps=steps, model=MODEL, train=settings(batch))
    crew.add("RecBole BPR", "with_recbole.py", "train", python=setting.python("recbole"), steps=few, **asked)
    crew.add("torch, dense Adam", "plain_torch.py", "train", optimizer="dense adam", steps=few, **asked)
    crew.add("torch, fused Adam", "plain_torch.py", "train", optimizer="fused adam", steps=steps, **asked)
    crew.add("torch, sparse Adagrad", "plain_torch.py", "train", optimizer="sparse adagrad", steps=steps, **asked)
    crew.add(GIVEN, "bare_torchrec.py", "train", given=True, steps=steps, **asked)
    crew.add(DRAWS, "bare_torchrec.py", "train", given=False, steps=steps, **asked)
    if alone:
        log = {"data": setting.log, "dim": DIM}
        crew.add("implicit BPR", "with_implicit.py", "bpr", python=setting.python("implicit"), epochs=2, **log)
        for name in ("lightfm", "lightfm-next"):
            crew.add(f"{name} BPR", "with_lightfm.py", "bpr", python=setting.python(name), epochs=1, **log)


def _measured(crew: Crew, setting: Setting, batch: int) -> list[Row]:
    timed = interleaved(crew.workers, setting.rounds)
    found = []
    for peer, (goal, must, aim) in PEERS.items():
        what = f"training, B={batch}"
        if peer in crew.failed:
            found.append(missing(goal, what, peer, crew.failed[peer]))
        elif peer in timed:
            about = crew.workers[peer].about
            found.append(compare(timed, goal, what, "ours", peer, must=must, aim=aim, unit="positives", about=about))
    return found
