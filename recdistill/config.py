"""The whole configuration: the sections put together, and one file read into it with every problem named at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from recdistill.ann import IndexSpec
from recdistill.checks import checks
from recdistill.daily_spec import DailySpec
from recdistill.data.features import FeaturesSpec
from recdistill.data.log import LogSpec
from recdistill.data.split import GlobalTime, SplitSpec
from recdistill.deferral import DeferSpec
from recdistill.distill.spec import LabelsSpec, TermSpec
from recdistill.errors import ConfigError, Problem
from recdistill.explain import validate
from recdistill.latency_spec import LatencySpec
from recdistill.methods import find, read_method
from recdistill.models.placement import Placement
from recdistill.models.recipe import TeacherSpec
from recdistill.models.spec import StudentSpec
from recdistill.placing_spec import CacheSpec, TablesSpec, TopologySpec
from recdistill.registry import RegistrySpec
from recdistill.report import ReportSpec
from recdistill.spec import Spec
from recdistill.surface.spec import SurfaceSpec
from recdistill.yamlfile import apply_sets, dotted, load_yaml, overlay
from recdistill.yesterday_spec import YesterdaySpec


class ExecSpec(Spec):
    """How the stages run, never what they mean: none of it changes a fingerprint."""

    store: str = "runs/store"
    """Directory that holds every stage's artifacts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    tables: TablesSpec = "auto"
    """How embedding tables are laid over the ranks: a word for all, or one for each of `user` and `item`."""
    topology: TopologySpec = TopologySpec()
    """The memory that tables may be laid in; what is left out is measured."""
    cache: CacheSpec | None = None
    """Keep tables in the host's memory, and this of them on the GPU; left out, the planner decides."""
    threads: PositiveInt | None = None
    """CPU threads torch uses in each process; left out, torch decides."""
    mlflow: str | None = None
    """Tracking and registry URI; left out, an SQLite file beside the store."""
    checkpoint_every: PositiveInt = 500
    """Steps between two checkpoints of a model in training."""
    prefetch: NonNegativeInt = 0
    """Batches that a thread draws, and brings to the GPU, ahead of the step; a student whose draws follow what it has
    learned by then draws none ahead."""

    def placement(self, batch: int) -> Placement:
        """Return what the planner of a training with such batches is told."""
        share = None if self.cache is None else self.cache.load_factor
        return Placement(self.tables, hbm=self.topology.hbm, ddr=self.topology.ddr, cache=share, batch=batch)

    @property
    def tracking_uri(self) -> str:
        return self.mlflow or f"sqlite:///{Path(self.store).parent / 'mlflow.db'}"


class Config(Spec):
    """One run, from a log to a registered student."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)]
    """Names the MLflow experiment and the report: lower-case letters, digits, dots, dashes, underscores."""
    log: LogSpec
    features: FeaturesSpec | None = None
    split: SplitSpec = GlobalTime()
    teacher: TeacherSpec
    labels: LabelsSpec = LabelsSpec()
    student: StudentSpec
    distill: tuple[TermSpec, ...] = ()
    """What the student learns from the labels; the scratch twin learns the same without it."""
    yesterday: Annotated[YesterdaySpec | None, Field(exclude_if=lambda day: day is None)] = None
    """The day before: what a refresh changed is reported, and the student may move on from where it was."""
    daily: Annotated[DailySpec | None, Field(exclude_if=lambda daily: daily is None)] = None
    """A run of every night, `run --partition 2026-11-20`: which days it reads, and where its trainings begin."""
    index: IndexSpec = IndexSpec()
    surface: SurfaceSpec | None = Field(default=None, exclude_if=lambda spec: spec is None)
    """Measure quality, milliseconds and bytes of every way to serve the student; left out, of `index` alone."""
    defer: DeferSpec | None = Field(default=None, exclude_if=lambda spec: spec is None)
    """For a share of the users the served student may ask its teacher; left out, it never does."""
    report: ReportSpec = ReportSpec()
    latency: LatencySpec = Field(default=LatencySpec(), exclude_if=lambda spec: spec == LatencySpec())
    """How service times are measured."""
    registry: RegistrySpec | None = None
    exec: ExecSpec = ExecSpec()


def load_config(path: Path, overrides: Sequence[str] = (), method: str | Path | None = None) -> Config:
    """Read `path`, on top of it what the preset `method` sets, and then the `a.b=value` settings of `overrides`.

    `method` is a preset's name or its file. A relative path inside the file is meant from the current directory.
    Raises ConfigError with every problem, each as `file:line:col: dotted.path: reason`.
    """
    document = load_yaml(path)
    if method is not None:
        document = overlay(document, read_method(find(str(method))), ("set",))
    document = apply_sets(document, overrides)
    config = validate(Config, document)
    found = [Problem(document.where(at), dotted(at), reason) for at, reason in checks(config)]
    if found:
        raise ConfigError(found)
    return config


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema that editors check and complete configuration files with."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
