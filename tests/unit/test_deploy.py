"""Image and compose file, read beside the code: commands exist, ports agree, `check` takes the configuration."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from tests.conftest import ROOT
from tests.helpers.doc_blocks import parse

DEPLOY = ROOT / "deploy"
OURS = DEPLOY / "compose" / "ae_config.toml"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in their order, each on one line."""
    text = re.sub(r"(?m)^#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8")).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def last(name: str) -> str:
    return [rest for found, rest in instructions() if found == name][-1]


def test_the_services_are_those_promised() -> None:
    assert set(SERVICES) == {"node", "worker", "postgres", "orthanc", "ohif", "prometheus"}


def test_nothing_but_this_machine_reaches_a_port() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 6
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port


def test_the_image_runs_as_nobody_of_the_machine() -> None:
    user, group = last("USER").split(":")
    assert int(user) >= 1000 and int(group) >= 1000  # by number: an orchestrator can see that it is not root
    assert "urlopen" in last("HEALTHCHECK")
    assert "/live" in last("HEALTHCHECK")


def test_the_image_starts_a_command_that_exists() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["dicomnode"]
    parse(typer.main.get_command(app), ["dicomnode", *json.loads(last("CMD"))])


@pytest.mark.parametrize("name", ["node", "worker"])
def test_our_services_start_commands_that_exist_on_a_read_only_root(name: str) -> None:
    service = SERVICES[name]
    parse(typer.main.get_command(app), ["dicomnode", *service["command"]])
    assert service["read_only"] is True
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    drain = config.load(OURS).worker.drain_s
    assert int(service["stop_grace_period"].removesuffix("s")) >= 2 * drain + 15


def test_ports_agree_with_the_configurations() -> None:
    loaded, shipped = config.load(OURS), config.load(ROOT / "ae_config.toml")
    exposed = {int(port) for port in last("EXPOSE").split()}
    assert exposed == {loaded.node.port, loaded.monitoring.port, shipped.console.port}
    assert loaded.node.port == shipped.node.port
    assert f":{loaded.monitoring.port}/live" in last("HEALTHCHECK")
    published = {int(port.rpartition(":")[2]) for port in SERVICES["node"]["ports"]}
    assert published == {loaded.node.port, loaded.monitoring.port}


def test_the_services_find_one_another() -> None:
    """Host names are names of services, ports are what these listen on, the subnet is the one that may call."""
    loaded = config.load(OURS)
    pacs = json.loads((DEPLOY / "compose" / "orthanc.json").read_text("utf-8"))
    (destination,) = loaded.destination
    assert (destination.host, destination.port, destination.ae_title) == (
        "orthanc",
        pacs["DicomPort"],
        pacs["DicomAet"],
    )
    ours = pacs["DicomModalities"]["dicomnode"]
    assert (ours["AET"], ours["Host"], ours["Port"]) == (loaded.node.ae_title, "node", loaded.node.port)
    assert "@postgres/" in loaded.storage.database_url
    environment = SERVICES["postgres"]["environment"]
    assert loaded.storage.database_url.endswith(f"{environment['POSTGRES_USER']}@postgres/{environment['POSTGRES_DB']}")
    assert environment["POSTGRES_PASSWORD"] == SERVICES["node"]["environment"]["PGPASSWORD"]
    prometheus = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text("utf-8"))
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == [f"node:{loaded.monitoring.port}"]
    nginx = (DEPLOY / "compose" / "nginx.conf").read_text("utf-8")
    assert f"proxy_pass http://orthanc:{pacs['HttpPort']};" in nginx
    (network,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert [caller.address for caller in loaded.node.callers] == [network["subnet"]]


def test_what_is_mounted_and_copied_is_there() -> None:
    """`build/viewer` is what `make viewer` makes; the rest is in the repository."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists() or source == "../build/viewer/ohif", source
            else:
                assert source in COMPOSE["volumes"]
    ignored = (ROOT / ".dockerignore").read_text("utf-8")
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}\n" in ignored or source == "weights", source


def test_check_finds_nothing_wrong_but_that_the_others_are_not_here(tmp_path: Path) -> None:
    text = (
        OURS.read_text("utf-8")
        .replace("/var/lib/dicomnode", str(tmp_path))
        .replace("/opt/dicomnode/weights", str(ROOT / "weights"))
    )
    text = re.sub(r'database_url = "[^"]*"', 'database_url = ""', text).replace("0.0.0.0", "127.0.0.1")
    file = tmp_path / "ae_config.toml"
    file.write_text(text, "utf-8")
    done = CliRunner().invoke(app, ["check", "--config", str(file), "--json"])
    found = json.loads(done.stdout)
    assert {one["what"] for one in found if not one["ok"]} == {"destination pacs"}, found


def test_the_viewer_s_and_prometheus_files_are_the_ones_without_containers() -> None:
    """But for addresses and folders: a rule that is added there is added here."""

    def rules(path: Path) -> list[str]:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
        changed = r"(daemon|pid|\w+_temp_path|listen|root|proxy_pass|location = /app-config\.js|- targets)"
        return [line for line in lines if not re.match(changed, line)]

    assert rules(DEPLOY / "compose" / "nginx.conf") == rules(DEPLOY / "ohif" / "nginx.conf")
    assert rules(DEPLOY / "compose" / "prometheus.yml") == rules(DEPLOY / "prometheus" / "prometheus.yml")
