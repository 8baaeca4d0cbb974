"""The workflows in .github: that they can be read, name tasks that exist, and run each Python that is promised."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.support.wheels import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps_of(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_step_uses_a_pinned_action_or_runs_a_command(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps_of(workflow):
        assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"]) if "uses" in step else step["run"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_task_that_a_workflow_runs_exists(path: Any) -> None:
    tasks = re.findall(r"^def (\w+)\(", (ROOT / "dev.py").read_text(), flags=re.M)
    named = re.findall(r"python3 dev\.py (\w+)", path.read_text())
    assert named
    assert set(named) <= set(tasks)


def test_each_python_that_is_promised_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)$", "\n".join(project["classifiers"]), flags=re.M)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tested = workflow["jobs"]["quick"]["strategy"]["matrix"]["python"]
    assert promised
    assert set(promised) <= set(tested)


def test_each_hook_before_a_commit_runs_the_projects_own_tools() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert all(hook["entry"].startswith(".venv/bin/ruff ") for hook in repository["hooks"])
