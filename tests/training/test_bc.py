import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from configs.policy import EncoderConfig, FusionConfig, LanguageConfig, PolicyConfig, PretrainedTextConfig
from configs.training import AugmentConfig, TrainConfig
from training import bc
from training.bc import draw_batch, train
from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset
from training.error import TrainingError
from training.log import read_log
from training.optimizer import make_optimizer
from vla_policy.checkpoint import load_checkpoint
from vla_policy.contract import Batch
from vla_policy.encoders import ENCODERS
from vla_policy.fusion import FUSIONS
from vla_policy.heads import HEADS
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import UNKNOWN, WordTokenizer

WriteSmall = Callable[..., Dataset]
Weights = Callable[[Path], dict[str, Tensor]]
SameWeights = Callable[[Path, Path], None]
StopAt = Callable[[int], Callable[[int, int, dict[str, float]], None]]


def test_the_loss_goes_down(
    write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
) -> None:
    data = write_small(lengths=(12,) * 12)
    longer = replace(config, steps=150, batch=16, log_every=10, learning_rate=3e-3, ema=0.9)
    train(replace(policy_config, history_dropout=0.0, proprioception_dropout=0.0), longer, [data], tmp_path / "run")
    rows = read_log(tmp_path / "run")
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["action"] < 0.7 * rows[0]["action"]
    assert rows[-1]["validation_loss"] < rows[0]["loss"]


