"""Interrupted, crashed, killed, resumed: the same weights, and nothing lost or mixed up."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.disk import DiskFullError
from configs.policy import PolicyConfig
from configs.training import AugmentConfig, TrainConfig
from training.bc import train
from training.data.episodes import Dataset
from training.error import TrainingError
from training.log import read_log
from training.run_folder import check_same, describe, is_finished

WriteSmall = Callable[..., Dataset]
Weights = Callable[[Path], dict[str, Tensor]]
SameWeights = Callable[[Path, Path], None]
StopAt = Callable[[int], Callable[[int, int, dict[str, float]], None]]


class TestResume:
    @pytest.fixture(autouse=True)
    def few_boards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """TensorBoard sorts files of one second and process by their numbers as text: the tenth before the ninth."""
        from tensorboard.summary.writer import event_file_writer

        monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))

    def drawn(self, run: Path) -> list[int]:
        """The steps of the loss' curve in TensorBoard."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(run / "tensorboard"))
        board.Reload()
        return [event.step for event in board.Scalars("loss")]

    def test_stopped_and_resumed_gives_the_same_weights(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        assert_same_weights: SameWeights,
        stop_at: StopAt,
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
        assert self.drawn(tmp_path / "parts") == self.drawn(tmp_path / "whole") == [3, 6, 9, 12]
        rows = [read_log(tmp_path / name)[-1] for name in ("whole", "parts")]
        for name in set(rows[0]) - {"seconds", "samples_per_second"}:
            assert rows[0][name] == rows[1][name], name

    def test_the_same_run_twice_gives_the_same_weights_and_another_seed_does_not(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        assert_same_weights: SameWeights,
    ) -> None:
        data = write_small()
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            train(policy_config, replace(config, steps=4, seed=seed), [data], tmp_path / name)
        assert_same_weights(tmp_path / "a", tmp_path / "b")
        with pytest.raises(AssertionError):
            assert_same_weights(tmp_path / "a", tmp_path / "c")

    def test_a_killed_process_resumes_to_the_same_weights(
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        assert_same_weights: SameWeights,
    ) -> None:
        data = write_small()
        train(policy_config, config, [data], tmp_path / "whole")
        (tmp_path / "policy.json").write_text(json.dumps(asdict(policy_config)))
        (tmp_path / "train.json").write_text(json.dumps(asdict(config)))
        code = """
import json, sys, time
from pathlib import Path
from training.data.episodes import open_dataset
from configs.training import TrainConfig
from training.error import TrainingError
from training.bc import train
from configs.decode import decode
from configs.policy import PolicyConfig
folder = Path(sys.argv[1])
def slowly(done, steps, row):
    print(done, flush=True)
    time.sleep(0.2)
result = train(
    decode(PolicyConfig, json.loads((folder / "policy.json").read_text())),
    decode(TrainConfig, json.loads((folder / "train.json").read_text())),
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
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        assert_same_weights: SameWeights,
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
        assert self.drawn(tmp_path / "crashed") == [3, 6, 9, 12]  # what the crash undid is not drawn twice
        assert [row["step"] for row in read_log(tmp_path / "crashed")] == [3, 6, 9, 12]

    @pytest.mark.parametrize(
        ("section", "change", "words"),
        [
            ("train", {"learning_rate": 0.5}, "train.learning_rate was 0.001 and is now 0.5"),
            ("train", {"augment": AugmentConfig(shift=3)}, r"train\.augment\.\w+ was"),
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
        stop_at: StopAt,
    ) -> None:
        data = write_small()
        train(policy_config, config, [data], tmp_path / "run", on_progress=stop_at(1))
        changed_policy = replace(policy_config, **change) if section == "policy" else policy_config
        changed = replace(config, **change) if section == "train" else config
        with pytest.raises(TrainingError, match=words) as caught:
            train(changed_policy, changed, [data], tmp_path / "run", resume=True)
        assert "give the same settings again" in str(caught.value)
        assert str(caught.value).endswith(", or choose another --out")
        assert "\n" not in str(caught.value)

    def test_other_data_are_refused(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path, stop_at: StopAt
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
        with pytest.raises(
            DiskFullError, match=r"unexpected pos 576 vs 534, .* are free.*A state saved before is kept"
        ):
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

    def test_settings_that_a_run_does_not_mention_are_as_they_were_then(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data, run = write_small(), tmp_path / "run"
        train(policy_config, replace(config, steps=1), [data], run)
        described = json.loads((run / "config.json").read_text())
        del described["policy"]["grounding"]["norm"]
        (run / "config.json").write_text(json.dumps(described))
        check_same(run, describe(policy_config, replace(config, steps=1), [data]))
        post = replace(policy_config, grounding=replace(policy_config.grounding, norm="post"))
        with pytest.raises(TrainingError, match=r"policy\.grounding\.norm was 'pre' and is now 'post'"):
            check_same(run, describe(post, replace(config, steps=1), [data]))

    def test_damaged_files_of_the_run_are_named(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path, stop_at: StopAt
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
        self,
        write_small: WriteSmall,
        policy_config: PolicyConfig,
        config: TrainConfig,
        tmp_path: Path,
        weights: Weights,
    ) -> None:
        data, short = write_small(), replace(config, steps=1)
        train(policy_config, short, [data], tmp_path / "run")
        before = weights(tmp_path / "run")
        with pytest.raises(TrainingError, match="holds a run already; add --resume"):
            train(policy_config, replace(short, seed=9), [data], tmp_path / "run")
        assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path / "run").items())


def test_signals_act_as_before_once_training_is_over(
    write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path, stop_at: StopAt
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
