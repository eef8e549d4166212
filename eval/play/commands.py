"""`vla play`."""

from __future__ import annotations

import threading
from dataclasses import fields

from configs.options import parse, plain_parser
from configs.play import PlayConfig
from envs.task import find_task, use_task_modules

FIRST = "track"  # the task to begin with, if the policy can do it: things move there

MISSING = "`vla play` needs viser and mjviser; run: pip install 'vla_policy[play]'"


def play(arguments: list[str]) -> int:
    """Serve the page until somebody interrupts, or the time is over."""
    parser = plain_parser("play", "Policies that ship can be chosen on the page, too.")
    parser.add_argument(
        "checkpoints", type=str, nargs="*", help="checkpoint folders or names of policies that ship; the first one acts"
    )
    parser.add_argument("--task", type=str, default="", help="task to begin with; one of the policy's if left out")
    parser.add_argument("--instruction", type=str, default="", help="what to say at the beginning")
    parser.add_argument("--seed", type=int, default=0, help="test seed of the first scene")
    parser.add_class_arguments(PlayConfig, as_group=False, fail_untyped=True)
    parsed = parse(parser, arguments)
    use_task_modules(filter(None, [parsed.task_module]))
    config = PlayConfig(**{item.name: getattr(parsed, item.name) for item in fields(PlayConfig)})
    try:
        import mjviser  # noqa: F401 - only to see whether it is there
        import viser  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from None
    from configs.seeds import split_seed
    from eval.acting import one_thread
    from eval.play.policies import EXPERT, Policies
    from eval.play.server import PlayServer
    from eval.play.stage import Stage

    split_seed("test", parsed.seed)
    policies = Policies(parsed.checkpoints or ["default"])
    who = policies.names[0]
    tasks = policies.load(who).purpose.tasks
    task = find_task(parsed.task or (FIRST if FIRST in tasks else tasks[0])).name
    acts = policies.for_task(task, who)
    with one_thread():
        Stage(policies, config.picture).check(task, acts, parsed.instruction)
        with PlayServer(policies, config, task=task, who=who, seed=parsed.seed, words=parsed.instruction) as server:
            acting = "the task's expert, as no policy here was trained on it" if acts == EXPERT else acts
            print(f"{task}, done by {acting}\nopen {server.address} in a browser; Ctrl+C ends it", flush=True)
            try:
                threading.Event().wait(config.seconds or None)
            except KeyboardInterrupt:
                print("closing", flush=True)
    return 0
