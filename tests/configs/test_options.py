"""Options and named runs: how lists are written, and what a mistake on the command line or in a file is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from configs.options import eval_config, parse, run_config, run_parser
from configs.run import RunConfig


def configure(*arguments: str) -> RunConfig:
    return run_config(parse(run_parser("train", "track"), list(arguments)))


def refused(*arguments: str) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        configure(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


CONV3D = ("--policy.encoder.name", "conv3d")


class TestLists:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--tasks", "reach"], ("reach",)),
            (["--tasks", "reach,track"], ("reach", "track")),
            (["--tasks", "reach, track"], ("reach", "track")),
            (["--tasks=reach,track"], ("reach", "track")),
            (["--tasks", "[reach, track]"], ("reach", "track")),
            (["--tasks=[reach]"], ("reach",)),
        ],
    )
    def test_with_commas_or_in_brackets(self, arguments: list[str], expected: tuple[str, ...]) -> None:
        assert configure(*arguments).tasks == expected

    def test_of_every_section(self) -> None:
        config = configure("--collect.cameras", "front,wrist", "--policy.cameras=wrist", "--eval.controls", "expert")
        assert config.collect.cameras == ("front", "wrist")
        assert config.policy.cameras == ("wrist",)
        assert config.eval.controls == ("expert",)
        assert configure("--eval.controls", "").eval.controls == ()
        assert configure(*CONV3D, "--policy.encoder.conv3d.kernel", "1,5").policy.encoder.conv3d.kernel == (1, 5)

    def test_options_of_one_command(self) -> None:
        parser = ArgumentParser(prog="vla some", exit_on_error=False)
        parser.add_argument("--names", type=tuple[str, ...])
        parser.add_argument("text", type=str)
        parsed = parse(parser, ["a,b", "--names", "a,b"])
        assert (parsed.text, parsed.names) == ("a,b", ("a", "b"))
        assert parse(parser, ["a"]).names is None

    @pytest.mark.parametrize("arguments", [["--tasks"], ["--tasks", "--train.steps", "3"]])
    def test_a_missing_value(self, arguments: list[str]) -> None:
        assert "--tasks: expected one argument" in refused(*arguments)


class TestFiles:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("train:\n  stps: 3\n", "key 'train.stps' is unknown (did you mean train.steps?); see `vla train --help`"),
            ("train.stps: 3\n", "key 'train.stps' is unknown (did you mean train.steps?)"),
            ("trian:\n  steps: 3\n", "key 'trian' is unknown (did you mean train?)"),
            ("steps: 3\n", "(did you mean train.steps or dagger.steps or rl.steps or finetune.steps?)"),
            ("head: {blocks: 1}\nblocks: 2\n", "key 'head' is unknown (did you mean policy.head?)"),
            ("train:\n  augment:\n    shfit: 1\n", "(did you mean train.augment.shift?)"),
            ("config: debug\n", "key 'config' is unknown; see"),
            ("train: 3\n", "'train' holds 3, expected `key: value` lines"),
            ("train:\n", "'train' holds None, expected `key: value` lines"),
            ("- 1\n", "the file holds [1], expected `key: value` lines"),
            ("tasks: [track\n", "not readable as YAML"),
            ("train:\n  steps:\n", "key 'train.steps' has no value"),
        ],
    )
    def test_a_mistake_names_the_file_and_the_key(self, file: Path, text: str, words: str) -> None:
        file.write_text(text)
        message = refused("--config", str(file))
        assert message.startswith(f"{file}: ")
        assert words in message

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("tasks: track\n", 'key "tasks": Expected a list such as [a, b]. Got value: track'),
            ("train:\n  steps: many\n", 'key "train.steps": Expected int. Got value: many'),
        ],
    )
    def test_a_value_of_the_wrong_kind(self, file: Path, text: str, words: str) -> None:
        file.write_text(text)
        assert words in refused("--config", str(file))

    def test_every_form_of_a_key_and_no_value_where_none_is_allowed(self, file: Path) -> None:
        file.write_text("train: {steps: 3}\npolicy.width: 32\neval:\n  runner:\n    ensemble:\n")
        config = configure("--config", str(file), "--train.batch", "2")
        assert (config.train.steps, config.train.batch, config.policy.width) == (3, 2, 32)
        assert config.eval.runner.ensemble is None

    @pytest.mark.parametrize("name", ["exp[1].yaml", "exp*.yaml", "~exp.yaml", "a b.yml"])
    def test_a_name_is_no_pattern(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        Path("exp1.yaml").write_text("train:\n  steps: 2\n")
        Path(name).write_text("train:\n  steps: 3\n")
        assert configure("--config", name).train.steps == 3
        assert configure(f"--config={tmp_path / name}").train.steps == 3

    def test_the_last_config_counts(self) -> None:
        assert configure("--config", "track", "--config=debug") == configure("--config", "debug")


@pytest.mark.parametrize("arguments", [[], ["--eval.runner.execute", "8"]])
def test_an_evaluation_does_not_depend_on_the_runs_policy(arguments: list[str]) -> None:
    parsed: Any = parse(run_parser("eval", "debug"), arguments)
    config = eval_config(parsed)
    assert config.episodes == 4
    assert config.runner.execute == (8 if arguments else 2)


def test_the_help_names_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(run_parser("train", "track"), ["--help"])
    assert re.search(r"named run \(.*debug.*\)", " ".join(capsys.readouterr().out.split()))
