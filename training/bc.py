"""The training loop: batch → loss → update, logged, saved, interruptible, resumed exactly.

Every random draw of step n comes from (seed, n), what the policy drops from (seed, n, process), so that a resumed run
repeats nothing and misses nothing: 2N steps, and N steps resumed for N more, give bit-identical weights on a CPU.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from configs.disk import filling, require_room
from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.data.augment import augment
from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset
from training.device import anywhere, make_accelerator, place, share_of_cores
from training.error import TrainingError
from training.health import diverged
from training.interrupts import interrupts
from training.lock import hold_folder
from training.log import Log, read_log
from training.memory import require_memory
from training.optimizer import make_optimizer, rising_average
from training.provenance import collection_seeds, provenance
from training.run_folder import CHANGES, CHECKPOINT, CONFIG, STATE, check_folder, describe
from training.start import load_start, state_beside, take_over, weights_print
from training.state import has_state, load_state, save_state
from vla_policy.allocator import keep_freed_memory
from vla_policy.checkpoint import Checkpoint, Purpose, save_checkpoint
from vla_policy.contract import Batch
from vla_policy.language.pretrained import PretrainedText
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import TOKENIZERS, TextTokenizer

VALIDATION_SAMPLES = 512
VALIDATION_VIDEOS = 32  # of a policy that grounds videos, whose samples are large

OnProgress = Callable[[int, int, dict[str, float]], None]  # step, steps, metrics


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where the run stands: the checkpoint's folder, steps done, whether it was interrupted; and whether this process,
    of several, is the one that reports and writes.
    """

    checkpoint: Path
    step: int
    interrupted: bool
    samples_per_second: float
    main: bool


