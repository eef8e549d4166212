"""Datasets that LeRobot wrote: what is taken of them, and what is said of those that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from configs.lerobot import ImportConfig
from configs.policy import PolicyConfig
from configs.training import TrainConfig
from training.data.episodes import DatasetError
from training.data.lerobot import layout
from training.data.lerobot.export import export_lerobot
from training.data.lerobot.ingest import import_lerobot
from vla_policy.cli import main

WriteForeign = Callable[..., Path]
DATA, EPISODES = "data/chunk-000/file-001.parquet", "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.head/chunk-000/file-000.mp4"


def test_what_is_taken(write_foreign: WriteForeign, tmp_path: Path) -> None:
    data = import_lerobot(write_foreign(), tmp_path / "out", ImportConfig(size=16))
    assert data.header["task"] == "drawers"
    assert data.interface.cameras == ("head", "wrist")
    assert data.interface.action_names == ("turn", "slide")
    assert data.interface.agent_pos_names == ("a", "b", "grip")
    assert data.interface.control_hz == 15
    # The second episode has two instructions, and becomes two.
    assert data.header["steps"] == [6, 4, 5, 4]
    assert data.texts == ["open the drawer", "open the drawer", "close the drawer", "open the drawer"]
    assert data.arrays["seeds"].tolist() == [0, 1, 10_000_001, 2]
    assert not data.labelled
    head, wrist = data.arrays["pixels"][:, 0], data.arrays["pixels"][:, 1]
    assert np.abs(head.mean(axis=(1, 2, 3)) - 10 * np.arange(19)).max() < 2.5
    assert wrist[:, 0, 0, 0].tolist() == [100] * 6 + [101] * 9 + [102] * 4
    assert data.header["action_scale"] == {"low": [0.0, 2.0], "high": [512.0, 4.0]}
    assert data.arrays["executed"][:6, 0].tolist() == pytest.approx(np.linspace(-1, 1, 6).tolist())
    assert (data.arrays["executed"][:, 1] == 0).all()


def test_actions_go_back_into_their_units(write_foreign: WriteForeign, tmp_path: Path) -> None:
    data = import_lerobot(write_foreign(), tmp_path / "out", ImportConfig(size=16))
    export_lerobot(data, tmp_path / "again", pictures="png")
    frames = parquet.read_table(tmp_path / "again/data/chunk-000/file-000.parquet").to_pydict()
    assert np.allclose(np.array(frames["action"])[:6, 0], np.linspace(0, 512, 6), atol=1e-3)
    assert np.allclose(np.array(frames["action"])[:, 1], 3)


def test_it_can_be_trained_on(
    write_foreign: WriteForeign, policy_config: PolicyConfig, config: TrainConfig, tmp_path: Path
) -> None:
    from training.bc import train
    from vla_policy.checkpoint import load_checkpoint

    chosen = ImportConfig(size=16, cameras=("wrist",), task="mine", action_low=(-1, 0), action_high=(600, 4))
    data = import_lerobot(write_foreign(), tmp_path / "out", chosen)
    from dataclasses import replace

    policy = replace(policy_config, cameras=("wrist",))
    train(policy, config, [data], tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run/checkpoint")
    assert checkpoint.purpose.tasks == ("mine",)
    assert not checkpoint.purpose.boxes
    assert checkpoint.provenance["data"][0]["action_scale"] == {"low": [-1.0, 0.0], "high": [600.0, 4.0]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ("a", "b")),
        ({"motors": ["a", "b"]}, ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        (None, ("action_0", "action_1")),
        (["a"], ("action_0", "action_1")),
        (["a", "a"], ("a_0", "a_1")),
        ({"left": ["a"], "right": ["b"]}, ("action_0", "action_1")),
    ],
)
def test_names_come_in_many_forms(names: Any, expected: tuple[str, ...]) -> None:
    assert layout.names_of({"names": names}, 2, "action") == expected


def features(key: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda info: info["features"].setdefault(key, {}).update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(codebase_version="v2.1"), "convert it first.*convert_dataset_v21_to_v30"),
        (lambda info: info.update(codebase_version="v4.0"), "'v4.0', expected v3.0"),
        (lambda info: info.update(fps=0), "fps 0, expected a number from 0.001"),
        (lambda info: info.update(total_episodes=7), "3 episodes, meta/info.json says 7"),
        (lambda info: info.update(features=[]), "has no features"),
        (features("observation.state", shape=[4]), r"observation.state.*expected numbers of the shape \[4\]"),
        (features("action", shape=["x"]), "feature 'action' has the shape"),
        (
            lambda info: info["features"].pop("action"),
            "no vector 'action'; choose one with --action: obs",
        ),
        (lambda info: info["features"].pop("observation.state"), "no vector 'observation.state'; choose"),
    ],
)
def test_a_wrong_description_is_one_line(
    write_foreign: WriteForeign, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        import_lerobot(write_foreign(change=change), tmp_path / "out", ImportConfig(size=16))


@pytest.mark.parametrize("field", ["data_path", "video_path"])
@pytest.mark.parametrize(
    ("template", "message"), [("../{chunk_index}", "leads out"), ("/etc/{file_index}", "leads out"), ("{x}", "no path")]
)
def test_paths_stay_inside(
    write_foreign: WriteForeign, tmp_path: Path, field: str, template: str, message: str
) -> None:
    root = write_foreign()
    info = json.loads((root / layout.INFO).read_text())
    (root / layout.INFO).write_text(json.dumps({**info, field: template}))
    with pytest.raises(DatasetError, match=message):
        import_lerobot(root, tmp_path / "out", ImportConfig(size=16))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImportConfig(), "pictures are head 24 x 32, wrist 24 x 32; say with --size"),
        (ImportConfig(size=16, cameras=("hed",)), "no camera 'hed'; choose from head, wrist"),
        (ImportConfig(size=16, action_low=(0,), action_high=(1,)), "--action-low has 1 numbers, .* has 2"),
        (ImportConfig(size=16, action_low=(0, 0), action_high=(9, 9)), "turn goes from 0 to 512, beyond 0 to 9"),
        (ImportConfig(size=16, state="next.reward"), ""),
    ],
)
def test_what_is_asked_for_must_be_there(
    write_foreign: WriteForeign, tmp_path: Path, config: ImportConfig, message: str
) -> None:
    if not message:
        assert import_lerobot(write_foreign(), tmp_path / "out", config).interface.agent_pos_names == ("state_0",)
        return
    with pytest.raises(DatasetError, match=message):
        import_lerobot(write_foreign(), tmp_path / "out", config)


def rewrite(file: Path, **columns: Any) -> None:
    table = parquet.read_table(file)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        table = table.remove_column(place) if value is None else table.set_column(place, name, pyarrow.array(value))
    parquet.write_table(table, file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: cut(root / DATA), f"{DATA}: not readable as Parquet"),
        (lambda root: (root / DATA).unlink(), f"{DATA}: missing"),
        (lambda root: cut(root / EPISODES), f"{EPISODES}: not readable as Parquet"),
        (lambda root: cut(root / layout.TASKS), "tasks.parquet: not readable as Parquet"),
        (lambda root: cut(root / VIDEO), "file-000.mp4: not readable as a video"),
        (lambda root: (root / VIDEO).unlink(), "file-000.mp4: missing"),
        (lambda root: (root / layout.INFO).write_text("{"), "info.json: not readable as JSON"),
        (lambda root: (root / layout.INFO).unlink(), "is no dataset of LeRobot's"),
        (lambda root: rewrite(root / DATA, action=None), f"{DATA}: has no column 'action'"),
        (lambda root: rewrite(root / DATA, action=[[float("nan"), 0.0]] * 9), "values that are not finite"),
        (lambda root: rewrite(root / DATA, timestamp=[None] * 9), "'timestamp' has 0 values"),
        (lambda root: rewrite(root / DATA, timestamp=[9.0 + i for i in range(9)]), "ends before second"),
        (lambda root: rewrite(root / DATA, task_index=[5] * 9), "task_index 5 is not in"),
        (lambda root: rewrite(root / DATA, episode_index=[0] * 9), "episode 0: 15 rows or more, .* says 6"),
        (lambda root: rewrite(root / DATA, frame_index=list(range(9))[::-1]), "rows out of order"),
        (lambda root: rewrite(root / EPISODES, length=[6, 8, 4]), "episode 1: 9 rows or more, .* says 8"),
        (lambda root: rewrite(root / layout.TASKS, __index_level_0__=["", "b"]), "say one with --instruction"),
        (
            lambda root: rewrite(root / DATA, **{"observation.images.wrist": [{"bytes": b"x", "path": ""}] * 9}),
            "unreadable picture",
        ),
    ],
)
def test_damage_is_one_line(
    write_foreign: WriteForeign, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    root = write_foreign()
    damage(root)
    with pytest.raises(DatasetError, match=message) as caught:
        import_lerobot(root, tmp_path / "out", ImportConfig(size=16))
    assert "\n" not in str(caught.value)


def test_the_commands(
    write_foreign: WriteForeign, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    assert main(["data", "import", str(write_foreign()), "--out", out, "--size", "16", "--cameras", "head"]) == 0
    said = capsys.readouterr().out
    assert "4 episodes, 19 steps at 15 Hz" in said
    assert "0 to 512, 2 to 4" in said
    assert main(["data", "export", out, "--out", str(tmp_path / "back")]) == 0
    assert main(["data", "export", out, "--out", str(tmp_path / "back")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["data", "exprt"]) == 2
    assert "did you mean export?" in capsys.readouterr().err
    assert main(["data", "export", out, "--out", "x", "--format", "rlds"]) == 2
    assert main(["data"]) == 0
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    assert main(["data", "import", out, "--out", out]) == 2
    assert "pip install 'vla_policy[lerobot]'" in capsys.readouterr().err
