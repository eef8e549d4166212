"""Configuration of behaviour cloning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation, in bulk, on whatever device the batch is on.

    Args:
        shift: pictures (and boxes) move by up to this many pixels, the same for all frames of a sample. The arm's
            place in the picture moves along, but its proprioception does not: more than a pixel costs precision.
        brightness: pictures are scaled by 1 ± this.
        unknown_words: probability that a word is replaced by the unknown word.
    """

    shift: int = 0
    brightness: float = 0.0
    unknown_words: float = 0.05

    def __post_init__(self) -> None:
        if self.shift < 0 or not 0 <= self.brightness < 1 or not 0 <= self.unknown_words < 1:
            raise ValueError(f"shift must be 0 or more, brightness and unknown_words in [0, 1): got {self}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Args:
        steps: optimiser steps.
        batch: samples a step, over all processes.
        learning_rate: peak of the AdamW learning rate, after the warm-up.
        backbone_rate: learning rate of a timm model in the backbone, as a share of that of all else.
        final_rate: learning rate at the end of the cosine, as a share of the peak.
        warmup: steps of linear warm-up, in short runs a fifth of them at most.
        weight_decay: on matrices and kernels; none on biases, norms and embeddings.
        clip: the gradient's norm is cut to this.
        ema: decay of the moving average of the weights, which is what is saved; 0 turns it off.
        seed: of the initial weights, the batches and the augmentation.
        holdout: share of the episodes kept out of training, for the validation loss.
        relabel: share of the samples that read an instruction drawn from all those of the scene, with that one's boxes
            and actions as labels; the others read what the demonstration followed. At 1 the gripper's place says
            nothing about what is read, at 0 this is plain behaviour cloning.
        precision: "auto" takes bfloat16 where the hardware multiplies it natively, else float32.
        threads: CPU threads; 0 takes one a core.
        device: "auto" takes a GPU if there is one.
        compile: compile the policy with torch.compile; pays on a GPU and in long runs.
        log_every: steps between two lines of the log.
        save_every: steps between two saved states to resume from.
        augment: augmentation of training batches.
    """

    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1e-3
    backbone_rate: float = 1.0
    final_rate: float = 0.02
    warmup: int = 200
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.995
    seed: int = 0
    holdout: float = 0.02
    relabel: float = 1.0
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    threads: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    log_every: int = 100
    save_every: int = 500
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "backbone_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0")
        if not 0 <= self.ema < 1 or not 0 <= self.holdout < 0.5:
            raise ValueError(f"ema {self.ema} must lie in [0, 1) and holdout {self.holdout} in [0, 0.5)")
        if not 0 <= self.relabel <= 1:
            raise ValueError(f"relabel {self.relabel} must lie in [0, 1]")
        if min(self.warmup, self.threads, self.weight_decay, self.seed) < 0:
            raise ValueError("warmup, threads, weight_decay and seed must be 0 or more")

    def rate(self, step: int) -> float:
        """Learning rate of a step (0-based): linear warm-up, then a half cosine down to the final share."""
        warm = min(1.0, (step + 1) / max(min(self.warmup, self.steps // 5), 1))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * fall)
