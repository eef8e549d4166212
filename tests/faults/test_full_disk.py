"""A disk that is full: one line that says what is missing, nothing half-written is taken for whole, work goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.disk import DiskFullError
from training.data.episodes import Dataset, Episode, open_dataset
from training.data.writer import DatasetWriter, merge_datasets, write_dataset

SmallDisk = Callable[[str], Path]
HEADER = {
    "task": "drawer",
    "cameras": ["head"],
    "action_names": ["x", "y"],
    "agent_pos_names": ["a", "b"],
    "control_hz": 15,
}
STEPS = 20  # 64 kB an episode


def episode(seed: int) -> Episode:
    rng = np.random.default_rng(seed)
    executed = rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32)
    return Episode(
        seed=seed,
        instructions=("close the drawer",),
        target=0,
        success=True,
        pixels=rng.integers(0, 256, (STEPS, 1, 32, 32, 3), dtype=np.uint8),
        agent_pos=rng.normal(size=(STEPS, 2)).astype(np.float32),
        executed=executed,
        action=executed[:, None, None],
        events=np.array([[0, STEPS]]),
    )


def parts(folder: Path) -> list[Dataset]:
    made = []
    for i in range(3):
        write_dataset(folder / f"part{i}", [episode(2 * i), episode(2 * i + 1)], HEADER)
        made.append(open_dataset(folder / f"part{i}"))
    return made


def assert_same(left: Path, right: Path) -> None:
    assert {file.name for file in left.iterdir()} == {file.name for file in right.iterdir()}
    assert all(file.read_bytes() == (right / file.name).read_bytes() for file in left.iterdir())


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves so many bytes."""
    from configs.disk import free_bytes

    (disk / "other").write_bytes(bytes(free_bytes(disk) - leave))
    return disk / "other"


def test_shards_that_do_not_fit_are_not_joined(small_disk: SmallDisk, tmp_path: Path) -> None:
    shards, disk = parts(tmp_path), small_disk("300k")
    with pytest.raises(
        DiskFullError, match=r"data\.partial: not written, a dataset of 6 episodes needs .* are missing"
    ):
        merge_datasets(disk / "data", shards, HEADER)
    assert list(disk.iterdir()) == []
    small_disk("2m")
    merge_datasets(disk / "data", shards, HEADER)
    write_dataset(tmp_path / "whole", [episode(seed) for seed in range(6)], HEADER)
    assert_same(disk / "data", tmp_path / "whole")


