"""Every night in Dagster: an asset a stage, a partition a day, and the gates as checks that stand before the promotion.

The scheduler's environment needs Dagster and nothing of torch, Polars or MLflow: each asset is a process of the
environment that `launch` names, which is told what to do and says what came of it through Dagster Pipes
(`pipelines.daily_pipe`). What runs is `recdistill run CONFIG --partition DAY --until STAGE`, so an asset that is made
again finds the stages before it done, and a night that cron began may be ended here.
"""

# No postponed annotations here: Dagster looks at what the `context` of an asset is annotated with as it stands.
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import dagster as dg
except ImportError as cause:
    raise ImportError(f"Dagster is not installed ({cause})\n  fix: pip install 'recdistill[dagster]'") from cause

ALARMS = "alarms"  # the only check that stops nothing
PROMOTION = "recdistill_promotion"  # the pool that dagster.yaml limits to one
DONE = (0, 6)  # exit codes: done, done with an alarm
AGAIN = 1  # the only exit code that starting again can mend
RETRIES = dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One asset: the stage that its process goes to, and the checks that tell of it."""

    name: str
    until: str  # as `recdistill run --until` takes it
    what: str
    checks: tuple[tuple[str, str], ...] = ()


STEPS = (
    Step(
        name="data",
        until="split",
        what="The days of the window as dense rows, cut into what is learned from and what is held out.",
        checks=(("contract", "The log has rows of the day, and they and the split are as they should be."),),
    ),
    Step(name="teacher", until="teacher", what="The student trained without a teacher, and the teacher."),
    Step(name="labels", until="labels", what="The teacher's lists and scores for every user."),
    Step(name="student", until="student", what="The student, distilled."),
    Step(name="index", until="index", what="The student's bundle: its query side, and the index of its items."),
    Step(name="evaluation", until="evaluate", what="The quality of all models on what was held out."),
    Step(name="latency", until="surface", what="How long answers take, and what else is measured of them."),
    Step(
        name="verdict",
        until="judge",
        what="The report, and the student as a registered version with the verdict of its gates; nothing is promoted.",
        checks=(
            ("quality_gates", "The gates of everything but time: quality, the index, and what else is judged."),
            ("latency_gates", "The gates whose names end in _ms."),
            (ALARMS, "No figure of the night lies beyond daily.alarms; one that does stops nothing."),
        ),
    ),
    Step(name="promoted", until="promote", what="The version that serves."),
)


def definitions(
    config: Path,
    *,
    first: str,
    launch: Sequence[str] = (sys.executable,),
    home: Path | None = None,
    hour: int = 3,
    minute: int = 30,
) -> dg.Definitions:
    """Return the nights of the file `config`, from the day `first` on, and a schedule that runs each after its end.

    `launch` starts a Python module where recdistill is installed: `[python]`, or `[torchrun, --nproc-per-node, 2]`.
    `home` is the directory that it works in, to which `config` and the paths in it are relative; left out, the one
    that Dagster was started in. At `hour`:`minute` UTC the night of the day before is begun.
    """
    name = re.sub(r"\W", "_", config.stem)
    days = dg.DailyPartitionsDefinition(start_date=first)
    client = dg.PipesSubprocessClient(cwd=None if home is None else str(home))
    assets = list[Any]()
    for step in STEPS:
        command = [*launch, "-m", "pipelines.daily_pipe", str(config)]
        assets.append(_asset(step, name, days, client, command, assets[-1:]))
    job = dg.define_asset_job(
        f"{name}_night",
        selection=dg.AssetSelection.groups(name),
        tags={"recdistill/nights": name},  # dagster.yaml may let one of them run at a time, in the order of their days
        description=f"The night of a day: recdistill run {config} --partition DAY",
    )
    schedule = dg.build_schedule_from_partitioned_job(job, hour_of_day=hour, minute_of_hour=minute)
    # What is heavy are processes of their own anyway; one more a step would cost as long as most steps found done.
    return dg.Definitions(assets=assets, jobs=[job], schedules=[schedule], executor=dg.in_process_executor)


def _asset(
    step: Step,
    name: str,
    days: dg.DailyPartitionsDefinition,
    client: dg.PipesSubprocessClient,
    command: Sequence[str],
    before: Sequence[dg.AssetsDefinition],
) -> dg.AssetsDefinition:
    key = dg.AssetKey([name, step.name])
    with warnings.catch_warnings():  # checks of a partition are a preview, which is why the extra ends before 1.14
        warnings.simplefilter("ignore", dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(check, asset=key, description=what, blocking=check != ALARMS, partitions_def=days)
            for check, what in step.checks
        ]

    @dg.asset(
        key=key,
        deps=list(before),
        description=step.what,
        group_name=name,
        partitions_def=days,
        check_specs=specs,
        retry_policy=RETRIES,
        pool=PROMOTION if step.until == "promote" else None,
    )
    def stage(context: dg.AssetExecutionContext) -> Iterator[Any]:
        words = [*command, context.partition_key, step.until]
        yield from _ended(client.run(context=context, command=words))

    return stage


def _ended(done: Any) -> Iterator[Any]:
    """Yield what the process reported, then fail as it did; only what starting again can mend is tried again."""
    results = list(done.get_results(implicit_materializations=False))
    yield from results
    (said,) = done.get_custom_messages()
    # A student whose gates refuse it was judged as it should be: the asset is made, and its check has failed.
    judged = any(isinstance(each, dg.MaterializeResult) for each in results)
    if said["exit_code"] not in DONE and not judged:
        raise dg.Failure(said["error"], metadata=said, allow_retries=said["exit_code"] == AGAIN)
