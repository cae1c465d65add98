"""The command that reads what a run measured of ways to serve: which is the cheapest that keeps the limits."""

from __future__ import annotations

import json as json_
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipelines.commands import File, Method, Sets
from pipelines.console import Json, say
from pipelines.serving_files import CONFIG, INDEX, write
from recdistill.errors import ArtifactError, ConfigError, GateRejected

if TYPE_CHECKING:
    from recdistill.config import Config
    from recdistill.surface_form import Point
    from recdistill.types import Artifact
    from recdistill.yamlfile import Document

Bound = Annotated[float | None, Parameter(show_default=False)]
UNSEEN = "what users took was left out: ask with exclude_seen, and give histories or set index.histories: whole"
TUNED = ("width", "params", "min_recall")  # of the section index, beside factory: what a plan settles


def plan_serving(
    config: File,
    /,
    *,
    p50_ms: Bound = None,
    p95_ms: Bound = None,
    p99_ms: Bound = None,
    memory_mb: Bound = None,
    min_ndcg: Bound = None,
    min_ndcg_of_teacher: Bound = None,
    min_quality: Bound = None,
    min_quality_of_teacher: Bound = None,
    min_recall: Bound = None,
    out: Path | None = None,
    method: Method = None,
    sets: Sets = (),
    json: Json = False,
) -> int:
    """Pick the cheapest measured way to serve that keeps every limit; say which limit binds, and what moving it buys.

    Reads the surface that the run of the same CONFIG, --method and --set has measured; at least one limit is needed.
    Cheapest is what holds the fewest bytes; of equals, the lowest p95; of equals, the highest quality. Quality is
    compared by its mean, as gates compare it. Exit code 4 where nothing keeps every limit.

    Parameters
    ----------
    p50_ms
        The largest median time of a whole answer, one query at a time.
    p95_ms
        The largest 95th percentile.
    p99_ms
        The largest 99th percentile.
    memory_mb
        The most that a server may hold for it, the index and the query encoder, in 10^6 bytes.
    min_ndcg
        The least NDCG, as the surface measured it on held-out users.
    min_ndcg_of_teacher
        The least share of the teacher's NDCG.
    min_quality
        The least quality, whatever metric the surface was measured by.
    min_quality_of_teacher
        The least share of the teacher's.
    min_recall
        The least recall against exact search of the same width.
    out
        A directory for the index, the configuration that makes it, and the plan.
    """
    given = {"--p50-ms": p50_ms, "--p95-ms": p95_ms, "--p99-ms": p99_ms, "--memory-mb": memory_mb}
    given |= {"--min-ndcg": min_ndcg, "--min-ndcg-of-teacher": min_ndcg_of_teacher}
    given |= {"--min-quality": min_quality, "--min-quality-of-teacher": min_quality_of_teacher}
    given |= {"--min-recall": min_recall}
    asked = {name: bound for name, bound in given.items() if bound is not None}
    data, said = planned(config, asked, out=out, method=method, sets=sets)
    say(data, "\n".join(said), as_json=json)
    return 0 if data["picked"] is not None else GateRejected.exit_code


def planned(
    config: Path, asked: Mapping[str, float], *, out: Path | None, method: str | None, sets: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the plan of the limits `asked`, by name, as JSON values and as lines; left in `out` if that is given."""
    from recdistill.config import load_config
    from recdistill.serving_limits import limits
    from recdistill.serving_plan import plan
    from recdistill.serving_words import as_json, lines
    from recdistill.surface_form import read_surface

    found = load_config(config, sets, method)
    made = surface_of(found, config)
    surface = read_surface(made.path)
    chosen = plan(surface.points, limits(surface, asked))
    data, said = as_json(chosen, surface), lines(chosen, surface)
    data |= {"surface": str(made.path), "out": None, "index": None, "set": None, "command": None}
    if chosen.picked is None:
        return data, said
    document = _document(config, method, sets)
    section = index_section(document.data.get("index") or {}, chosen.picked, found.student.model.dim)
    kept = [text for text in sets if text.split("=")[0].split(".")[0] != "index"]
    setting = f"index={json_.dumps(section)}"
    data |= {"index": section, "set": setting, "command": _command(config, method, [*kept, setting])}
    if out is not None:
        data |= {"out": str(out), "command": _command(out / CONFIG, method, kept)}
        left = write(out, made, chosen.picked, data, served_config(config, found, section, kept, method))
        said.append(f"wrote {out}: {', '.join(left)}")
        if INDEX not in left:
            said.append("the surface kept no index of it: the run below makes it")
    if found.index.histories != "whole":
        said.append(UNSEEN)
    said.append(f"serve it by: {data['command']}")
    return data | {"text": said}, said


def surface_of(config: Config, file: Path) -> Artifact:
    """Return the surface that the run of `config` left; raises ConfigError or ArtifactError that say how to get one."""
    from pipelines import distill
    from recdistill.store import open_artifact

    row = next((row for row in distill.plan(config) if row["stage"] == "surface"), None)
    if row is None:
        fix = "add `surface: {}` to it, then `recdistill run` it: every way to serve the student is measured"
        raise ConfigError("this configuration measures no ways to serve", where=str(file), fix=fix)
    if row["state"] != "hit":
        fix = f"`recdistill run {file} --until surface` with the same --method and --set first"
        raise ArtifactError("this run has not measured its ways to serve yet", where=str(row["path"]), fix=fix)
    return open_artifact(Path(row["path"]))


def index_section(before: Mapping[str, Any], point: Point, dim: int) -> dict[str, Any]:
    """Return the section `index` that makes `point` of a student of `dim` numbers, on top of what it was before."""
    gone = TUNED if point.params else ("width", "params")  # an index without parameters has none to fix
    kept = {key: value for key, value in before.items() if key not in gone}
    found = kept | {"factory": point.factory}
    found |= {"width": point.width} if point.width != dim else {}
    return found | ({"params": point.params} if point.params else {})


def served_config(
    file: Path, config: Config, section: Mapping[str, Any], sets: Sequence[str], method: str | None
) -> str:
    """Return the user's file with `section` as its index: comments and order stay, and the rest means what it meant."""
    import tempfile

    from recdistill.config import load_config
    from recdistill.yamledit import with_section

    text = with_section(file.read_text(encoding="utf-8-sig"), "index", section)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_text(text, encoding="utf-8")
        again = load_config(copy, sets, method)
    if again.model_dump(exclude={"index"}) != config.model_dump(exclude={"index"}):
        what = "the configuration of the plan means something else than this one"
        raise ConfigError(what, where=str(file), fix="write its index by hand: the command's --set line says it")
    return text


def _document(config: Path, method: str | None, sets: Sequence[str]) -> Document:
    """Return what the file says, with the method and the settings on top of it."""
    from recdistill.methods import find, read_method
    from recdistill.yamlfile import apply_sets, load_yaml, overlay

    document = load_yaml(config)
    if method is not None:
        document = overlay(document, read_method(find(method)), ("set",))
    return apply_sets(document, sets)


def _command(config: Path, method: str | None, sets: Sequence[str]) -> str:
    words = ["recdistill", "run", str(config), *(["--method", method] if method else [])]
    return shlex.join([*words, *(word for text in sets for word in ("--set", text))])
