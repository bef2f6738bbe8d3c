"""docker/compose.yaml, as far as it can be judged without an engine: what it names is there and goes together."""

import os
import shutil

import pytest
import yaml
from weirtest.weir import ROOT, run

FOLDER = os.path.join(ROOT, "docker")


@pytest.fixture(scope="module")
def compose():
    with open(os.path.join(FOLDER, "compose.yaml")) as file:
        return yaml.safe_load(file)


def test_shape(compose):
    services = compose["services"]
    assert set(services) == {"weir1", "weir2", "redis", "relay1", "relay2", "relay3", "ctl", "mail"}
    assert {name for name, one in services.items() if "profiles" in one} == {"ctl", "mail"}, "up starts all others"
    published = [port for one in services.values() for port in one.get("ports", ())]
    assert len(published) == len(set(published)) and all(port.startswith("127.0.0.1:") for port in published)
    for name, one in services.items():
        assert "image" in one, name
        assert set(one.get("depends_on", ())) <= set(services), name
        assert all(isinstance(word, str) for word in one.get("command", ())), name


def test_what_is_built(compose):
    built = {}
    for one in compose["services"].values():
        if "build" in one:
            context = os.path.join(FOLDER, one["build"]["context"])
            dockerfile = os.path.join(context, one["build"]["dockerfile"])
            assert os.path.isfile(dockerfile), dockerfile
            built[one["image"]] = dockerfile
            with open(dockerfile) as file:
                for words in (line.split() for line in file if line.startswith("COPY ") and "--from" not in line):
                    for source in words[1:-1]:
                        assert os.path.exists(os.path.join(context, source)), source
    assert set(built) == {"weir", "weir-relay"}
    assert {one["image"] for one in compose["services"].values()} == set(built) | {"redis:7"}
    for program in ("smtp-sink", "smtp-source"):
        assert shutil.which(program, path="/usr/sbin:/usr/bin"), "the package has it"


def test_the_weirs(compose):
    """Both have one configuration, which is right, and speaks of services that there are."""
    services = compose["services"]
    for name in ("weir1", "weir2"):
        one = services[name]
        source, target, mode = one["volumes"][0].split(":")
        assert (target, mode) == ("/etc/weir/weir.yaml", "ro")
        path = os.path.join(FOLDER, source)
        code, out, err, _ = run("--check", "-c", path, environment=one["environment"])
        assert code == 0, out + err
        with open(path) as file:
            config = yaml.safe_load(file)
        hosts = [backend["address"].split(":")[0] for backend in config["pools"]["relays"]["backends"].values()]
        assert hosts == ["relay1", "relay2", "relay3"] and set(hosts) <= set(services)
        assert one["environment"]["WEIR_REDIS_URL"] == services["ctl"]["environment"]["WEIR_REDIS_URL"] == "redis://redis:6379/0"
        assert config["redis"]["farm"] == services["ctl"]["entrypoint"][2]
    subnet = compose["networks"]["default"]["ipam"]["config"][0]["subnet"]
    assert services["weir1"]["environment"]["WEIR_ALLOW_FROM"] == subnet
