"""The command that labels: all of it, one machine's share of it, or its end."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipelines.commands import File, Method, Sets
from pipelines.console import Json, say
from recdistill.errors import ConfigError

if TYPE_CHECKING:
    from recdistill.config import Config
    from recdistill.types import Artifact

Flag = Annotated[bool, Parameter(negative="")]


def label(
    config: File,
    /,
    *,
    method: Method = None,
    sets: Sets = (),
    shard: str | None = None,
    finalize: Flag = False,
    json: Json = False,
) -> int:
    """Write the teacher's labels, and what comes before them; on many machines with --shard, then --finalize.

    Without options it is `run --until labels`. To share the work, first `run --until teacher` once (`--until
    scratch` if the teacher is external), then on machine i of n, at the same time, `label --shard i/n`, and at the end
    `label --finalize` once; a later `run` finds the labels done. Each of these goes on where it was stopped, by the
    same command. Machines that do not share the directory exec.store start from copies of it; gather the files
    labels-*.arrow, with their times (cp -p, rsync -t), in the directory that --shard names, and finalize there.

    Parameters
    ----------
    shard
        i/n with i from 1 to n: write the shards s with s % n == i - 1, each of labels.shard_users users.
    finalize
        Score nothing: check that every shard is there and of these very labels, and finish them.
    """
    from pipelines import distill
    from pipelines.progress import progress
    from recdistill.config import load_config
    from recdistill.shards import Share
    from recdistill.stages import Run
    from recdistill.world import world

    if shard is not None and finalize:
        fix = "finalize when every share has ended"
        raise ConfigError("--shard and --finalize exclude each other", where="usage", fix=fix)
    share = None if shard is None else Share.parse(shard)
    found = load_config(config, sets, method)
    _labelled(found, config)
    command = shlex.join(["recdistill", *sys.argv[1:]])
    with progress(json=json) as log, world(device=found.exec.device, threads=found.exec.threads) as joined:
        go = Run(store=Path(found.exec.store), world=joined, log=log, share=share, finalize=finalize)
        outcome = distill.distill(found, go, until="labels", command=command)
    labels = outcome.made[-1].artifacts[0]
    say(outcome.summary() | {"labels": _facts(labels)}, f"{_text(labels, shard)}\n{labels.path}", as_json=json)
    return 0


def _labelled(config: Config, file: Path) -> None:
    if not config.distill and config.teacher.model.kind != "external":
        fix = "add a term to distill: labels are written for what is learned from them"
        raise ConfigError("there is nothing to label: this configuration distils nothing", where=str(file), fix=fix)


def _facts(labels: Artifact) -> dict[str, Any]:
    return {"path": str(labels.path), "hit": labels.hit, **labels.manifest.facts}


def _text(labels: Artifact, shard: str | None) -> str:
    facts = labels.manifest.facts
    if shard is None or labels.hit:
        covered = "" if "coverage" not in facts else f" of {facts['coverage']['users_with_labels']} users"
        return f"labels{covered}, {'found done' if labels.hit else 'whole'}"
    left, all_ = len(facts["missing"]), facts["shards"]
    then = f"{left} of {all_} are still missing" if left else f"all {all_} are there: finish them with --finalize"
    return f"share {shard}: wrote {len(facts['written'])} shards; {then}"
