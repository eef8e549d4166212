from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.optimizer import make_optimizer
from training.state import has_state, load_state, save_state
from vla_policy.contract import Shapes, fake_batch
from vla_policy.policy import VLAPolicy

SHAPES = Shapes(frames=2, cameras=1, size=32, proprioception=3, actions=2, vocabulary=20)
Run = tuple[VLAPolicy, AveragedModel, torch.optim.Optimizer]


def run_of(config: PolicyConfig, seed: int, steps: int = 0) -> Run:
    torch.manual_seed(seed)
    policy = VLAPolicy(config, SHAPES)
    policy.normaliser.set_statistics(torch.zeros(3), torch.ones(3))
    average, optimizer = AveragedModel(policy), make_optimizer(policy, TrainConfig())
    for step in range(steps):
        policy.loss(fake_batch(SHAPES, 2, seed=step))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(policy)
    return policy, average, optimizer


def values(run: Run) -> list[Tensor]:
    policy, average, optimizer = run
    found = [*policy.state_dict().values(), *average.state_dict().values()]
    for state in optimizer.state_dict()["state"].values():
        found += [v for v in state.values() if isinstance(v, Tensor)]
    return found


def same(a: Run, b: Run) -> bool:
    return len(values(a)) == len(values(b)) and all(map(torch.equal, values(a), values(b)))


def test_everything_comes_back(policy_config: PolicyConfig, tmp_path: Path) -> None:
    before, after = run_of(policy_config, seed=0, steps=2), run_of(policy_config, seed=1)
    save_state(tmp_path / "state", 17, *before)
    assert not same(before, after)
    assert load_state(tmp_path / "state", *after) == 17
    assert same(before, after)


def test_saving_again_replaces(policy_config: PolicyConfig, tmp_path: Path) -> None:
    run = run_of(policy_config, seed=0, steps=1)
    for step in (1, 2):
        save_state(tmp_path / "state", step, *run)
    assert load_state(tmp_path / "state", *run) == 2
    assert [p.name for p in tmp_path.rglob("*")] == ["state", "state.pt"]  # nothing half-written is left


def test_a_state_that_fails_to_be_written_leaves_the_one_before(
    policy_config: PolicyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(policy_config, seed=0, steps=1)
    save_state(tmp_path / "state", 1, *run)

    def fill_the_disk(_values: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path / "state", 2, *run)
    assert load_state(tmp_path / "state", *run) == 1


def test_whether_there_is_one(policy_config: PolicyConfig, tmp_path: Path) -> None:
    assert not has_state(tmp_path / "state")
    (tmp_path / "state").mkdir()
    assert not has_state(tmp_path / "state")
    save_state(tmp_path / "state", 1, *run_of(policy_config, seed=0))
    assert has_state(tmp_path / "state")


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "foreign", "pickle"])
def test_damage_is_refused_and_the_file_named(policy_config: PolicyConfig, tmp_path: Path, damage: str) -> None:
    run = run_of(policy_config, seed=0, steps=1)
    save_state(tmp_path, 1, *run)
    file = tmp_path / "state.pt"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        file.write_text("not a state")
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, file)
    else:
        torch.save({"step": Path("/")}, file)  # anything but tensors and plain values
    with pytest.raises(ValueError, match=f"{file}: not a state of this run") as caught:
        load_state(tmp_path, *run)
    assert "\n" not in str(caught.value)
