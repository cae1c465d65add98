"""The commands around a run: doctor, import, synth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.console import Json, say, table


def doctor(*, json: Json = False) -> int:
    """Say what is installed, whether it fits together, what this machine offers, and what to do if not; exit 1 then."""
    from pipelines.doctor import examine

    checks = examine(Path.cwd())
    failed = [c for c in checks if c.state == "fail"]
    todo = [f"{c.name}: {c.todo}" for c in checks if c.todo]
    verdict = f"{len(failed)} of {len(checks)} checks fail" if failed else "fit to run"
    text = table([(c.state, c.name, c.value) for c in checks], ("", "what", "value"))
    text += "".join(f"\n  {line}" for line in ["", *todo][: 1 + len(todo)] if todo) + f"\n{verdict}"
    say({"ok": not failed, "checks": [dataclasses.asdict(c) for c in checks]}, text, as_json=json)
    return 1 if failed else 0


def import_(kind: str, source: Path, out: Path, /, *, json: Json = False) -> int:
    """Turn a public data set, as downloaded, into Parquet files that a configuration can name.

    Parameters
    ----------
    kind
        Which data set; an unknown one lists those that are known.
    source
        The downloaded file or directory.
    out
        The directory to make.
    """
    from recdistill.data.public import import_public

    tables = import_public(kind, source, out)
    facts = {f"{name}.parquet": f"{t['rows']} rows: {', '.join(t['columns'])}" for name, t in tables.items()}
    return _written(out, facts, json)


def synth(
    out: Path,
    /,
    *,
    users: int = 2000,
    items: int = 1500,
    events_per_user: int = 40,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Write a made-up log and its features, with tastes planted in them that a model can learn.

    Parameters
    ----------
    out
        The directory to make.
    users
        How many users.
    items
        How many items.
    events_per_user
        Interactions of each user, on average.
    seed
        The same seed gives the same bytes.
    """
    from recdistill.data.synth import synthesize

    facts = synthesize(out, users=users, items=items, events_per_user=events_per_user, seed=seed)
    return _written(out, facts, json)


def _written(out: Path, facts: Mapping[str, Any], as_json: bool) -> int:
    say({"out": str(out), **facts}, f"wrote {out}\n{table(facts.items(), ('what', 'value'))}", as_json=as_json)
    return 0