def test_somebody_else_fills_the_disk_while_they_are_joined(
    small_disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, disk = parts(tmp_path), small_disk("300k")
    monkeypatch.setattr("training.data.writer.require_room", lambda *_: None)
    with pytest.raises(DiskFullError, match=r"\.npy: not written, the disk is full"):
        merge_datasets(disk / "data", shards, HEADER)
    assert list(disk.iterdir()) == []


def test_episodes_that_were_written_before_it_was_full_are_kept(small_disk: SmallDisk, tmp_path: Path) -> None:
    disk = small_disk("300k")
    with DatasetWriter(disk / "data", HEADER) as writer:

        def add_all() -> None:
            for seed in range(6):
                writer.add(episode(seed))

        with pytest.raises(DiskFullError, match="the disk is full"):
            add_all()
    kept = writer.seeds
    assert len(kept) >= 2
    small_disk("2m")
    with DatasetWriter(disk / "data", HEADER, resume=True) as writer:
        assert writer.seeds == kept
        for seed in range(len(kept), 6):
            writer.add(episode(seed))
        writer.finish()
    write_dataset(tmp_path / "whole", [episode(seed) for seed in range(6)], HEADER)
    assert_same(disk / "data", tmp_path / "whole")


def test_a_header_that_does_not_fit(small_disk: SmallDisk) -> None:
    disk = small_disk("300k")
    with DatasetWriter(disk / "data", HEADER) as writer:
        writer.add(episode(0))
        other = fill(disk, 0)
        with pytest.raises(DiskFullError, match="not written, the disk is full"):
            writer.finish()
        other.unlink()
        writer.finish()
    assert open_dataset(disk / "data").episodes == 1


def small_policy() -> Any:
    import torch

    from configs.policy import PolicyConfig
    from vla_policy.contract import Shapes
    from vla_policy.policy import VLAPolicy

    shapes = Shapes(frames=6, cameras=1, size=32, proprioception=3, actions=2, vocabulary=20)
    policy = VLAPolicy(PolicyConfig(width=16), shapes)
    policy.normaliser.set_statistics(torch.zeros(3), torch.ones(3))
    return policy


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_state(small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, foreseen: bool) -> None:
    from torch.optim.swa_utils import AveragedModel

    from configs.training import TrainConfig
    from training.bc import make_optimizer
    from training.state import load_state, save_state

    policy = small_policy()
    average, optimizer = AveragedModel(policy), make_optimizer(policy, TrainConfig())
    disk = small_disk("64m")
    save_state(disk / "state", 1, policy, average, optimizer)
    fill(disk, 200_000)
    if not foreseen:
        monkeypatch.setattr("training.state.require_room", lambda *_: None)
    with pytest.raises((DiskFullError, RuntimeError)) as caught:  # torch's own, which `train` puts into words
        save_state(disk / "state", 2, policy, average, optimizer)
    if foreseen:
        assert "state.pt: not written, the state of step 2 needs" in str(caught.value)
    assert load_state(disk / "state", policy, average, optimizer) == 1
    assert {path.name for path in disk.iterdir()} == {"state", "other"}


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_checkpoint(small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, foreseen: bool) -> None:
    from vla_policy.checkpoint import Checkpoint, Purpose, load_checkpoint, save_checkpoint
    from vla_policy.tokenizer import TOKENIZERS

    policy = small_policy()
    tokenizer = TOKENIZERS["transformer"].make(policy.config.language, ["follow the ball"])
    policy = type(policy)(policy.config, replace(policy.shapes, vocabulary=tokenizer.size))
    purpose = Purpose(tasks=("track",), action_names=("x", "y"), agent_pos_names=("a", "b", "c"))
    disk = small_disk("32m")
    save_checkpoint(Checkpoint(policy, tokenizer, purpose, {"made": 1}), disk / "checkpoint")
    fill(disk, 200_000)
    if not foreseen:
        monkeypatch.setattr("vla_policy.checkpoint.require_room", lambda *_: None)
    with pytest.raises(DiskFullError, match=r"model\.safetensors: not written"):
        save_checkpoint(Checkpoint(policy, tokenizer, purpose, {"made": 2}), disk / "checkpoint")
    assert load_checkpoint(disk / "checkpoint").provenance == {"made": 1}
    assert {path.name for path in disk.iterdir()} == {"checkpoint", "other"}


def test_a_training_says_at_its_start_what_it_will_need(
    small_disk: SmallDisk, write_small: Callable[..., Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vla_policy.cli import main

    write_small("data")
    out = small_disk("1m") / "run"
    assert main(["train", "--config", "debug", "--data", str(tmp_path / "data"), "--out", str(out)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"vla: {out}: not written, a run's states and checkpoint needs")
    assert not out.exists()


@pytest.mark.parametrize("name", ["film.mp4", "film.webp", "picture.png", "results.json", "log"])
def test_films_texts_and_logs(small_disk: SmallDisk, name: str) -> None:
    from eval.report.video import write_mp4, write_png, write_webp
    from eval.results import write_whole
    from training.log import Log

    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(20)]
    disk = small_disk("64k")
    path = disk / name

    def write() -> None:
        if name == "film.mp4":
            write_mp4(path, frames, 20)
        elif name == "film.webp":
            write_webp(path, frames, 20)
        elif name == "picture.png":
            write_png(path, frames[0])
        elif name == "results.json":
            write_whole(path, "x" * 100_000)
        else:
            with closing(Log(disk, 0, enabled=True)) as log:
                for step in range(2000):
                    log.write({"step": step, "loss": 1.0})

    with pytest.raises(DiskFullError, match=r"not written, the disk is full, .* free some space, or write elsewhere"):
        write()
    if name != "log":
        assert list(disk.iterdir()) == []


@pytest.mark.long
def test_a_collection_goes_on_once_there_is_room(vla: Any, small_disk: SmallDisk, tmp_path: Path) -> None:
    """Shards that fit, and a joined dataset that does not."""
    common = ["collect", "--config", "debug", "--tasks", "reach", "--collect.episodes", "30", "--collect.size", "32"]
    common += ["--collect.workers", "1", "--out"]
    whole = vla(*common, str(tmp_path / "whole"))
    assert whole.wait(900) == 0
    size = sum(file.stat().st_size for file in (tmp_path / "whole" / "reach").iterdir())
    disk = small_disk(str(int(1.3 * size) // 4096 * 4096))
    short = vla(*common, str(disk))
    _, said = short.communicate(timeout=900)
    assert short.returncode == 2
    line = said.strip().splitlines()[-1]
    assert "are missing; free some space" in line
    assert "Traceback" not in said
    small_disk("64m")
    again = vla(*common, str(disk))
    assert again.wait(900) == 0
    assert_same(disk / "reach", tmp_path / "whole" / "reach")
