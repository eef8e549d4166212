"""The commands of `vla`: what each is for, where it is, and what an interrupt leaves behind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Command:
    """`run` is "module:function" of a function that takes the arguments and returns the exit code. `space` is the
    address space in GB without which the libraries that it loads do not start, and may end the process without a word.
    """

    run: str
    purpose: str
    kept: str = ""
    space: float = 2.0


COMMANDS: dict[str, Command] = {
    "demo": Command(
        run="eval.commands:demo",
        purpose="the whole way for one named run: demonstrations, training, evaluation, videos, report",
        kept="what was collected and trained is kept, and the same command goes on from there",
    ),
    "collect": Command(
        run="training.commands:collect",
        purpose="record demonstrations of the scripted experts",
        kept="finished shards are kept, and the same command goes on from there",
    ),
    "data": Command(
        run="training.data.commands:data",
        purpose="datasets as other tools keep them: export to and import from LeRobot's format",
        kept="an import goes on from its whole episodes with the same command, an export begins anew",
    ),
    "train": Command(
        run="training.commands:train",
        purpose="train a policy on recorded demonstrations",
        kept="where a state was saved, --resume goes on from it",
    ),
    "eval": Command(
        run="eval.commands:evaluate",
        purpose="success rates with intervals on unseen seeds, with controls, as JSON, table and HTML report",
        kept="conditions that were finished are kept, and the same command with its --out goes on from there",
    ),
    "compare": Command(
        run="eval.compare.run:compare",
        purpose="train and judge many policies on the same data and seeds, as one table and HTML report",
        kept="finished rows and saved states are kept, and the same command goes on from there",
    ),
    "dagger": Command(
        run="eval.dagger:dagger",
        purpose="let the policy act and the expert label what it visits, in rounds of which each trains on",
        kept="finished shards and rounds and saved states are kept, and --resume goes on from there",
    ),
    "rl": Command(
        run="training.reinforcement.commands:rl",
        purpose="learn an expert by soft actor-critic from a task's state and dense reward",
        kept="the best expert is kept; where a state was saved, --resume goes on from it",
    ),
    "finetune": Command(
        run="training.reinforcement.commands:finetune",
        purpose="let a cloned policy go on by proximal policy optimisation, anchored to what it was",
        kept="the best policy is kept; where a state was saved, --resume goes on from it",
    ),
    "import": Command(run="training.commands:import_", purpose="make a checkpoint from a published one of TubeDETR"),
    "rollout": Command(run="eval.commands:rollout", purpose="one episode as a video"),
    "ground": Command(
        run="eval.commands:ground",
        purpose="where and when a video shows what the words mean: boxes and interval, as a video and JSON",
    ),
    "export": Command(
        run="eval.export:export",
        purpose="write a policy as files that ONNX Runtime, OpenVINO or torch.export run",
    ),
    "serve": Command(
        run="vla_policy.server.commands:serve",
        purpose="a policy behind a WebSocket, for many robots at once",
    ),
    "push": Command(
        run="eval.push:push",
        purpose="publish a checkpoint on the Hugging Face Hub, with a model card from its results and its making",
    ),
    "play": Command(
        run="eval.play.commands:play",
        purpose="a live page: say something and watch the arm obey, in 3D and in a browser",
    ),
    "tasks": Command(run="envs.commands:tasks", purpose="list the tasks with an example instruction each", space=0.5),
    "bench": Command(
        run="eval.commands:bench",
        purpose="speed of collection and data pipeline as ratios taken side by side, and the experts' success",
    ),
    "doctor": Command(
        run="eval.doctor:main", purpose="look for what is missing or slow on this machine, and say what to do"
    ),
}
