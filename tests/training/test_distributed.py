"""Training in several processes, as `torchrun` starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.data.episodes import Dataset
from training.log import read_log
from vla_policy.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
WriteSmall = Callable[..., Dataset]

SCRIPT = """
import hashlib, json, math, os, signal, sys
from dataclasses import replace
from pathlib import Path
from training.data.episodes import open_dataset
from training import bc
from vla_policy import cli
from configs.training import TrainConfig
from configs.decode import decode
from configs.policy import PolicyConfig

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
policy_config = decode(PolicyConfig, json.loads((folder / "policy.json").read_text()))
config = decode(TrainConfig, json.loads((folder / "train.json").read_text()))
data = [open_dataset(folder / "small")]
found, policies, drawn, at = {}, [], [], {}
make_optimizer, draw_batch = bc.make_optimizer, bc.draw_batch

def keep(policy, config):
    policies.append(policy)
    return make_optimizer(policy, config)

def watch(sampler, config, step, *args, **options):
    batch = draw_batch(sampler, config, step, *args, **options)
    drawn.append(hashlib.sha256(batch.observation.frames.contiguous().numpy().tobytes()).hexdigest())
    if rank == 1 and step == at.get("stop"):
        os.kill(os.getpid(), signal.SIGTERM)
    if rank == 1 and step == at.get("poison"):
        batch.action[0, 0, 0] = math.nan
    return batch

def digest():
    together = hashlib.sha256()
    for name, value in policies[-1].state_dict().items():
        together.update(value.numpy().tobytes())
    return together.hexdigest()

def run(name, **options):
    told = []
    result = bc.train(policy_config, config, data, folder / name, on_progress=lambda *a: told.append(a[0]), **options)
    found[name + ("-resumed" if options else "")] = {
        "step": result.step, "interrupted": result.interrupted, "weights": digest(), "told": told}

bc.make_optimizer, bc.draw_batch = keep, watch
run("whole")
at["stop"] = 4
run("parts")
at.clear()
run("parts", resume=True)
at["poison"] = 2
try:
    run("poisoned")
except bc.TrainingError as error:
    found["error"] = str(error)
found["drawn"] = drawn[:3]
at.clear()
found["code"] = cli.main(["train", *sys.argv[2:]])
(folder / f"rank{rank}.json").write_text(json.dumps(found))
"""


def torchrun(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "OMP_"))},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command]
    return subprocess.run(launch, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(
        steps=8, batch=8, warmup=2, threads=1, device="cpu", log_every=4, save_every=3, holdout=0.25, seed=1
    )


def test_two_processes_train_one_policy(
    write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
) -> None:
    write_small()
    write_small("data/track", size=64)
    (tmp_path / "policy.json").write_text(json.dumps(asdict(policy_config)))
    (tmp_path / "train.json").write_text(json.dumps(asdict(config)))
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = {
        "--config": "debug",
        "--data": str(tmp_path / "data"),
        "--out": str(tmp_path / "run"),
        "--train.steps": "4",
        "--train.threads": "1",
        "--policy.width": "16",
        "--policy.attention_heads": "2",
        "--policy.encoder.backbone.channels": "8",
    }
    done = torchrun(tmp_path, "script.py", str(tmp_path), *[word for pair in arguments.items() for word in pair])
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))

    # Different samples, the same weights.
    assert len(set(one["drawn"] + two["drawn"])) == 6
    for name in ("whole", "parts", "parts-resumed"):
        assert one[name]["weights"] == two[name]["weights"], name

    # A signal that reaches one process stops both after the same step; what is resumed ends as if nothing had been.
    assert one["parts"]["interrupted"]
    assert two["parts"]["interrupted"]
    assert one["parts"]["step"] == two["parts"]["step"] == 5
    assert one["parts"]["weights"] != one["whole"]["weights"]
    assert one["parts-resumed"]["weights"] == one["whole"]["weights"]

    # A loss that is not finite in one process stops both before the update.
    assert one["error"].startswith("step 2: the loss of another process is not finite; nothing was updated")
    assert two["error"].startswith("step 2: the loss is nan; nothing was updated")

    # Only the first process reports and writes.
    assert one["whole"]["told"] == list(range(1, 9))
    assert two["whole"]["told"] == []
    assert [row["step"] for row in read_log(tmp_path / "whole")] == [4, 8]
    assert len(list((tmp_path / "whole" / "tensorboard").iterdir())) == 1
    first, second = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())

    # The command does it, too.
    assert one["code"] == two["code"] == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint").provenance["steps"] == 4
    assert not (tmp_path / "run" / "state").exists()
