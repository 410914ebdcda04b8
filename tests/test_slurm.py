"""Runs as SLURM jobs: on a cluster of one node on this machine, and with stand-ins for SLURM's programs."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import pytest
from conftest import STUDY, end, wait_until, write_study

from lib.files import ROOT, StudyError, outputs_folder, read_json, run_folder, write_json
from lib.launch import slurm
from lib.study import load_study

pytestmark = pytest.mark.slow
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=2
MinJobAge=3600
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=500 Gres=gpu:2
PartitionName=main Nodes=n1 Default=YES MaxTime=60 State=UP
"""


@pytest.fixture
def study_file(tmp_path):
    return str(write_study(tmp_path))


@pytest.fixture
def study(study_file):
    return load_study(study_file)


def ask(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def queue():
    """{job id: state} of all jobs that the cluster knows."""
    return dict(map(str.split, ask("squeue", "--array", "--states=all", "--noheader", "--format=%i %T").splitlines()))


def jobs_in(state):
    return [job for job, found in queue().items() if found == state]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def cluster(monkeypatch, study_file):
    """A SLURM cluster on the loopback interface: one node with two CPUs and two pretended GPUs.

    What the fixture gives starts the command on the tiny study there, with more words.
    """
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin")
    if os.getuid() or not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))):
        pytest.skip("needs root and SLURM's programs")
    with tempfile.TemporaryDirectory(prefix="slurm") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "state").mkdir()
        (folder / "spool-n1").mkdir()
        try:
            for index in (0, 1):
                os.mknod(folder / f"gpu{index}", stat.S_IFCHR, os.makedev(195, index))  # as NVIDIA's driver makes them
        except PermissionError:
            pytest.skip("needs the right to make device nodes")
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=free_ports(2)))
        (folder / "gres.conf").write_text(f"NodeName=n1 Name=gpu File={folder}/gpu[0-1]\n")
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))

        def start(*command, output=subprocess.DEVNULL):
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            return process

        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        start("munged", "--foreground", "--force", *(f"--{option}={folder}/{file}" for option, file in munge.items()))
        wait_until((folder / "socket").exists)
        start("slurmctld", "-D")
        start("slurmd", "-D", "-N", "n1")
        wait_until(lambda: ask("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"])
        stack.callback(wait_until, lambda: not {"RUNNING", "COMPLETING"} & set(queue().values()))
        stack.callback(subprocess.run, ["scancel", "--user=root"])
        command = [sys.executable, "-m", "lib", "--study", study_file, "--engine", "slurm"]
        yield lambda *more: start(*command, *more, output=subprocess.PIPE)


def test_the_same_command_completes_what_a_cancelled_job_left(cluster, study_file):
    Path(study_file).write_text(STUDY.replace("seeds: 2", "seeds: 1"))
    outputs, folder = outputs_folder("tiny"), run_folder("tiny", "resnet18", 0)
    first = cluster("--jobs", "1")
    wait_until((folder / "metrics.csv").exists)
    (cancelled,) = jobs_in("RUNNING")
    subprocess.run(["scancel", cancelled], check=True)
    end(first)
    lines = [line for line in first.err.splitlines() if line.startswith("failed: ")]
    reason = f"SLURM job {cancelled} ended before the run was complete (CANCELLED)"
    assert first.returncode == 1 and len(queue()) == 2 and lines == [f"failed: resnet18 seed 0: {reason}"]
    done = {path: path.stat().st_mtime_ns for path in outputs.rglob("summary.json")}
    assert len(done) == 1 and folder / "summary.json" not in done
    second = end(cluster())
    assert second.returncode == 0, second.err
    assert "1 of 2 runs are complete" in second.out and len(queue()) == 3
    summaries = list(outputs.rglob("summary.json"))
    assert len(summaries) == 2 and all(path.stat().st_mtime_ns == before for path, before in done.items())
    assert read_json(outputs / "results.json")["primary"]["n_pairs"] == 1


