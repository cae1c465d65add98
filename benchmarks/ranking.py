"""G4: full-ranking evaluation: every test user's best 20 of the catalogue, train masked, NDCG@20 of them."""

from __future__ import annotations

from benchmarks.goals import Row, compare, missing
from benchmarks.setting import OURS, Setting
from benchmarks.timing import interleaved

PEERS = {  # must and aim; of the bare product, that is the share of its speed that is reached
    "RecBole, tuned": (4.0, None),
    "torch: mm, mask, top-k": (2.0, None),
    "implicit": (None, None),
    "sgemm of 1,024 users at once": (0.67, 0.75),
}
SAME = 2e-3  # how far an NDCG may be from ours: ties, and sums in another order


def rows(setting: Setting) -> list[Row]:
    asked = {"data": setting.log, "vectors": setting.vectors}
    with setting.crew("ranking") as crew:
        crew.add("ours", OURS, "evaluate", **asked)
        recbole, implicit = setting.python("recbole"), setting.python("implicit")
        crew.add("RecBole, tuned", "with_recbole.py", "evaluate", python=recbole, dim=64, **asked)
        crew.add("torch: mm, mask, top-k", "plain_torch.py", "evaluate", **asked)
        crew.add("implicit", "with_implicit.py", "evaluate", python=implicit, **asked)
        crew.add("sgemm of 1,024 users at once", "plain_torch.py", "bare", **asked)
        crew.need("ours")
        timed = interleaved(crew.workers, 3)
        ours = crew.asked("ours")["ndcg"]
        found = []
        for peer, (must, aim) in PEERS.items():
            if peer in crew.failed:
                found.append(missing("G4", "evaluation", peer, crew.failed[peer]))
                continue
            about = crew.asked(peer) | {"ours_ndcg": ours}
            other = abs(about.get("ndcg", ours) - ours) > SAME
            if other:
                found.append(missing("G4", "evaluation", peer, f"NDCG@20 is {about['ndcg']:.4f}, ours {ours:.4f}"))
            found.append(
                compare(timed, "G4", "evaluation", "ours", peer, must=must, aim=aim, unit="users", about=about)
            )
    return found
