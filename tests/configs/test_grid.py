"""Grids of comparisons: what a file says is what is run, and what cannot be run is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs.grid import GridError, read_grid, variant_name
from configs.run import FOLDER

HEAD = "run: track\nsamples: 640\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def test_rows_are_all_combinations_of_an_items_values_and_seeds(tmp_path: Path) -> None:
    grid = read_grid(
        written(
            tmp_path,
            HEAD
            + """
seeds: [0, 1]
rows:
  - {}
  - policy.encoder.name: [conv3d, frame_lstm]
    policy.frames: [1, 6]
    seeds: [5]
""",
        )
    )
    assert (grid.run, {row.samples for row in grid.rows}, grid.seconds) == ("track", {640}, None)
    assert [row.name for row in grid.rows] == [
        "reference/samples=640/seed=0",
        "reference/samples=640/seed=1",
        "encoder=conv3d,frames=1/samples=640/seed=5",
        "encoder=conv3d,frames=6/samples=640/seed=5",
        "encoder=frame_lstm,frames=1/samples=640/seed=5",
        "encoder=frame_lstm,frames=6/samples=640/seed=5",
    ]
    assert grid.rows[3].changes == {"policy.encoder.name": "conv3d", "policy.frames": 6}
    assert grid.variants[0] == "reference"
    assert len(grid.variants) == 5


def test_several_budgets_make_a_row_each(tmp_path: Path) -> None:
    grid = read_grid(written(tmp_path, "samples: [640, 64]\nrows:\n  - {}\n  - {policy.frames: 2, seeds: [0, 1]}"))
    assert [(row.name, row.samples) for row in grid.rows] == [
        ("reference/samples=64/seed=0", 64),
        ("reference/samples=640/seed=0", 640),
        ("frames=2/samples=64/seed=0", 64),
        ("frames=2/samples=64/seed=1", 64),
        ("frames=2/samples=640/seed=0", 640),
        ("frames=2/samples=640/seed=1", 640),
    ]
    assert grid.variants == ["reference", "frames=2"]


def test_the_base_is_under_every_row_and_in_no_name(tmp_path: Path) -> None:
    text = "base: {policy.frames: 2, policy.width: 32}\nrows: [{}, {policy.frames: 3}]"
    rows = read_grid(written(tmp_path, HEAD + text)).rows
    assert [(row.variant, row.changes) for row in rows] == [
        ("reference", {"policy.frames": 2, "policy.width": 32}),
        ("frames=3", {"policy.frames": 3, "policy.width": 32}),
    ]


def test_a_value_that_is_a_list_has_brackets_of_its_own(tmp_path: Path) -> None:
    text = "base: {policy.frame_ages: [[8, 2, 0]]}\nrows: [{}, {policy.cameras: [[left, right], [front]]}]"
    rows = read_grid(written(tmp_path, HEAD + text)).rows
    ages = {"policy.frame_ages": [8, 2, 0]}
    assert [(row.variant, row.changes) for row in rows] == [
        ("reference", ages),
        ("cameras=left+right", {**ages, "policy.cameras": ["left", "right"]}),
        ("cameras=front", {**ages, "policy.cameras": ["front"]}),
    ]


def test_a_setting_of_a_variant_in_the_base_is_for_the_rows_that_choose_it(tmp_path: Path) -> None:
    text = """
base: {policy.fusion.name: vote, policy.fusion.vote.rule: weighted, policy.encoder.backbone.layers: 1}
rows: [{}, {policy.encoder.name: conv3d}, {policy.fusion.name: concat}]
"""
    rows = read_grid(written(tmp_path, HEAD + text)).rows
    vote = {"policy.fusion.name": "vote", "policy.fusion.vote.rule": "weighted", "policy.encoder.backbone.layers": 1}
    assert [row.changes for row in rows] == [
        vote,
        {**vote, "policy.encoder.name": "conv3d"},
        {"policy.fusion.name": "concat", "policy.encoder.backbone.layers": 1},
    ]


def test_names_fit_a_folder() -> None:
    assert variant_name({"policy.fusion.vote.voters": ["spatial", "language"]}) == "fusion.vote.voters=spatial+language"
    assert "/" not in variant_name({"policy.language.pretrained.source": "/models/bert"})


@pytest.mark.parametrize("path", sorted((FOLDER.parent / "grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_grids_that_ship_can_be_run(path: Path) -> None:
    from eval.compare.run import configured

    grid = read_grid(path)
    assert grid.rows[0].variant == "reference"
    for row in grid.rows:
        config = configured(grid.run, row.changes)
        for key, value in row.changes.items():
            found = config
            for part in key.split("."):
                found = getattr(found, part)
            assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows: [", "not readable as YAML"),
        ("- 1", "needs a list `rows`"),
        (HEAD + "rows: []", "needs a list `rows` with at least one item"),
        ("run: track\nrows: [{}]", "got samples None and seconds None, expected one budget for all rows"),
        ("samples: [640, 0]\nrows: [{}]", "expected one budget"),
        ("samples: []\nrows: [{}]", "expected one budget"),
        (HEAD + "seconds: 5\nrows: [{}]", "expected one budget"),
        ("samples: 0\nrows: [{}]", "expected one budget"),
        (HEAD + "colour: red\nrows: [{}]", "key 'colour' is unknown; use base, rows, run, samples, seconds, seeds"),
        (HEAD + "rows: [3]", "got 3, expected a mapping"),
        (HEAD + "base: 4\nrows: [{}]", "got 4, expected a mapping"),
        ("samples: true\nrows: [{}]", "got samples True"),
        ("samples: [64.5]\nrows: [{}]", "got samples [64.5]"),
        (HEAD + "base: {seeds: [1]}\nrows: [{}]", "base: seeds [1]: seeds and several values are for rows"),
        (
            HEAD + "base: {policy.frames: [1, 2]}\nrows: [{}]",
            "base: policy.frames [1, 2]: seeds and several values",
        ),
        (HEAD + "rows: [{1: 2}]", "row 1: rows may change policy.* and train.*"),
        (HEAD + "seeds: [true]\nrows: [{}]", "seeds [True] must be a list of numbers"),
        (HEAD + "base: {tasks: [reach]}\nrows: [{}]", "rows may change policy"),
        (HEAD + "rows: [{collect.size: 96}]", "got 'collect.size'"),
        (HEAD + "rows: [{train.steps: 5}]", "not the steps or seed; got 'train.steps'"),
        (HEAD + "rows: [{}, {}]", "row 'reference/samples=640/seed=0' is there twice"),
        (HEAD + "seeds: [a]\nrows: [{}]", "must be a list of numbers"),
        (HEAD + "seeds: []\nrows: [{}]", "must be a list of numbers"),
    ],
)
def test_what_cannot_be_run_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(GridError, match=re.escape(words)) as caught:
        read_grid(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"nowhere\.yaml: no such file"):
        read_grid(tmp_path / "nowhere.yaml")
