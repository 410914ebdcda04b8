import getpass
import json
import re
import socket
import sys
from pathlib import Path

import pytest
import torch

from lib import devices
from lib.devices import choose_device, choose_precision, describe_environment, device_name
from lib.paths import ROOT

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((10, 0), "bf16"),
        ((9, 0), "bf16"),
        ((8, 6), "bf16"),
        ((8, 0), "bf16"),
        ((7, 5), "fp16"),
        ((7, 0), "fp16"),
        ((6, 1), "fp32"),
        ((3, 7), "fp32"),
    ],
)
def test_precision_that_a_gpu_does_well(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert choose_precision(GPU) == precision


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16"), (False, "fp32")])
def test_precision_that_a_processor_does_well(monkeypatch, supported, precision):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert choose_precision(CPU) == precision


@pytest.mark.parametrize(("available", "kind"), [(True, "cuda"), (False, "cpu")])
def test_a_visible_gpu_is_taken(monkeypatch, available, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device().type == kind


def test_precisions_have_their_types():
    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    assert types == devices.DTYPES


def test_processor_has_a_name():
    assert device_name(CPU).strip()


def test_gpu_names_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla T4")
    assert device_name(GPU) == "Tesla T4"


def test_environment_record_says_what_a_run_ran_on():
    record = describe_environment(CPU, "fp32")
    assert record["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert (record["device"], record["precision"]) == ("cpu", "fp32")
    assert record["threads"] == torch.get_num_threads()
    assert None not in record["packages"].values()


def test_environment_record_is_plain_json():
    record = describe_environment(CPU, "fp32")
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize("executable", [sys.executable, "/opt/somewhere/bin/python3", str(ROOT / ".venv/bin/python")])
def test_environment_record_names_no_path_host_or_user(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    text = json.dumps(describe_environment(CPU, "fp32"))
    values = re.findall(r'"([^"]*)"', text)
    assert not any(value.startswith(("/", "~", "\\")) for value in values)
    for private in (str(ROOT), str(Path.home()), socket.gethostname(), getpass.getuser()):
        assert private not in values
    assert str(ROOT) not in text


def test_python_outside_the_checkout_is_named_without_its_folder(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/someone/envs/bin/python3")
    assert describe_environment(CPU, "fp32")["python_executable"] == "python3"


def test_copy_without_git_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_environment(CPU, "fp32")["commit"] is None


def test_machine_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert describe_environment(CPU, "fp32")["commit"] is None


def test_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(devices, "PACKAGES", ("torch", "no-such-package"))
    assert describe_environment(CPU, "fp32")["packages"]["no-such-package"] is None
