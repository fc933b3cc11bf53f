"""deploy/: what compose would start, read as data. No engine is needed, and none has run it here."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_proxy.cli.check import examine

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEXT = "\n".join(path.read_text() for path in (DEPLOY / "compose.yaml", DEPLOY / "proxy.yaml"))
README = (DEPLOY / "README.md").read_text()


def prepared(folder: Path) -> Path:
    """A copy of deploy/, after its `prepare`."""
    copy = folder / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("secrets", ".env"))
    subprocess.run(["sh", str(copy / "prepare")], check=True, capture_output=True, timeout=30)
    return copy


def contents(deploy: Path) -> Mapping[str, str]:
    return {path.name: path.read_text() for path in (*(deploy / "secrets").iterdir(), deploy / ".env")}


def members(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service["networks"]}


def test_all_four_are_there() -> None:
    assert set(SERVICES) == {"proxy", "postgres", "collector", "phoenix"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert re.match(r"\d+\.\d+", tag), f"{name}: {SERVICES[name]['image']}"


def test_the_versions_are_those_of_the_project_and_of_the_tests() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    version = SERVICES["proxy"]["image"].partition(":")[2]
    assert f'\nversion = "{version}"\n' in project
    phoenix = SERVICES["phoenix"]["image"].partition(":")[2]
    assert f"arize-phoenix=={phoenix} " in (ROOT / "requirements-phoenix.txt").read_text()
    collector = SERVICES["collector"]["image"].partition(":")[2]
    assert f"otlpreceiver v{collector}\n" in (ROOT / "tests" / "backends" / "otelcol.yaml").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_or_says_why_not(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        dockerfile = (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).read_text()
        assert "\nHEALTHCHECK " in dockerfile
    elif name == "collector":
        assert "No health check from inside" in (DEPLOY / "compose.yaml").read_text()
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


def test_phoenix_is_built_from_the_lock_of_the_tests_and_nothing_else() -> None:
    context = (DEPLOY / "phoenix.Dockerfile.dockerignore").read_text().splitlines()
    assert [line for line in context if not line.startswith("#")] == ["*", "!requirements-phoenix.txt"]
    dockerfile = (DEPLOY / "phoenix.Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+)", dockerfile, re.MULTILINE)
    assert copied == ["requirements-phoenix.txt"]
    assert "--require-hashes" in dockerfile
    assert "USER 10001:10001" in dockerfile


def test_agents_reach_the_proxy_and_nothing_else() -> None:
    assert COMPOSE["networks"]["agents"] == {"internal": True}
    assert members("agents") == {"proxy"}
    assert members("store") == {"proxy", "postgres"}
    assert members("telemetry") == {"proxy", "collector"}
    assert members("traces") == {"collector", "phoenix"}
    apart = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    assert apart == {"agents", "store", "telemetry", "traces"}
    assert set(COMPOSE["networks"]) - apart == {"outside"}


def test_only_the_proxy_and_the_sign_in_page_are_published_and_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "proxy": ["${PROXY_BIND:-127.0.0.1}:4000:4000"],
        "phoenix": ["127.0.0.1:${PHOENIX_UI_PORT:-6006}:6006"],
    }
    assert SERVICES["phoenix"]["environment"]["PHOENIX_ENABLE_AUTH"] == "true"


@pytest.mark.parametrize("name", ["proxy", "collector", "phoenix"])
def test_no_service_can_change_its_image_or_raise_its_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_what_is_mounted_is_there_and_every_volume_is_used() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service["volumes"]]
    files = {source for source, *_ in mounts if source.startswith(".")}
    assert all((DEPLOY / source).is_file() for source in files)
    assert {source for source, *_ in mounts} - files == set(COMPOSE["volumes"])


def test_calls_in_flight_can_end_before_the_proxy_is_killed() -> None:
    config = yaml.safe_load((DEPLOY / "proxy.yaml").read_text())
    assert int(SERVICES["proxy"]["stop_grace_period"].rstrip("s")) > config["server"]["drain_s"]


def test_every_variable_is_documented() -> None:
    named = set(re.findall(r"\$\{(\w+)", TEXT))
    assert {name for name in named if f"`{name}`" not in README} == set()


def test_the_collector_is_told_only_what_its_file_reads() -> None:
    read = set(re.findall(r"\$\{env:(\w+)", (ROOT / "otel-collector.yaml").read_text()))
    assert set(SERVICES["collector"]["environment"]) <= read


def test_prepare_makes_every_secret_once_and_keeps_them_from_others(tmp_path: Path) -> None:
    deploy = prepared(tmp_path)
    made = contents(deploy)
    named = {secret["file"].removeprefix("secrets/") for secret in COMPOSE["secrets"].values()}
    assert set(made) - {".env"} == named
    assert made["postgres-password"] in made["store-url"]
    assert len(set(made.values())) == len(made)
    assert stat.S_IMODE((deploy / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((deploy / ".env").stat().st_mode) == 0o600
    readable = {stat.S_IMODE((deploy / "secrets" / name).stat().st_mode) for name in named}
    assert readable == {0o644}, "the proxy, which isn't their owner, has to read them"
    needed = set(re.findall(r"\$\{(\w+):\?", TEXT))
    told = dict(line.split("=", 1) for line in made[".env"].splitlines() if "=" in line)
    assert all(len(told[name]) >= 24 for name in needed)
    subprocess.run(["sh", str(deploy / "prepare")], check=True, capture_output=True, timeout=30)
    assert contents(deploy) == made


def test_the_secrets_stay_out_of_git_and_of_the_images() -> None:
    assert (DEPLOY / ".gitignore").read_text().split() == [".env", "secrets/"]
    context = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in context
    assert not any(line.startswith("!deploy") for line in context)


def test_the_proxys_files_pass_the_check(tmp_path: Path) -> None:
    """`llm-proxy check` of the mounted files, with the container's paths put to the test's folder."""
    deploy = prepared(tmp_path)
    text = (deploy / "proxy.yaml").read_text()
    moved = text.replace("/run/secrets/", f"{deploy}/secrets/").replace("/data/", f"{tmp_path}/")
    (deploy / "proxy.yaml").write_text(moved)
    report = examine(deploy / "proxy.yaml", {"OPENAI_API_KEY": ""} | dict(os.environ))
    assert [str(issue) for issue in (*report.errors, *report.warnings)] == []
    assert report.config is not None
    _, _, told = (deploy / "secrets" / "store-url").read_text().partition("://")
    assert report.config.store.get_secret_value() == f"postgresql+psycopg://{told}"
