"""`import vla_policy` is quick, and offers its public names all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vla_policy

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "timm", "mujoco", "gymnasium", "numpy")


def run(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = run("-c", f"import sys, vla_policy; dir(vla_policy); print(set({HEAVY!r}) & set(sys.modules))")
    assert loaded.strip() == "set()"


def test_the_help_of_the_command_loads_nothing_heavy() -> None:
    code = f"import sys; from vla_policy.cli import main; main(['--help']); print(set({HEAVY!r}) & set(sys.modules))"
    assert run("-c", code).strip().splitlines()[-1] == "set()"


def test_no_command_loads_the_compiler() -> None:
    """Which takes as long as all the rest: each process of a collection or an evaluation would."""
    code = "import sys, eval.evaluate, training.collect; print('torch._dynamo' in sys.modules)"
    assert run("-c", code).strip() == "False"


def test_every_public_name_is_there_in_a_fresh_process() -> None:
    code = (
        "import vla_policy\n"
        "for name in vla_policy.__all__: assert getattr(vla_policy, name) is not None, name\n"
        "from vla_policy import *\n"
        "print(VLAPolicy.__module__, load_checkpoint(DEFAULT_POLICY).policy.config == PolicyConfig())\n"
        "print(load_checkpoint(DEFAULT_POLICY).policy.config.frames == PolicyConfig().frames)"
    )
    assert run("-c", code).split() == ["vla_policy.policy", "False", "True"]


def test_names_are_listed_once_and_shown() -> None:
    assert len(set(vla_policy.__all__)) == len(vla_policy.__all__)
    assert set(vla_policy.__all__) == set(vla_policy._HOMES)
    assert set(vla_policy.__all__) <= set(dir(vla_policy))
    assert "__doc__" in dir(vla_policy)


def test_a_name_is_the_one_of_its_module_and_kept() -> None:
    from vla_policy.policy import VLAPolicy

    assert vla_policy.VLAPolicy is VLAPolicy
    assert vars(vla_policy)["VLAPolicy"] is VLAPolicy


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'VLAPolcy' \(did you mean VLAPolicy\?\)"):
        vla_policy.VLAPolcy  # noqa: B018 - looking it up is the test
    assert not hasattr(vla_policy, "nothing_of_the_kind")
