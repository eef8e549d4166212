"""How policies act when they are judged: in a full group and on one thread, so that a seed decides an outcome; and
only in tasks whose robot is theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from configs.interface import check_policy_serves
from envs.actors import ExpertActor, RandomActor, RepeatingActor
from envs.contract import check_contract
from envs.rollout import Actor
from envs.task import Env, TaskSpec, make_task
from eval.controls import Condition
from vla_policy.checkpoint import Checkpoint
from vla_policy.runner import PolicyActor, PolicyRunner

GROUP = 10  # episodes side by side


@contextmanager
def of_threads(count: int) -> Iterator[None]:
    """PyTorch computes on so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """Sums come out differently for another number of threads: whoever wants the same episode again takes one."""
    return of_threads(1)


def seconds_per_call(call: Callable[[], object], *, calls: int, warm_up: int = 5) -> list[float]:
    """How long each of so many calls takes on one thread, after some that do not count: the first are slower."""
    times = []
    with one_thread():
        for _ in range(warm_up + calls):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return times[warm_up:]


def make_actor(condition: Condition, runner: PolicyRunner, spec: TaskSpec) -> Actor:
    """Who acts under a condition."""
    if condition.actor == "expert":
        return ExpertActor(spec.make_expert())
    if condition.actor == "random":
        return RandomActor()
    policy = PolicyActor(runner, frozen=condition.pictures == "frozen")
    return RepeatingActor(policy) if condition.actor == "previous_action" else policy


def make_task_for(checkpoint: Checkpoint, spec: TaskSpec) -> Env:
    """The environment of a task as this policy sees it, with labels, held against its description once. What nobody
    looks at is not drawn, in tasks that can.

    Raises:
        ValueError: the policy was trained on another robot, or the task cannot be made or breaks the contract.
    """
    policy, trained_on = checkpoint.policy, ", ".join(checkpoint.purpose.tasks)
    check_policy_serves(checkpoint.interface, spec.interface, spec.name, trained_on)
    env = make_task(spec, cameras=policy.config.cameras, size=policy.shapes.size, on_demand=True)
    try:
        check_contract(env, spec, policy.config.cameras, policy.shapes.size)
    except BaseException:
        env.close()
        raise
    return env