class TrainStep(nn.Module):
    """`policy.loss` as a forward pass, which is what distributed training and compilation wrap."""

    def __init__(self, policy: VLAPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.policy.loss(batch)


def train_step(
    module: nn.Module,
    policy: VLAPolicy,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    clip: float,
) -> dict[str, Tensor]:
    """One update; returns its metrics.

    Raises:
        TrainingError: the loss or a gradient is not finite; the weights are then untouched.
    """
    with accelerator.autocast():
        loss, metrics = module(batch)
    finite = bool(torch.isfinite(loss))
    if anywhere(not finite, accelerator):
        raise TrainingError("the loss of another process is not finite" if finite else f"the loss is {loss.item()}")
    accelerator.backward(loss)
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), clip)
    if not torch.isfinite(norm):
        raise TrainingError(f"the gradient's norm is {norm.item()}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**metrics, "gradient": norm.detach()}


def train(
    policy_config: PolicyConfig,
    config: TrainConfig,
    datasets: Sequence[Dataset],
    out: Path,
    *,
    weights: Mapping[str, float] | None = None,
    start: Path | None = None,
    resume: bool = False,
    change: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> TrainResult:
    """Train a policy; `out` receives the log, states to resume from, and the checkpoint.

    Args:
        weights: how much each task counts; see `training.data.batches.Sampler`.
        change: settings, such as "train.learning_rate", that may be otherwise in a run that is gone on with.
        start: folder of a checkpoint to go on from in place of random weights. Its words and the statistics of its
            normaliser stay, whatever the data. If the state of its run lies beside it, weights, moving average and
            optimiser go on from there; else the optimiser begins anew from the averaged weights of the checkpoint.
            With other settings of the policy, parts that do not fit them begin anew, see `training.start.take_over`.

    Raises:
        TrainingError: `out` is taken, there is nothing to resume, the data do not fit `start`, or the loss is not
            finite.
        LockedError: another process trains into `out`.
    """
    # Of several processes that torchrun started, the first one writes.
    with hold_folder(out) if os.environ.get("RANK", "0") == "0" else nullcontext():
        return _train(policy_config, config, datasets, out, weights, start, resume, change, on_progress)


def _train(
    policy_config: PolicyConfig,
    config: TrainConfig,
    datasets: Sequence[Dataset],
    out: Path,
    weights: Mapping[str, float] | None,
    start: Path | None,
    resume: bool,
    change: Sequence[str],
    on_progress: OnProgress | None,
) -> TrainResult:
    parent = os.getppid()
    keep_freed_memory()
    torch.set_num_threads(config.threads or share_of_cores())
    accelerator = make_accelerator(config)
    rank, processes = accelerator.process_index, accelerator.num_processes
    if config.batch % processes:
        raise TrainingError(f"batch {config.batch} must be a multiple of the {processes} processes")
    described = describe(policy_config, config, datasets, "" if start is None else weights_print(start), weights)
    changes = check_folder(out, resume, described, change)

    begun = None if start is None else load_start(start, datasets)
    language, texts = policy_config.language, (text for d in datasets for text in d.texts)
    keeps_words = begun is not None and begun.policy.config.language == language
    tokenizer = begun.tokenizer if begun and keeps_words else TOKENIZERS[language.name].make(language, texts)
    _check_words(tokenizer, datasets)
    _check_visibility(policy_config, datasets)
    _check_window(policy_config, datasets)
    grounding = policy_config.grounding
    names = list(dict.fromkeys(name for d in datasets for name in d.interface.action_names))
    of_any_robot = begun is not None and begun.policy.config.grounds_videos
    names = list(begun.purpose.action_names) if begun and not of_any_robot else names
    require_memory(
        policy_config,
        config,
        datasets,
        actions=len(names),
        vocabulary=tokenizer.size,
        processes=processes,
        device=accelerator.device,
        half=accelerator.mixed_precision == "bf16",
    )
    samples = SampleConfig(
        ages=policy_config.ages,
        chunk=policy_config.head.chunk,
        cameras=policy_config.cameras,
        tubes=policy_config.tubes,
        whole=policy_config.grounds_videos,
    )
    sampler = Sampler(
        datasets, samples, tokenizer, names, holdout=config.holdout, relabel=config.relabel, weights=weights
    )
    torch.manual_seed(config.seed)
    shapes = sampler.shapes(len(names), tokenizer.size)
    anew: tuple[str, ...] = ()
    if begun and start:
        policy, anew = take_over(start, begun.policy, policy_config, shapes)
        if of_any_robot and policy is not begun.policy:
            policy.normaliser.set_statistics(*sampler.statistics())
    else:
        policy = VLAPolicy(policy_config, shapes)
        policy.normaliser.set_statistics(*sampler.statistics())
    place(policy, accelerator.device)
    optimizer = make_optimizer(policy, config)
    average = AveragedModel(policy, multi_avg_fn=rising_average(config.ema), use_buffers=False)
    averaged = average.module
    assert isinstance(averaged, VLAPolicy)
    module, optimizer = accelerator.prepare(TrainStep(policy), optimizer)
    if config.compile:
        PretrainedText.stay_uncompiled()
        module = torch.compile(module)
    if begun and start and policy is begun.policy and not resume and has_state(state_beside(start)):
        load_state(state_beside(start), policy, average, optimizer)
    first = load_state(out / STATE, policy, average, optimizer) if resume else 0
    if first > config.steps:
        raise TrainingError(
            f"{out}: {first} steps are done, more than train.steps {config.steps}; give {first} or more"
        )
    changes = [{"step": first, **each} for each in changes]
    if accelerator.is_main_process:
        # Weights, their average and two moments; the state before stays until the new one is whole; the checkpoint.
        size = sum(value.nbytes for value in policy.state_dict().values())
        require_room(out, (5 if resume else 9) * size, "a run's states and checkpoint")
        with filling(out / CONFIG):
            on_the_way = {CHANGES: changes} if changes else {}
            (out / CONFIG).write_text(json.dumps({**described, **on_the_way}, indent=2) + "\n")
    purpose = Purpose(
        tasks=tuple(dict.fromkeys(d.header["task"] for d in datasets)),
        action_names=tuple(names),
        agent_pos_names=datasets[0].interface.agent_pos_names,
        boxes=any(d.labelled for d in datasets) and max(grounding.location_weight, grounding.box_weight) > 0,
        control_hz=next((d.interface.control_hz for d in datasets if d.interface.control_hz is not None), None),
    )
    settings: dict[str, Any] = {name: described[name] for name in ("policy", "train", "weights") if name in described}
    origin = provenance(settings, datasets)
    if begun:
        before = {name: begun.provenance[name] for name in ("steps", "start", CHANGES) if name in begun.provenance}
        if seeds := collection_seeds(begun.provenance):
            before["collection_seeds"] = sorted(seeds)
        origin["start"] = {"weights": described["start"], **before, **({"anew": list(anew)} if anew else {})}
    if changes:
        origin[CHANGES] = changes
    log = Log(out, first, enabled=accelerator.is_main_process)
    beginning = next((row["loss"] for row in read_log(out) if row["step"] <= first), None) if resume else None

    def refuse(step: int, trouble: str) -> TrainingError:
        kept = "train anew with a lower learning rate"
        if has_state(out / STATE) and start is None:
            kept = (
                f"go on from the last saved state by `vla train --out {out} --resume --change train.learning_rate` "
                "with a lower one"
            )
        return TrainingError(f"step {step}: {trouble}; look at the data, or {kept}")

    def check(step: int, loss: float) -> None:
        trouble = diverged(policy, loss, loss if beginning is None else beginning)
        if anywhere(bool(trouble), accelerator):
            raise refuse(step, f"training has diverged ({trouble or 'in another process'}), so this state is not saved")

    def save(step: int) -> None:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            save_state(out / STATE, step, policy, average, optimizer)

    policy.train()
    done, started, interrupted = first, time.monotonic(), False
    with interrupts(parent) as stop, closing(log):
        for step in range(first, config.steps):
            batch = draw_batch(
                sampler, config, step, rank, processes, device=accelerator.device, unknown=tokenizer.unknown
            )
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step) * group.get("share", 1.0)
            try:
                metrics = train_step(module, policy, batch, optimizer, accelerator, config.clip)
            except TrainingError as error:
                raise refuse(step, f"{error}; nothing was updated") from None
            if beginning is None:
                beginning = float(metrics["loss"])
            average.update_parameters(policy)
            done, row = step + 1, {}
            log.add(metrics)
            reports = done % config.log_every == 0 or done == config.steps
            saves = done % config.save_every == 0 or done == config.steps
            if reports or saves:
                check(done, float(metrics["loss"]))
            if reports:
                seconds = time.monotonic() - started
                row = log.flush(done, seconds, config.batch * (done - first) / seconds, config.rate(step))
                if done == config.steps or done % (10 * config.log_every) == 0:
                    found = _validate(averaged, sampler, accelerator, config.batch)
                    wrong = [name for name, value in found.items() if not math.isfinite(value)]
                    if wrong:
                        raise refuse(done, f"on held-out episodes, {wrong[0]} is {found[wrong[0]]}")
                    log.extend(row, found)
                log.write(row)
            if on_progress and accelerator.is_main_process:
                on_progress(done, config.steps, row)
            interrupted = anywhere(stop.is_set(), accelerator) and done < config.steps
            if interrupted:
                check(done, float(metrics["loss"]))
            if interrupted or saves:
                save(done)
            if interrupted:
                break
    rate = config.batch * (done - first) / max(time.monotonic() - started, 1e-9)
    if accelerator.is_main_process:
        save_checkpoint(Checkpoint(averaged, tokenizer, purpose, {**origin, "steps": done}), out / CHECKPOINT)
    accelerator.wait_for_everyone()
    return TrainResult(
        checkpoint=out / CHECKPOINT,
        step=done,
        interrupted=interrupted,
        samples_per_second=rate,
        main=accelerator.is_main_process,
    )


def _check_words(tokenizer: TextTokenizer, datasets: Sequence[Dataset]) -> None:
    """Refuse instructions that would be cut off: a policy must not learn from words that it never sees."""
    for data in datasets:
        for text in dict.fromkeys(data.texts):
            dropped = tokenizer.reading(text).dropped
            if dropped:
                raise TrainingError(
                    f"{data.path}: policy.language.max_words {tokenizer.max_words} cuts {' '.join(dropped)!r} off "
                    f"{text!r}; raise it"
                )


def _check_window(config: PolicyConfig, datasets: Sequence[Dataset]) -> None:
    """Refuse windows of which nothing but the newest frame can ever lie in an episode."""
    longest = max(int(np.diff(d.arrays["offsets"]).max()) for d in datasets)
    if config.frames > 1 and (second := config.stride) >= longest:
        name = f"frame_ages {list(config.frame_ages)}" if config.frame_ages else f"frame_stride {second}"
        raise TrainingError(
            f"policy.{name}: the longest episode has {longest} steps, so no window would "
            "hold a second frame; choose less"
        )


def _check_visibility(config: PolicyConfig, datasets: Sequence[Dataset]) -> None:
    """Refuse to learn what can be seen from data that do not say it."""
    for data in datasets:
        if config.grounding.visibility_weight and not data.labelled:
            raise TrainingError(f"{data.path}: has no boxes; set policy.grounding.visibility_weight to 0")
    if "goal" in config.grounding.things and not any(data.goals for data in datasets):
        raise TrainingError(
            f"{datasets[0].path}: does not say where things are to go; set policy.grounding.things to [target]"
        )


def draw_batch(
    sampler: Sampler,
    config: TrainConfig,
    step: int,
    rank: int = 0,
    processes: int = 1,
    *,
    device: torch.device,
    unknown: int | None,
) -> Batch:
    """This process's share of a step's batch, augmented, on the device; also seeds the policy's dropout.

    All processes together have the batch that one process alone would have: a run may go on with another number of
    them. What is dropped from it within the policy is drawn by each process for itself.
    """
    share = slice(rank, None, processes)
    draw = np.random.default_rng((config.seed, step, 0))
    batch = sampler.batch(draw, config.batch, share=share).to(device)
    # Dropout draws from the global generator, augmentation from its own.
    torch.manual_seed(int(draw.integers(2**62)) + rank)
    generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
    return augment(batch, config.augment, generator, unknown, share=share, whole=config.batch)


def _validate(policy: VLAPolicy, sampler: Sampler, accelerator: Accelerator, batch: int) -> dict[str, float]:
    """Losses on held-out episodes, without augmentation, of the averaged weights; means over the batches. These are as
    large as in training: what memory holds was checked for those.
    """
    if not sampler.held_out:
        return {}
    samples = VALIDATION_VIDEOS if policy.config.grounds_videos else VALIDATION_SAMPLES
    size = min(batch // accelerator.num_processes, samples)
    count = -(-samples // size)
    rng, found = np.random.default_rng(0), []
    policy.eval()
    for _ in range(count):
        held_out = sampler.batch(rng, size, held_out=True).to(accelerator.device)
        with torch.no_grad(), accelerator.autocast():
            found.append(policy.loss(held_out)[1])
    policy.train()
    return {f"validation_{name}": float(sum(each[name] for each in found)) / count for name in found[0]}
