"""Writes AgentDojo's tasks as tool calls into a JSON file, for `bench.agentdojo`.

Run as `python -m bench.agentdojo_export FILE [--suites v1.2.2]` by a Python that has the package `agentdojo`;
nothing else is needed. AgentDojo (Debenedetti et al., 2024, https://github.com/ethz-spylab/agentdojo) gives
each task the calls that solve it. A user task's calls are run in its own environment, with a mark in place of
every injection: a call whose result holds a mark is one by which an attack comes in.
"""

from __future__ import annotations

import argparse
import importlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

MARK = "INJECTED-HERE"
SUITES = "v1.2.2"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", type=Path)
    options.add_argument("--suites", default=SUITES, help="the version of the benchmark's task suites")
    chosen = options.parse_args()
    dump = export(chosen.suites)
    chosen.file.write_text(json.dumps(dump, indent=1))
    for name, suite in dump["suites"].items():
        print(
            f"{name}: {len(suite['user_tasks'])} user tasks, {len(suite['injection_tasks'])} injection tasks"
        )


def export(suites: str = SUITES) -> dict[str, Any]:
    """`{package, suites_version, suites: {name: {tools, user_tasks, injection_tasks}}}`."""
    load: Any = importlib.import_module("agentdojo.task_suite.load_suites")
    found = load.get_suites(suites)
    return {
        "package": f"agentdojo {version('agentdojo')}",
        "suites_version": suites,
        "suites": {name: _suite(suite) for name, suite in sorted(found.items())},
    }


def _suite(suite: Any) -> dict[str, Any]:
    return {
        "tools": {tool.name: tool.parameters.model_json_schema() for tool in suite.tools},
        "user_tasks": {id_: _user_task(suite, task) for id_, task in suite.user_tasks.items()},
        "injection_tasks": {
            id_: {"goal": task.GOAL, "calls": [_call(call) for call in _solution(suite, task)]}
            for id_, task in suite.injection_tasks.items()
        },
    }


def _solution(suite: Any, task: Any) -> list[Any]:
    return task.ground_truth(_environment(suite, task, {}))


def _environment(suite: Any, task: Any, injections: dict[str, str]) -> Any:
    environment = suite.load_and_inject_default_environment(injections)
    return task.init_environment(environment) if hasattr(task, "init_environment") else environment


def _user_task(suite: Any, task: Any) -> dict[str, Any]:
    """The calls as in a peaceful environment, and of each whether an injection would come in by it."""
    runtime: Any = importlib.import_module("agentdojo.functions_runtime").FunctionsRuntime(suite.tools)
    marked = _environment(suite, task, dict.fromkeys(suite.get_injection_vector_defaults(), MARK))
    bad = [runtime.run_function(marked, call.function, call.args)[0] for call in task.ground_truth(marked)]
    calls = [_call(call) for call in _solution(suite, task)]
    assert len(bad) == len(calls), f"{task.ID} differs where an injection stands"
    return {
        "prompt": task.PROMPT,
        "calls": [call | {"injected": MARK in str(result)} for call, result in zip(calls, bad, strict=True)],
    }


def _call(call: Any) -> dict[str, Any]:
    return {"tool": call.function, "args": json.loads(json.dumps(dict(call.args), default=str))}


if __name__ == "__main__":
    main()
