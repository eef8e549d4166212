"""How much of the training speed the data pipeline leaves: batches gathered from disk against one resident batch.

The yardstick is the training step on a batch that lies ready in memory; the other side draws a new batch for every step
as training does: gather from the memory-mapped dataset, conversion, augmentation. Both take turns step by step in one
process, and the median step counts, so that what else the machine does meets both and decides nothing.

`training_rate` is the yardstick alone, for comparing networks.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.bc import TrainStep, draw_batch, train_step
from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset, Episode, open_dataset
from training.data.writer import write_dataset
from training.device import make_accelerator, place
from training.optimizer import make_optimizer
from vla_policy.allocator import keep_freed_memory
from vla_policy.contract import fake_batch
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import TOKENIZERS

WARM_UP = 3  # steps of each side that do not count: the first are slower
EPISODE_STEPS = 100
PICTURE = 64  # pixels a side
ACTIONS = ("dx", "dy", "dz")
PLAN_STEPS = 8
PROPRIOCEPTION = 8
INSTRUCTIONS = ("follow the red ball", "stay above the small blue cube", "track the large green cylinder")


def pipeline_ratio(
    seconds: float,
    *,
    megabytes: float = 200,
    policy_config: PolicyConfig | None = None,
    config: TrainConfig | None = None,
) -> dict[str, Any]:
    """Measure the samples per second of both sides, and the pipeline's share of the yardstick.

    Args:
        seconds: how long to measure, both sides together; each gets at least one step.
        megabytes: size of the pictures in the synthetic dataset, which is written to a temporary folder.
        policy_config: the network; the default one if left out.
        config: batch size, augmentation and threads; the defaults if left out.
    """
    policy_config, config = policy_config or PolicyConfig(), config or TrainConfig()
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = make_accelerator(config)
    samples = SampleConfig(
        ages=policy_config.ages,
        chunk=policy_config.head.chunk,
        cameras=policy_config.cameras,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = synthetic_dataset(Path(folder) / "data", megabytes, policy_config.cameras)
        tokenizer = TOKENIZERS[policy_config.language.name].make(policy_config.language, data.texts)
        sampler = Sampler([data], samples, tokenizer, list(ACTIONS), relabel=config.relabel)
        torch.manual_seed(config.seed)
        policy = VLAPolicy(policy_config, sampler.shapes(len(ACTIONS), tokenizer.size)).train()
        policy.normaliser.set_statistics(*sampler.statistics())
        place(policy, accelerator.device)
        module, optimizer = TrainStep(policy), make_optimizer(policy, config)
        drawn = 0

        def step(*, resident: bool) -> float:
            nonlocal drawn
            started = time.perf_counter()
            batch = ready
            if not resident:
                batch = draw_batch(sampler, config, drawn, device=accelerator.device, unknown=tokenizer.unknown)
                drawn += 1
            train_step(module, policy, batch, optimizer, accelerator, config.clip)
            return time.perf_counter() - started

        ready = draw_batch(sampler, config, drawn, device=accelerator.device, unknown=tokenizer.unknown)
        for _ in range(WARM_UP):
            step(resident=True)
            step(resident=False)
        in_memory: list[float] = []
        from_disk: list[float] = []
        while not in_memory or sum(in_memory) + sum(from_disk) < seconds:
            in_memory.append(step(resident=True))
            from_disk.append(step(resident=False))
    resident, pipeline = median(in_memory), median(from_disk)
    return {
        "batch": config.batch,
        "steps": len(in_memory),
        "threads": torch.get_num_threads(),
        "resident_samples_per_second": config.batch / resident,
        "pipeline_samples_per_second": config.batch / pipeline,
        "ratio": resident / pipeline,
    }


def training_rate(policy: VLAPolicy, config: TrainConfig, *, steps: int = 10) -> float:
    """Samples a second of training steps on one random batch that lies ready: the network's share of training.

    The policy's weights are changed; measure a copy that nothing else needs.
    """
    keep_freed_memory()
    accelerator = make_accelerator(config)
    place(policy.train(), accelerator.device)
    chunk, tubes = policy.config.head.chunk, len(policy.config.tubes)
    batch = fake_batch(policy.shapes, chunk, batch=config.batch, tubes=tubes).to(accelerator.device)
    module, optimizer = TrainStep(policy), make_optimizer(policy, config)
    seconds = []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        train_step(module, policy, batch, optimizer, accelerator, config.clip)
        seconds.append(time.perf_counter() - started)
    return config.batch / median(seconds[WARM_UP:])


def synthetic_dataset(path: Path, megabytes: float, cameras: tuple[str, ...] = ("front",)) -> Dataset:
    """A dataset of random pictures and actions, in the layout of recorded ones."""
    rng = np.random.default_rng(0)
    picture_bytes = len(cameras) * PICTURE * PICTURE * 3
    count = max(2, round(megabytes * 1e6 / (picture_bytes * EPISODE_STEPS)))
    episodes = [_episode(rng, i, len(cameras)) for i in range(count)]
    header = {
        "task": "synthetic",
        "cameras": list(cameras),
        "action_names": list(ACTIONS),
        "agent_pos_names": [f"joint_{i}" for i in range(PROPRIOCEPTION)],
        "control_hz": None,
    }
    write_dataset(path, episodes, header)
    return open_dataset(path, verify=False)


def _episode(rng: np.random.Generator, index: int, cameras: int) -> Episode:
    n, objects = EPISODE_STEPS, len(INSTRUCTIONS)
    return Episode(
        seed=index,
        instructions=INSTRUCTIONS,
        target=index % objects,
        success=True,
        pixels=rng.integers(0, 256, (n, cameras, PICTURE, PICTURE, 3), dtype=np.uint8),
        agent_pos=rng.normal(size=(n, PROPRIOCEPTION)).astype(np.float32),
        action=rng.uniform(-1, 1, (n, objects, PLAN_STEPS, len(ACTIONS))).astype(np.float32),
        executed=rng.uniform(-1, 1, (n, len(ACTIONS))).astype(np.float32),
        boxes=rng.uniform(0.2, 0.4, (n, cameras, objects, 4)).astype(np.float32),
        visible=np.ones((n, cameras, objects), dtype=bool),
        events=np.tile((0, n), (objects, 1)),
    )
