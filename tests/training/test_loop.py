import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from envs.episode import Dataset
from training import loop
from training.config import TrainConfig, TrainingError
from training.dataset import AugmentConfig, SampleConfig, Sampler
from training.loop import (
    LOG,
    TrainResult,
    check_same,
    describe,
    draw_batch,
    is_finished,
    make_optimizer,
    read_log,
    train,
)
from vla_policy.checkpoint import load_checkpoint
from vla_policy.config import LanguageConfig, PolicyConfig
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import UNKNOWN, WordTokenizer

WriteSmall = Callable[..., Dataset]


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def stop_at(step: int) -> Callable[[int, int, dict[str, float]], None]:
    """A progress callback that sends this process the signal a shell or a scheduler would."""

    def act(done: int, _steps: int, _row: dict[str, float]) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return act


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


class TestResume:
    def test_stopped_and_resumed_gives_the_same_weights(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data = [write_small("a"), write_small("b", seed=4, actions=("dx", "dy", "dz"))]
        config = replace(config, augment=AugmentConfig(shift=2, brightness=0.1, unknown_words=0.2))
        whole = train(policy_config, config, data, tmp_path / "whole")
        assert whole == replace(whole, step=12, interrupted=False)
        first = train(policy_config, config, data, tmp_path / "parts", on_progress=stop_at(6))
        assert first.interrupted
        assert first.step == 6
        assert json.loads((first.checkpoint / "provenance.json").read_text())["steps"] == 6
        with pytest.raises(AssertionError):
            assert_same_weights(tmp_path / "whole", tmp_path / "parts")
        second = train(policy_config, config, data, tmp_path / "parts", resume=True)
        assert not second.interrupted
        assert_same_weights(tmp_path / "whole", tmp_path / "parts")
        steps = [[row["step"] for row in read_log(tmp_path / name)] for name in ("whole", "parts")]
        assert steps[0] == steps[1] == [3, 6, 9, 12]
        rows = [read_log(tmp_path / name)[-1] for name in ("whole", "parts")]
        for name in set(rows[0]) - {"seconds", "samples_per_second"}:
            assert rows[0][name] == rows[1][name], name

    def test_the_same_run_twice_gives_the_same_weights_and_another_seed_does_not(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data = write_small()
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            train(policy_config, replace(config, steps=4, seed=seed), [data], tmp_path / name)
        assert_same_weights(tmp_path / "a", tmp_path / "b")
        with pytest.raises(AssertionError):
            assert_same_weights(tmp_path / "a", tmp_path / "c")

    def test_a_killed_process_resumes_to_the_same_weights(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data = write_small()
        train(policy_config, config, [data], tmp_path / "whole")
        (tmp_path / "policy.json").write_text(json.dumps(asdict(policy_config)))
        (tmp_path / "train.json").write_text(json.dumps(asdict(config)))
        code = """
import json, sys, time
from pathlib import Path
from envs.episode import open_dataset
from training.config import TrainConfig, TrainingError
from training.loop import train
from vla_policy.checkpoint import read_dataclass
from vla_policy.config import PolicyConfig
folder = Path(sys.argv[1])
def slowly(done, steps, row):
    print(done, flush=True)
    time.sleep(0.2)
result = train(
    read_dataclass(PolicyConfig, json.loads((folder / "policy.json").read_text())),
    read_dataclass(TrainConfig, json.loads((folder / "train.json").read_text())),
    [open_dataset(folder / "small")], folder / "killed", on_progress=slowly,
)
sys.exit(7 if result.interrupted else 0)
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "7":  # past the state that was saved at step 5
                    process.send_signal(signal.SIGTERM)
        assert process.returncode == 7
        done = json.loads((tmp_path / "killed" / "checkpoint" / "provenance.json").read_text())["steps"]
        assert 7 <= done < 12
        train(policy_config, config, [data], tmp_path / "killed", resume=True)
        assert_same_weights(tmp_path / "whole", tmp_path / "killed")

    def test_a_crash_loses_no_more_than_the_steps_since_the_last_state(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data = write_small()
        train(policy_config, config, [data], tmp_path / "whole")

        def crash(done: int, _steps: int, _row: dict[str, float]) -> None:
            if done == 8:
                raise MemoryError

        with pytest.raises(MemoryError):
            train(policy_config, config, [data], tmp_path / "crashed", on_progress=crash)
        assert not (tmp_path / "crashed" / "checkpoint").exists()
        seen: list[int] = []
        train(
            policy_config, config, [data], tmp_path / "crashed", resume=True, on_progress=lambda d, *_: seen.append(d)
        )
        assert seen[0] == 6  # the state is that of step 5
        assert_same_weights(tmp_path / "whole", tmp_path / "crashed")
        assert [row["step"] for row in read_log(tmp_path / "crashed")] == [3, 6, 9, 12]

    @pytest.mark.parametrize(
        ("section", "change", "words"),
        [
            ("train", {"learning_rate": 0.5}, "train.learning_rate was 0.001 and is now 0.5"),
            ("train", {"augment": AugmentConfig(shift=3)}, "train.augment was"),
            ("policy", {"width": 32}, "policy.width was 16 and is now 32"),
        ],
    )
    def test_other_settings_are_refused(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        section: str,
        change: dict[str, Any],
        words: str,
    ) -> None:
        data = write_small()
        train(policy_config, config, [data], tmp_path / "run", on_progress=stop_at(1))
        changed_policy = replace(policy_config, **change) if section == "policy" else policy_config
        changed = replace(config, **change) if section == "train" else config
        with pytest.raises(TrainingError, match=words) as caught:
            train(changed_policy, changed, [data], tmp_path / "run", resume=True)
        assert "give the same settings again, or choose another --out" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_other_data_are_refused(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data, other = write_small(), write_small("other", seed=7)
        train(policy_config, config, [data], tmp_path / "run", on_progress=stop_at(1))
        for given, words in (
            ([other], r"data\.dataset 0 \(track\) was '[0-9a-f]{12}' and is now '[0-9a-f]{12}'"),
            ([data, other], r"data\.dataset 1 \(track\) was None"),
        ):
            with pytest.raises(TrainingError, match=words) as caught:
                train(policy_config, config, given, tmp_path / "run", resume=True)
            assert "give the same data again, or choose another --out" in str(caught.value)

    def test_nothing_to_resume(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        with pytest.raises(TrainingError, match="no saved state to resume; train without --resume"):
            train(policy_config, config, [write_small()], tmp_path / "run", resume=True)
        assert not (tmp_path / "run").exists()

    def test_a_state_that_does_not_fit_on_the_disk_is_one_line_and_costs_nothing(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        data, run, original = write_small(), tmp_path / "run", torch.save

        def fill_the_disk(values: dict[str, Any], path: Path) -> None:
            if values["step"] > 5:
                raise RuntimeError("unexpected pos 576 vs 534\nframe #0")
            original(values, path)

        monkeypatch.setattr(torch, "save", fill_the_disk)
        with pytest.raises(TrainingError, match=r"step 10 not written \(unexpected pos 576 vs 534\); free some space"):
            train(policy_config, config, [data], run)
        monkeypatch.undo()
        assert train(policy_config, config, [data], run, resume=True).step == config.steps

    @pytest.mark.parametrize("resume", [False, True])
    def test_a_finished_run_says_so_whatever_is_asked(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path, resume: bool
    ) -> None:
        data, run, short = [write_small()], tmp_path / "run", replace(config, steps=1)
        train(policy_config, short, data, run)
        assert not is_finished(run)
        shutil.rmtree(run / "state")  # as the command line does once all is done
        assert is_finished(run)
        with pytest.raises(TrainingError, match=f"^{run}: holds a finished run.*choose another --out$"):
            train(policy_config, short, data, run, resume=resume)

    def test_a_finished_run_is_compared_with_what_is_wanted(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data, other, run, short = (
            write_small(),
            write_small("other", seed=7),
            tmp_path / "run",
            replace(config, steps=1),
        )
        train(policy_config, short, [data], run)
        check_same(run, describe(policy_config, short, [data]))
        for changed, given, words in (
            (replace(short, relabel=0.0), data, "train.relabel was 1.0 and is now 0.0; give the same settings"),
            (short, other, r"data\.dataset 0 \(track\) was '[0-9a-f]{12}' and is now .*; give the same data"),
        ):
            with pytest.raises(TrainingError, match=f"^{run}: {words} again, or choose another --out$"):
                check_same(run, describe(policy_config, changed, [given]))

    def test_damaged_files_of_the_run_are_named(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data, run = write_small(), tmp_path / "run"
        train(policy_config, config, [data], run, on_progress=stop_at(1))
        described = (run / "config.json").read_text()
        (run / "config.json").write_text(described[:20])
        with pytest.raises(TrainingError, match=f"{run / 'config.json'}: not readable"):
            train(policy_config, config, [data], run, resume=True)
        (run / "config.json").write_text(described)
        (run / "state" / "state.pt").write_bytes(b"rubbish")
        with pytest.raises(ValueError, match=f"{run / 'state' / 'state.pt'}: not a state of this run"):
            train(policy_config, config, [data], run, resume=True)

    def test_a_folder_with_a_run_is_not_overwritten(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data, short = write_small(), replace(config, steps=1)
        train(policy_config, short, [data], tmp_path / "run")
        before = weights(tmp_path / "run")
        with pytest.raises(TrainingError, match="holds a run already; add --resume"):
            train(policy_config, replace(short, seed=9), [data], tmp_path / "run")
        assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path / "run").items())


def test_signals_act_as_before_once_training_is_over(
    write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    result = train(policy_config, config, [write_small()], tmp_path / "run", on_progress=stop_at(2))
    assert result.interrupted
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_is_not_held_back(
    write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
) -> None:
    def twice(done: int, _steps: int, _row: dict[str, float]) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start without it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(policy_config, config, [write_small()], tmp_path / "run", on_progress=twice)
    finally:
        signal.signal(signal.SIGINT, before)


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

        monkeypatch.setattr(loop, "make_optimizer", keep)
        monkeypatch.setattr(loop, "draw_batch", poisoned)
        with pytest.raises(TrainingError, match=f"^step 7: {words}.*nothing was updated") as caught:
            train(policy_config, config, [data], tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert all(torch.equal(p, before[name]) for name, p in policies[0].named_parameters())
        assert not (tmp_path / "run" / "checkpoint").exists()
        assert (tmp_path / "run" / "state" / "state.pt").is_file()  # that of step 5


class TestRecords:
    @pytest.fixture
    def run(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> tuple[Path, TrainResult, Dataset]:
        data = write_small()
        return tmp_path / "run", train(policy_config, config, [data], tmp_path / "run"), data

    def test_the_log_has_a_row_every_few_steps(
        self, run: tuple[Path, TrainResult, Dataset], config: TrainConfig
    ) -> None:
        rows = [json.loads(line) for line in (run[0] / LOG).read_text().splitlines()]
        assert [row["step"] for row in rows] == [3, 6, 9, 12]
        always = {"step", "seconds", "samples_per_second", "learning_rate", "loss", "action", "gradient"}
        for row in rows:
            assert always <= set(row)
            assert all(math.isfinite(v) for v in row.values())
            assert row["learning_rate"] == config.rate(row["step"] - 1)
        assert [("validation_loss" in row) for row in rows] == [False, False, False, True]
        assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)

    def test_rows_are_means_since_the_row_before(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data = write_small()
        train(policy_config, replace(config, log_every=1), [data], tmp_path / "each")
        train(policy_config, replace(config, log_every=4), [data], tmp_path / "some")
        each, some = read_log(tmp_path / "each"), read_log(tmp_path / "some")
        for i, row in enumerate(some):
            assert row["loss"] == pytest.approx(np.mean([r["loss"] for r in each[4 * i : 4 * i + 4]]), abs=2e-5)

    def test_the_log_is_read_up_to_a_torn_line(self, run: tuple[Path, TrainResult, Dataset]) -> None:
        with (run[0] / LOG).open("a") as stream:
            stream.write('{"step": 15, "lo')
        assert [row["step"] for row in read_log(run[0])] == [3, 6, 9, 12]
        assert read_log(run[0] / "elsewhere") == []

    def test_tensorboard_gets_the_same(self, run: tuple[Path, TrainResult, Dataset]) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(run[0] / "tensorboard"))
        board.Reload()
        rows = read_log(run[0])
        assert [e.step for e in board.Scalars("loss")] == [row["step"] for row in rows]
        assert [e.value for e in board.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])

    def test_the_checkpoint_knows_where_it_comes_from(
        self, run: tuple[Path, TrainResult, Dataset], policy_config: PolicyConfig, config: TrainConfig
    ) -> None:
        folder, result, data = run
        assert result.checkpoint == folder / "checkpoint"
        loaded = load_checkpoint(result.checkpoint)
        assert loaded.policy.config == policy_config
        assert loaded.purpose.tasks == ("track",)
        assert loaded.purpose.action_names == ("dx", "dy")
        assert loaded.purpose.agent_pos_names == ("joint_0", "joint_1", "joint_2")
        record = loaded.provenance
        assert record["steps"] == 12
        assert record["settings"]["train"] == json.loads(json.dumps(asdict(config)))
        assert record["data"][0]["pixels_sha256"] == data.header["files"]["pixels.npy"]["sha256"]
        assert {"torch", "mujoco", "python"} <= set(record["versions"])
        mean = torch.from_numpy(data.arrays["agent_pos"].mean(0))
        torch.testing.assert_close(loaded.policy.normaliser.mean, mean, rtol=1e-4, atol=1e-4)

    def test_actions_keep_their_order_whatever_the_datasets_say(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data = [write_small("a", actions=("dx", "gripper", "dz")), write_small("b", actions=("dy", "dx"), task="reach")]
        result = train(policy_config, replace(config, steps=1), data, tmp_path / "run")
        purpose = load_checkpoint(result.checkpoint).purpose
        assert purpose.action_names == ("dx", "dy", "dz", "gripper")
        assert purpose.tasks == ("track", "reach")


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
    ) -> None:
        history: list[dict[str, Tensor]] = []
        original = loop.train_step

        def watched(module: Any, policy: VLAPolicy, *args: Any) -> Any:
            metrics = original(module, policy, *args)
            history.append({name: p.detach().clone() for name, p in policy.named_parameters()})
            return metrics

        monkeypatch.setattr(loop, "train_step", watched)
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
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
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
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
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
        samples = SampleConfig(frames=2, frame_stride=1, chunk=2, cameras=("front",))
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

    def test_processes_share_the_batch_and_draw_different_samples(self, sampler: Sampler, config: TrainConfig) -> None:
        one, two = self.draw(sampler, config, 3, 0, 2), self.draw(sampler, config, 3, 1, 2)
        assert len(one[0]) == len(two[0]) == config.batch // 2
        assert not torch.equal(one[0], two[0])


def test_a_pretrained_text_model_trains_and_its_checkpoint_acts_without_it(
    write_small: WriteSmall,
    policy_config: PolicyConfig,
    config: TrainConfig,
    tmp_path: Path,
    text_models: dict[str, Path],
) -> None:
    data = write_small()
    language = LanguageConfig(name="pretrained", pretrained=str(text_models["t5"]), max_words=12)
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