def test_jobs_without_their_command_are_not_doubled_and_ctrl_c_cancels(cluster, study, study_file, monkeypatch):
    subprocess.run(["scontrol", "update", "nodename=n1", "state=drain", "reason=maintenance"], check=True)
    orphans = slurm._submit(study, study_file, study.runs, None)
    with pytest.raises(StudyError, match=f"an earlier command are still .*scancel {min(queue())[:-2]}$"):
        slurm.run_jobs(study, study_file, study.runs)
    assert set(jobs_in("PENDING")) == {job.job_id for job in orphans} and len(orphans) == 4
    subprocess.run(["scancel", *jobs_in("PENDING")], check=True)
    command = cluster()
    wait_until(lambda: len(jobs_in("PENDING")) == 4)
    command.send_signal(signal.SIGINT)
    assert end(command).returncode == 130 and set(queue().values()) == {"CANCELLED"}
    submit, known = slurm._submit, set(queue())
    monkeypatch.setattr(slurm, "_submit", lambda *given: submit(*given) and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        slurm.run_jobs(study, study_file, study.runs)
    assert set(queue()) > known and set(queue().values()) == {"CANCELLED"}


@pytest.fixture
def program(programs, tmp_path, monkeypatch):
    """program(name=script, …) puts stand-ins in front of the programs that are found."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return programs


def test_runs_whose_jobs_ended_otherwise_are_named_and_the_others_are_not(study, monkeypatch, capsys):
    stderr = {"stderr": lambda: "warning\nlib.files.StudyError: no luck\n"}
    jobs = [types.SimpleNamespace(job_id=f"7_{index}", **stderr) for index in range(4)]
    answers = [
        {},  # before anything is submitted
        {"7": ("PENDING", "")},
        {"7_0": ("COMPLETED", ""), "7_1": ("RUNNING", ""), "7_2": ("RUNNING", ""), "7_3": ("RUNNING", "")},
        StudyError("SLURM does not answer"),
        {"7_1": ("OUT_OF_MEMORY", ""), "7_2": ("COMPLETING", ""), "7_3": ("RUNNING", "")},
        {"7_1": ("OUT_OF_MEMORY", ""), "7_2": ("FAILED", "")},  # the last is forgotten
    ]
    monkeypatch.setattr(slurm, "_queue", mock.Mock(side_effect=answers))
    monkeypatch.setattr(slurm, "_submit", lambda *_: jobs)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0)
    for config in (study.runs[0], study.runs[3]):
        write_json(run_folder(study.name, config.arm, config.seed) / "summary.json", {})
    assert slurm.run_jobs(study, "tiny", study.runs) == 2
    reason = "SLURM job 7_1 ended before the run was complete (OUT_OF_MEMORY)"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert lines == [f"failed: se_resnet18 seed 0: {reason}", "failed: resnet18 seed 1: no luck"]


def test_one_array_leaves_all_but_gpus_to_the_user(program, study, tmp_path, monkeypatch):
    def asked_of_sbatch(jobs):
        assert [job.job_id for job in slurm._submit(study, "tiny", study.runs, jobs)] == ["7_0", "7_1", "7_2", "7_3"]
        script = (tmp_path / "script").read_text()
        assert f"\n{shlex.quote(sys.executable)} -u -m submitit" in script and "srun" not in script
        return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))

    program(srun="exit 1", sbatch=f'cp "$1" "{tmp_path}/script"; echo Submitted batch job 7')
    program(sinfo="test \"$4\" = small && echo 'small|craynetwork:4' || echo 'cpu|(null)\nmain*|gpu:a100:4(S:0-1)'")
    options = asked_of_sbatch(jobs=2)
    assert options["array"] == "0-3%2" and options["gres"] == "gpu:1" and options["chdir"] == str(ROOT)
    assert options["comment"] == str(outputs_folder("tiny"))
    assert not {"partition", "time", "account", "qos", "mem", "cpus-per-task", "wckey"} & set(options)
    monkeypatch.setenv("SBATCH_PARTITION", "small")
    assert "gres" not in asked_of_sbatch(jobs=1)


@pytest.mark.parametrize(("sinfo", "expected"), [("echo 'main*|(null)'", "invalid account"), ("exit 1", "sinfo")])
def test_jobs_that_slurm_refuses_are_an_error_of_one_line(sinfo, expected, program, study):
    program(squeue="exit 0", sinfo=sinfo, srun="exit 1", sbatch="echo 'sbatch: error: invalid account' >&2; exit 1")
    with pytest.raises(StudyError, match=f"SLURM does not .*{expected}") as caught:
        slurm.run_jobs(study, "tiny", study.runs)
    assert "\n" not in str(caught.value)


def test_a_job_runs_in_the_folders_of_the_command_with_the_threads_of_its_node(study_file, tmp_path, monkeypatch):
    started, process = [], types.SimpleNamespace(wait=lambda: None)
    monkeypatch.setattr(slurm, "run_process", lambda *given: started.append(given) or process)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    monkeypatch.setenv("STUDY_DATA", "lost on the way")
    folders = {"STUDY_DATA": str(tmp_path / "images"), "STUDY_OUTPUTS": str(tmp_path / "results")}
    slurm.run_job(study_file, "se_resnet18", 1, folders)
    study = load_study(study_file)
    assert started == [(study, study_file, study.run("se_resnet18", 1), {"OMP_NUM_THREADS": "3"})]
    assert folders.items() <= os.environ.items()
