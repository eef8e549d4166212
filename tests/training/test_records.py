"""What a run leaves behind: log, TensorBoard, checkpoint with provenance."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.bc import TrainResult, train
from training.data.episodes import Dataset
from training.log import LOG, read_log
from vla_policy.checkpoint import load_checkpoint

WriteSmall = Callable[..., Dataset]


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
        assert loaded.purpose.control_hz == 20
        record = loaded.provenance
        assert record["steps"] == 12
        assert record["settings"]["train"] == json.loads(json.dumps(asdict(config)))
        assert record["data"][0]["pixels_sha256"] == data.header["files"]["pixels.npy"]["sha256"]
        assert {"torch", "mujoco", "python"} <= set(record["versions"])
        mean = torch.from_numpy(data.arrays["agent_pos"].mean(0))
        torch.testing.assert_close(loaded.policy.normaliser.mean, mean, rtol=1e-4, atol=1e-4)

    def test_actions_are_all_those_of_the_datasets_in_the_order_they_come(
        self, write_small: WriteSmall, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
    ) -> None:
        data = [write_small("a", actions=("dx", "gripper", "dz")), write_small("b", actions=("dy", "dx"), task="reach")]
        result = train(policy_config, replace(config, steps=1), data, tmp_path / "run")
        purpose = load_checkpoint(result.checkpoint).purpose
        assert purpose.action_names == ("dx", "gripper", "dz", "dy")
        assert purpose.tasks == ("track", "reach")