def test_validation_needs_no_more_memory_than_training(
    write_small: WriteSmall,
    policy_config: PolicyConfig,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, loss = [], VLAPolicy.loss

    def spy(self: VLAPolicy, batch: Batch) -> Any:
        seen.append((torch.is_grad_enabled(), len(batch.action)))
        return loss(self, batch)

    monkeypatch.setattr(VLAPolicy, "loss", spy)
    monkeypatch.setattr(bc, "VALIDATION_SAMPLES", 20)
    train(policy_config, replace(config, steps=1, batch=8, holdout=0.25), [write_small()], tmp_path / "run")
    assert seen == [(True, 8), *3 * [(False, 8)]]


# Each part at least once; without fusion, the encoder reads the text itself.
NAMES = (list(ENCODERS), [name for name in FUSIONS if name != "none"], list(HEADS))
PARTS = [tuple(names[i % len(names)] for names in NAMES) for i in range(max(map(len, NAMES)))]


@pytest.mark.parametrize(("encoder", "fusion", "head"), [*PARTS, ("slow_fast", "none", "chunk_l1")])
def test_every_part_trains_in_bfloat16(
    write_small: WriteSmall,
    policy_config: PolicyConfig,
    config: TrainConfig,
    tmp_path: Path,
    encoder: Any,
    fusion: Any,
    head: Any,
) -> None:
    parts = replace(
        policy_config,
        encoder=EncoderConfig(name=encoder, backbone=policy_config.encoder.backbone),
        fusion=FusionConfig(name=fusion),
        head=replace(policy_config.head, name=head),
    )
    result = train(parts, replace(config, steps=2, precision="bfloat16"), [write_small()], tmp_path / "run")
    assert math.isfinite(read_log(tmp_path / "run")[-1]["loss"])
    load_checkpoint(result.checkpoint)


class TestNonFinite:
    @pytest.mark.parametrize(("poison", "words"), [("loss", "the loss is nan"), ("gradient", "the gradient's norm is")])
    def test_it_stops_before_the_update_and_names_the_step(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        poison: str,
        words: str,
    ) -> None:
        data, before = write_small(), {}
        policies: list[VLAPolicy] = []
        original_optimizer, original_batch = make_optimizer, draw_batch

        def keep(policy: VLAPolicy, config: TrainConfig) -> torch.optim.Optimizer:
            policies.append(policy)
            return original_optimizer(policy, config)

        def poisoned(sampler: Sampler, config: TrainConfig, step: int, *args: Any, **options: Any) -> Any:
            batch = original_batch(sampler, config, step, *args, **options)
            if step == 7:
                before.update({name: p.detach().clone() for name, p in policies[0].named_parameters()})
                if poison == "loss":
                    batch.action[0, 0, 0] = math.nan
                else:
                    policies[0].head.layers[0].weight.register_hook(lambda gradient: gradient * math.inf)
            return batch

        monkeypatch.setattr(bc, "make_optimizer", keep)
        monkeypatch.setattr(bc, "draw_batch", poisoned)
        with pytest.raises(TrainingError, match=f"^step 7: {words}.*nothing was updated") as caught:
            train(policy_config, config, [data], tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert all(torch.equal(p, before[name]) for name, p in policies[0].named_parameters())
        assert not (tmp_path / "run" / "checkpoint").exists()
        assert (tmp_path / "run" / "state" / "state.pt").is_file()  # that of step 5


class TestAverage:
    def states(self, run: Path) -> dict[str, Any]:
        found: dict[str, Any] = torch.load(run / "state" / "state.pt", weights_only=True)
        return found

    def test_the_checkpoint_holds_the_moving_average(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        weights: Weights,
    ) -> None:
        history: list[dict[str, Tensor]] = []
        original = bc.train_step

        def watched(module: Any, policy: VLAPolicy, *args: Any) -> Any:
            metrics = original(module, policy, *args)
            history.append({name: p.detach().clone() for name, p in policy.named_parameters()})
            return metrics

        monkeypatch.setattr(bc, "train_step", watched)
        train(policy_config, replace(config, ema=0.6), [write_small()], tmp_path / "run")
        average = history[0]
        for count, current in enumerate(history[1:], start=1):
            decay = min(0.6, (1 + count) / (10 + count))
            average = {name: decay * value + (1 - decay) * current[name] for name, value in average.items()}
        saved = weights(tmp_path / "run")
        for name, value in average.items():
            torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-6)
        assert any(not torch.equal(saved[name], history[-1][name]) for name in average)

    def test_without_it_the_checkpoint_holds_the_weights_themselves(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        weights: Weights,
    ) -> None:
        train(policy_config, replace(config, ema=0.0), [write_small()], tmp_path / "run")
        current = self.states(tmp_path / "run")["policy"]
        assert all(torch.equal(value, current[name]) for name, value in weights(tmp_path / "run").items())


class TestSettings:
    def test_the_rate_warms_up_and_falls_in_a_half_cosine(self) -> None:
        config = TrainConfig(steps=100, warmup=10, learning_rate=2.0, final_rate=0.1)
        rates = [config.rate(step) for step in range(101)]
        assert rates[0] == pytest.approx(0.2)
        assert rates.index(max(rates)) == 9
        assert all(a > b for a, b in pairwise(rates[10:]))
        assert rates[50] == pytest.approx(2 * (0.1 + 0.9 * 0.5))
        assert rates[100] == pytest.approx(0.2)

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"steps": 0}, "steps 0 must be at least 1"),
            ({"batch": 0}, "batch 0 must be at least 1"),
            ({"learning_rate": 0.0}, "learning_rate 0.0 must be above 0"),
            ({"clip": -1.0}, "clip -1.0 must be above 0"),
            ({"ema": 1.0}, "ema 1.0 must lie in"),
            ({"holdout": 0.5}, r"holdout 0.5 in \[0, 0.5\)"),
            ({"seed": -1}, "must be 0 or more"),
        ],
    )
    def test_impossible_settings_are_refused(self, wrong: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            TrainConfig(**wrong)

    def test_weight_decay_spares_biases_norms_and_embeddings(self, policy_config: PolicyConfig) -> None:
        from vla_policy.contract import Shapes

        shapes = Shapes(frames=2, cameras=1, size=32, proprioception=3, actions=2, vocabulary=20)
        policy = VLAPolicy(policy_config, shapes)
        decayed, plain = make_optimizer(policy, TrainConfig(weight_decay=0.3)).param_groups
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
        names = {id(p): name for name, p in policy.named_parameters()}
        spared = {names[id(p)] for p in plain["params"]}
        assert {names[id(p)] for p in decayed["params"]} | spared == set(names.values())
        assert "language.embedding.weight" in spared
        assert {name for name in names.values() if name.endswith("bias") or "norm" in name} <= spared
        assert "head.layers.0.weight" not in spared

    def test_runs_of_one_process_choose_their_own_precision(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        weights: Weights,
        assert_same_weights: SameWeights,
    ) -> None:
        data = write_small()
        for name in ("float32", "bfloat16", "again"):
            precision = "bfloat16" if name == "bfloat16" else "float32"
            train(policy_config, replace(config, steps=3, precision=precision), [data], tmp_path / name)
        assert_same_weights(tmp_path / "float32", tmp_path / "again")
        assert all(value.dtype != torch.bfloat16 for value in weights(tmp_path / "bfloat16").values())
        with pytest.raises(AssertionError):
            assert_same_weights(tmp_path / "float32", tmp_path / "bfloat16")


class TestBatches:
    @pytest.fixture
    def sampler(self, write_small: WriteSmall) -> Sampler:
        data = write_small()
        samples = SampleConfig(ages=(1, 0), chunk=2, cameras=("front",))
        return Sampler([data], samples, WordTokenizer.train(data.texts, 8), ["dx", "dy"])

    def draw(self, sampler: Sampler, config: TrainConfig, step: int, rank: int = 0, processes: int = 1) -> list[Tensor]:
        batch = draw_batch(sampler, config, step, rank, processes, device=torch.device("cpu"), unknown=UNKNOWN)
        return [batch.observation.agent_pos, batch.observation.tokens, torch.rand(3)]

    def test_step_seed_and_process_decide_them(self, sampler: Sampler, config: TrainConfig) -> None:
        config = replace(config, augment=AugmentConfig(unknown_words=0.5))
        first = self.draw(sampler, config, 3)
        torch.rand(5)
        assert all(map(torch.equal, first, self.draw(sampler, config, 3)))
        for other in (
            self.draw(sampler, config, 4),
            self.draw(sampler, replace(config, seed=7), 3),
        ):
            assert not any(map(torch.equal, first, other))

    def test_processes_share_the_batch_of_one(self, sampler: Sampler, config: TrainConfig) -> None:
        config = replace(config, augment=AugmentConfig(shift=1, brightness=0.2, unknown_words=0.5))
        device = torch.device("cpu")
        whole = draw_batch(sampler, config, 3, device=device, unknown=UNKNOWN)
        for rank in range(2):
            share = draw_batch(sampler, config, 3, rank, 2, device=device, unknown=UNKNOWN)
            for name in ("frames", "agent_pos", "tokens"):
                assert torch.equal(getattr(share.observation, name), getattr(whole.observation, name)[rank::2]), name
            for name in ("action", "boxes", "visible"):
                assert torch.equal(getattr(share, name), getattr(whole, name)[rank::2]), name

    def test_processes_drop_different_things(self, sampler: Sampler, config: TrainConfig) -> None:
        one, two = self.draw(sampler, config, 3, 0, 2), self.draw(sampler, config, 3, 1, 2)
        assert not torch.equal(one[2], two[2])


def test_a_pretrained_text_model_trains_and_its_checkpoint_acts_without_it(
    write_small: WriteSmall,
    policy_config: PolicyConfig,
    config: TrainConfig,
    tmp_path: Path,
    text_models: dict[str, Path],
    weights: Weights,
    assert_same_weights: SameWeights,
    stop_at: StopAt,
) -> None:
    data = write_small()
    language = LanguageConfig(
        name="pretrained", pretrained=PretrainedTextConfig(source=str(text_models["t5"])), max_words=40
    )
    config = replace(config, steps=4, augment=AugmentConfig(unknown_words=0.5))
    whole = train(replace(policy_config, language=language), config, [data], tmp_path / "whole")
    train(replace(policy_config, language=language), config, [data], tmp_path / "parts", on_progress=stop_at(2))
    train(replace(policy_config, language=language), config, [data], tmp_path / "parts", resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    source = load_file(text_models["t5"] / "model.safetensors")
    saved = weights(tmp_path / "whole")
    for name, value in source.items():
        if name.startswith("encoder.block"):
            assert torch.equal(saved[f"language.model.{name.removeprefix('encoder.')}"], value), name  # frozen
    assert load_checkpoint(whole.checkpoint).tokenizer.encode(data.texts)[1].any(1).all()
