"""What is checked in our environment: `python our_side.py imported|same|changed …`; see `run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from eval.results import POLICY, load_results
from training.data.episodes import open_dataset
from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint


def imported(folder: str, told: str) -> None:
    """What LeRobot wrote has come over: the middle squares, the vectors, the words."""
    data, truth = open_dataset(Path(folder)), np.load(told)
    scale = data.header["action_scale"]
    low, high = np.array(scale["low"]), np.array(scale["high"])
    action = (data.arrays["executed"] + 1) / 2 * (high - low) + low
    head = truth["head"][:, :, 8:56]
    error = np.abs(data.arrays["pixels"][:, 0].astype(float) - head).mean()
    assert np.array_equal(data.arrays["agent_pos"], truth["state"])
    assert np.allclose(action, truth["action"], atol=1e-4)
    assert data.interface.cameras == ("head", "wrist"), data.interface
    assert data.interface.action_names == ("shoulder.pos", "elbow.pos", "gripper.pos"), data.interface
    assert len(set(data.texts)) == 2, data.texts
    print(
        f"imported {data.episodes} episodes: vectors and words equal, pictures differ by {error:.2f} of 255 on average"
    )
    assert error < 5, error


def same(ours: str, theirs: str) -> None:
    """Both judgements, seed by seed."""
    [judgement] = load_results(ours).tasks.values()
    judged = judgement.conditions[POLICY].results
    mine = [episode.success for episode in judged]
    [task] = json.loads(Path(theirs).read_text())["per_task"]
    other = [bool(success) for success in task["metrics"]["successes"]]
    print(f"vla eval: {sum(mine)} of {len(mine)}; lerobot-eval: {sum(other)} of {len(other)}")
    for episode, success in zip(judged, other, strict=True):
        assert episode.success == success, f"seed {episode.seed}: {episode.success} here, {success} there"
    print("the same success for each seed")


def changed(before: str, after: str) -> None:
    """What LeRobot trained is a checkpoint of ours, with other weights."""
    old, new = (load_checkpoint(resolve_checkpoint(name)) for name in (before, after))
    assert new.interface == old.interface, new.interface
    assert new.provenance["trained_by"] == "LeRobot", new.provenance
    was = old.policy.state_dict()
    moved = [name for name, value in new.policy.state_dict().items() if not value.equal(was[name])]
    print(f"LeRobot changed {len(moved)} of {len(was)} tensors of {before}")
    assert moved


if __name__ == "__main__":
    {"imported": imported, "same": same, "changed": changed}[sys.argv[1]](*sys.argv[2:])
