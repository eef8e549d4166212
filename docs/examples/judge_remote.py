"""Judge a policy that `vla serve` serves, in the scenes of `vla eval`:

vla serve default &
python docs/examples/judge_remote.py ws://127.0.0.1:8000 track 20
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from configs.interface import check_policy_serves
from configs.seeds import split_seed
from envs.rollout import run
from envs.task import find_task, make_task
from vla_policy.server.client import RemoteActor, RemoteError, RemotePolicy

ROWS = 10  # episodes side by side


def judge(address: str, task: str, episodes: int) -> list[bool]:
    """Whether the policy succeeds, by test seed.

    Raises:
        ValueError: there is no such task, or it is not the policy's.
        RemoteError: the server is not there, or refuses.
    """
    spec, outcomes = find_task(task), []
    with ExitStack() as opened:
        rows = range(min(ROWS, episodes))
        policies = [opened.enter_context(RemotePolicy(address)) for _ in rows]
        about = policies[0].metadata
        check_policy_serves(policies[0].interface, spec.interface, task, ", ".join(about["tasks"]))
        size, cameras = about["picture"][0], tuple(about["cameras"])
        envs = [make_task(task, cameras=cameras, size=size, labels=False, on_demand=True) for _ in rows]
        for env in envs:
            opened.callback(env.close)
        actor = RemoteActor(policies)
        for start in range(0, episodes, len(rows)):
            seeds = [split_seed("test", start + row) if start + row < episodes else None for row in rows]
            worlds = run(envs, seeds, actor, action_names=spec.action_names)
            outcomes += [bool(world.info["is_success"]) for world in worlds]
    return outcomes


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdigit() or sys.argv[3] == "0":
        sys.exit("usage: python docs/examples/judge_remote.py ADDRESS TASK EPISODES")
    try:
        successes = judge(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except (ValueError, RemoteError) as error:
        sys.exit(f"judge_remote: {error}")
    print(f"{sys.argv[2]}: {sum(successes)} of {len(successes)} episodes are a success")
