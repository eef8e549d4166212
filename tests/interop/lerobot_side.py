"""What runs in LeRobot's environment: `python lerobot_side.py read|write|chunk|train|eval …`; see `run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import vla_policy.torchvision_shim  # noqa: F401 - before torchvision: its CUDA build fails beside torch's CPU build

FPS, SIZE = 10, (48, 64)
TASKS = ("put the cup on the shelf", "wipe the table")


def read(root: str, ours: str) -> None:
    """Every 53rd frame of an export, as LeRobot gives it, against the arrays it was made of."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/export", root=root)
    arrays = {name: np.load(Path(ours) / f"{name}.npy", mmap_mode="r") for name in ("pixels", "agent_pos", "action")}
    offsets, targets = np.load(Path(ours) / "offsets.npy"), np.load(Path(ours) / "targets.npy")
    texts = json.loads((Path(ours) / "header.json").read_text())["instructions"]
    assert dataset.num_episodes == len(targets), (dataset.num_episodes, len(targets))
    assert dataset.num_frames == offsets[-1], (dataset.num_frames, offsets[-1])
    errors = []
    for index in range(0, dataset.num_frames, 53):
        item = dataset[index]
        episode = int(np.searchsorted(offsets, index, side="right")) - 1
        assert item["task"] == texts[episode][targets[episode]]
        assert np.array_equal(item["observation.state"], arrays["agent_pos"][index])
        assert np.array_equal(item["action"], arrays["action"][index, targets[episode], 0])
        picture = 255 * item["observation.images.front"].numpy().transpose(1, 2, 0)
        errors.append(np.abs(picture - arrays["pixels"][index, 0]).mean())
    print(f"read {len(errors)} frames: vectors and tasks equal; pictures differ by {np.mean(errors):.2f} of 255")
    assert np.mean(errors) < 3, errors


def write(root: str) -> None:
    """A dataset by LeRobot's own hand: two cameras as AV1 videos, actions in degrees, two tasks."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    picture = {"dtype": "video", "shape": (*SIZE, 3), "names": ["height", "width", "channels"]}
    joints = ["shoulder.pos", "elbow.pos", "gripper.pos"]
    features = {
        "observation.images.head": picture,
        "observation.images.wrist": picture,
        "observation.state": {"dtype": "float32", "shape": (3,), "names": joints},
        "action": {"dtype": "float32", "shape": (3,), "names": joints},
    }
    dataset = LeRobotDataset.create("local/foreign", fps=FPS, features=features, root=root, use_videos=True)
    rng = np.random.default_rng(0)
    told: dict[str, list[np.ndarray]] = {"head": [], "state": [], "action": []}
    for episode, length in enumerate((20, 31, 12, 25, 18, 40)):
        for step in range(length):
            head = np.full((*SIZE, 3), 40 + 4 * step, np.uint8)
            head[:, : 8 + step] = (200, 60, 40)
            frame = {
                "observation.images.head": head,
                "observation.images.wrist": np.full((*SIZE, 3), 20 * episode, np.uint8),
                "observation.state": rng.normal(size=3).astype(np.float32),
                "action": (90 * np.sin(step / 5 + np.arange(3))).astype(np.float32),
                "task": TASKS[episode % 2],
            }
            for name, key in (
                ("head", "observation.images.head"),
                ("state", "observation.state"),
                ("action", "action"),
            ):
                told[name].append(frame[key])
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    np.savez(f"{root}.npz", **{name: np.stack(values) for name, values in told.items()})
    print(f"wrote {dataset.num_episodes} episodes, {dataset.num_frames} frames")


def chunk(folder: str, root: str) -> None:
    """Our policy in LeRobot's hands, on frames of its own loader: the plan, its first step, and the loss."""
    import torch
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.datasets.factory import resolve_delta_timestamps
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    from eval.lerobot_plugin.policy import VLAPolicy  # also registers the kind

    config = PreTrainedConfig.from_pretrained(folder)
    policy = VLAPolicy.from_pretrained(folder, config=config)
    times = resolve_delta_timestamps(config, LeRobotDatasetMetadata("local/export", root=root))
    loaded = LeRobotDataset("local/export", root=root, delta_timestamps=times)
    batch = torch.utils.data.default_collate([loaded[index] for index in (0, 200, 900, 2000)])
    now = {name: value[:, -1] if name.startswith("observation.") else value for name, value in batch.items()}
    plan = policy.predict_action_chunk(now)
    policy.reset()
    assert torch.equal(plan[:, 0], policy.select_action(now))
    loss, told = policy(batch)
    assert plan.shape == batch["action"].shape, (plan.shape, batch["action"].shape)
    print(f"a plan of {tuple(plan.shape)}, its first step as acted, and a loss of {loss.item():.4f} ({list(told)})")
    assert 0 <= loss.item() < 0.2, loss


def main() -> None:
    action, sys.argv[1:] = sys.argv[1], sys.argv[2:]
    if action == "read":
        read(*sys.argv[1:])
    elif action == "write":
        write(*sys.argv[1:])
    elif action == "chunk":
        chunk(*sys.argv[1:])
    elif action == "train":
        from lerobot.scripts.lerobot_train import main as train

        train()
    elif action == "eval":
        from lerobot.scripts.lerobot_eval import main as evaluate

        evaluate()
    else:
        raise SystemExit(f"unknown action {action!r}")


if __name__ == "__main__":
    main()
