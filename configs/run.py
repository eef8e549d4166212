"""A run from demonstrations to report, as one configuration; the YAML files in `runs/` are named runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from configs.collect import CollectConfig
from configs.dagger import DaggerConfig
from configs.evaluation import EvalConfig
from configs.names import unknown
from configs.policy import PolicyConfig
from configs.reinforcement import FinetuneConfig, RLConfig
from configs.training import TrainConfig

FOLDER = Path(__file__).parent / "runs"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything about one run.

    Args:
        tasks: tasks to demonstrate and to train on, each with a dataset of its own.
        collect: demonstrations of each task.
        policy: the network.
        train: behaviour cloning.
        eval: evaluation.
        dagger: rounds in which the policy acts and the expert labels.
        rl: an expert learned by reinforcement.
        finetune: a cloned policy that goes on by reinforcement.
    """

    tasks: tuple[str, ...] = ("track",)
    collect: CollectConfig = field(default_factory=CollectConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    dagger: DaggerConfig = field(default_factory=DaggerConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks is empty; name at least one, for example track")
        chunk, execute = self.policy.head.chunk, self.eval.runner.execute
        if execute > chunk:
            raise ValueError(
                f"eval.runner.execute {execute} exceeds policy.head.chunk {chunk}: no more steps can be executed "
                f"than are predicted"
            )


def named_runs() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_run(name: str) -> Path:
    """The YAML file of a named run, or of a path.

    Raises:
        ValueError: there is neither; the message names the nearest run.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ValueError(f"config {name!r}: no such file; give a YAML file or one of {', '.join(named_runs())}")
    if name in named_runs():
        return FOLDER / f"{name}.yaml"
    raise unknown("config", name, named_runs(), f"give a YAML file or one of {', '.join(named_runs())}")
