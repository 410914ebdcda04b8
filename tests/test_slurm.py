"""Runs as SLURM jobs: on a cluster of two nodes on this machine, and with stand-ins for SLURM's programs."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest

from lib import slurm
from lib.data import load_dataset
from lib.errors import StudyError
from lib.paths import ROOT, outputs_folder, run_folder
from lib.runs import lock, write_json
from lib.study import Study, load_study

NO_SUBMITIT = "submitit is not installed: pip install -e '.[slurm]'"
DAEMONS = ("munged", "slurmctld", "slurmd")
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
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
KillWait=2
MinJobAge=3600
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=500 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=500 Gres=gpu:2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


def eventually(condition, seconds=120):
    """What `condition` returns as soon as that is true; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
        time.sleep(0.1)
    return value


def ask(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def queue():
    """{job id: (state, node)} of all jobs that the cluster knows."""
    lines = ask("squeue", "--array", "--states=all", "--noheader", "--format=%i %T %N").splitlines()
    return {job: (state, *node) for job, state, *node in map(str.split, lines)}


def jobs_in(state):
    return {job: node for job, (found, *node) in queue().items() if found == state}


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def cluster(monkeypatch):
    """A SLURM cluster on the loopback interface: nodes n1 and n2, each with two CPUs and two pretended GPUs.

    What the fixture gives starts the command on the smoke study there, with more words.
    """
    pytest.importorskip("submitit", reason=NO_SUBMITIT)
    missing = [name for name in (*DAEMONS, "sbatch") if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing or os.getuid():
        pytest.skip(f"needs root and SLURM's programs; not here: {', '.join(missing) or 'root'}")
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin")
    with tempfile.TemporaryDirectory(prefix="slurm") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for each in ("state", "spool-n1", "spool-n2"):
            (folder / each).mkdir()
        try:
            for index in (0, 1):
                os.mknod(folder / f"gpu{index}", stat.S_IFCHR, os.makedev(195, index))  # as NVIDIA's driver makes them
        except PermissionError:
            pytest.skip("needs the right to make device nodes")
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=free_ports(3)))
        (folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/gpu[0-1]\n")
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))

        def start(*command, output=subprocess.DEVNULL):
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, text=True)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            return process

        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        start("munged", "--foreground", "--force", *(f"--{option}={folder}/{file}" for option, file in munge.items()))
        eventually((folder / "socket").exists)
        start("slurmctld", "-D")
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-N", node)
        eventually(lambda: ask("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle", "idle"])
        stack.callback(eventually, lambda: not {"RUNNING", "COMPLETING"} & {state for state, *_ in queue().values()})
        stack.callback(subprocess.run, ["scancel", "--user=root"])
        command = [sys.executable, "-m", "lib", "--study", "smoke", "--engine", "slurm"]
        yield lambda *more: start(*command, *more, output=subprocess.PIPE)


def drain(node):
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=drain", "reason=maintenance"], check=True)


def finish(process):
    process.out, process.err = process.communicate(timeout=600)
    return process


def gpus_of_runs():
    """CUDA_VISIBLE_DEVICES of each papermill process that runs in a job of this cluster."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            variables = dict(word.split("=", 1) for word in words if "=" in word)
            in_a_job = "SLURM_JOB_ID" in variables and variables["SLURM_CONF"] == os.environ["SLURM_CONF"]
            if in_a_job and b"\0papermill\0" in (folder / "cmdline").read_bytes():
                found.append(variables.get("CUDA_VISIBLE_DEVICES"))
    return sorted(found)


class Evidence:
    """What was seen, kept as slurm.log in the folder that STUDY_EVIDENCE names; without it, nowhere."""

    def __init__(self, outputs):
        self.outputs, self.text = outputs, ""

    def snapshot(self, when):
        nodes = ask("sinfo", "--Node", "--format=%N %T %G")
        jobs = ask("squeue", "--array", "--states=all", "--format=%.8i %.8j %.10T %.4N %.9b %r")
        self.text += f"== {when}\n{nodes}{jobs}\n"

    def command(self, process):
        words = "./run_all.sh " + " ".join(process.args[3:])
        printed = (process.out + process.err).replace("\r", "\n").replace(str(self.outputs), "outputs")
        self.text += f"== {words} (exit status {process.returncode})\n{printed}\n"

    def save(self):
        folder = os.environ.get("STUDY_EVIDENCE")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / "slurm.log").write_text(self.text)


def test_the_same_command_completes_what_a_cancelled_job_and_a_drained_node_left(cluster):
    outputs = outputs_folder("smoke")
    evidence, folder = Evidence(outputs.parent), run_folder("smoke", "resnet18", 0)
    first = cluster("--jobs", "2")
    eventually((folder / "metrics.csv").exists)
    running = jobs_in("RUNNING")
    evidence.snapshot("two jobs are running")
    cancelled = min(running)
    subprocess.run(["scancel", cancelled], check=True)
    gpus = gpus_of_runs()
    drain("n1")
    eventually(lambda: cancelled not in jobs_in("RUNNING") and len(jobs_in("RUNNING")) == 2)
    evidence.snapshot("one job was cancelled, and node n1 is being drained")
    finish(first)
    evidence.snapshot("the first command has ended")
    evidence.command(first)
    assert sorted(running.values()) == [["n1"], ["n1"]] and len(queue()) == 4
    assert set(gpus) <= {"0", "1"} and len(set(gpus)) == len(gpus) > 0
    assert first.returncode == 1
    lines = [line for line in first.err.splitlines() if line.startswith("failed: ")]
    reason = f"SLURM job {cancelled} ended before the run was complete (CANCELLED)"
    assert lines[-1] == f"failed: resnet18 seed 0: {reason}"
    assert {node for job, (_, node) in queue().items() if job not in running} == {"n2"}
    done = {path: path.stat().st_mtime_ns for path in outputs.rglob("summary.json")}
    assert len(done) == 3 and folder / "summary.json" not in done

    second = finish(cluster("--jobs", "2"))
    evidence.snapshot("the second command has ended")
    evidence.command(second)
    evidence.save()
    assert second.returncode == 0, second.err
    assert "3 of 4 runs are complete" in second.out and len(queue()) == 5
    summaries = list(outputs.rglob("summary.json"))
    assert len(summaries) == 4 and all(path.stat().st_mtime_ns == before for path, before in done.items())
    assert all((path.parent / "notebook.ipynb").exists() for path in summaries)
    assert not list(outputs.rglob("checkpoint.pt")) and not list(outputs.rglob("*.partial*"))
    assert json.loads((outputs / "results.json").read_text())["primary"]["n_pairs"] == 2
    assert (outputs / "html" / "index.html").exists()


def test_jobs_without_their_command_are_not_doubled_and_ctrl_c_cancels(cluster):
    for node in ("n1", "n2"):
        drain(node)
    study = load_study("smoke")
    orphans = slurm._submit(study, "smoke", study.runs, None)
    with pytest.raises(StudyError, match=f"earlier command for study 'smoke' are still .*scancel {min(queue())[:-2]}$"):
        slurm.run_jobs(study, "smoke", study.runs)
    assert set(jobs_in("PENDING")) == {job.job_id for job in orphans} and len(orphans) == 4
    subprocess.run(["scancel", *jobs_in("PENDING")], check=True)
    command = cluster()
    eventually(lambda: len(jobs_in("PENDING")) == 4)
    time.sleep(1)  # so that it has looked at the queue
    command.send_signal(signal.SIGINT)
    finish(command)
    assert command.returncode == 130 and {state for state, *_ in queue().values()} == {"CANCELLED"}
    assert re.search(r"4 pending \(\S", command.err) and "cancelled 4 SLURM jobs" in command.err
    assert command.err.splitlines()[-1] == "stopped; the same command goes on from the last checkpoints"


@pytest.fixture
def study(make_config):
    return Study("mine", "Title", "se_resnet18", "resnet18", tuple(make_config(seed=seed) for seed in range(3)))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(name, script) puts a stand-in in front of the programs that are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def add(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


@pytest.fixture
def submitted(study, program, tmp_path, monkeypatch):
    """Jobs 7_0, 7_1, … of the study's runs in a pretended queue: states(PENDING, …) says what squeue answers next."""
    answers = tmp_path / "answers"
    answers.mkdir()
    program("squeue", f'cd "{answers}"; next=$(ls | head -n 1); cat "$next"; status=$?; rm "$next"; exit $status')
    program("scancel", f'echo "$@" >"{tmp_path}/cancelled"')
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0)
    monkeypatch.setattr(slurm, "VISIBLE_SECONDS", 0)

    def submit(study, study_name, configs, jobs):
        stderr = {"stderr": lambda: "warning\nlib.errors.StudyError: no luck\n"}
        return [types.SimpleNamespace(job_id=f"7_{index}", **stderr) for index in range(len(configs))]

    def states(*found):
        lines = [f"7_{index}|{state}|Resources|{outputs_folder('mine')}" for index, state in enumerate(found)]
        (answers / f"{len(list(answers.iterdir())):02d}").write_text(
            "\n".join(["6_[1-3]|PENDING|Priority|a|b", *lines])
        )

    monkeypatch.setattr(slurm, "_submit", submit)
    states()  # before anything is submitted
    return states


def complete(study, *seeds):
    for seed in seeds:
        write_json(run_folder(study.name, "se_resnet18", seed) / "summary.json", {})


def test_runs_whose_jobs_ended_otherwise_are_named_and_the_others_are_not(study, submitted):
    submitted("PENDING", "PENDING", "PENDING")
    submitted("COMPLETED", "RUNNING", "RUNNING")
    submitted("COMPLETED", "OUT_OF_MEMORY", "COMPLETING")
    submitted("COMPLETED", "OUT_OF_MEMORY", "FAILED")
    complete(study, 0)
    assert slurm.run_jobs(study, "mine", study.runs) == [
        "se_resnet18 seed 1: SLURM job 7_1 ended before the run was complete (OUT_OF_MEMORY)",
        "se_resnet18 seed 2: no luck",
    ]


def test_jobs_that_slurm_has_forgotten_are_judged_by_their_runs(study, submitted):
    submitted("RUNNING", "RUNNING")
    submitted()
    complete(study, 0, 2)
    (failure,) = slurm.run_jobs(study, "mine", study.runs)
    assert failure.startswith("se_resnet18 seed 1: ") and "(no longer known to SLURM)" in failure


def test_an_array_that_is_cancelled_as_one_has_ended(study, submitted, tmp_path):
    submitted()
    (tmp_path / "answers" / "01").write_text("7|CANCELLED|Resources|mine")
    failures = slurm.run_jobs(study, "mine", study.runs)
    assert len(failures) == 3 and failures[2].endswith("SLURM job 7_2 ended before the run was complete (CANCELLED)")


def test_a_summary_that_another_node_has_just_written_is_waited_for(study, submitted, monkeypatch):
    rounds = []

    def show(bar, running, note):
        rounds.append(len(running))
        if len(rounds) == 2:
            complete(study, 2)

    monkeypatch.setattr(slurm, "VISIBLE_SECONDS", 1000)
    monkeypatch.setattr(slurm.EpochBar, "show", show)
    for _ in range(3):
        submitted("COMPLETED", "CANCELLED", "COMPLETED")
    complete(study, 0)
    assert len(slurm.run_jobs(study, "mine", study.runs)) == 1
    assert rounds == [1, 1, 0]


def test_what_waits_and_why_is_shown_and_silence_of_slurm_is_waited_for(study, submitted, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(slurm.EpochBar, "show", lambda bar, running, note: shown.append((len(running), note)))
    submitted("RUNNING", "PENDING", "PENDING")
    (tmp_path / "answers" / "02").symlink_to("nothing")  # cat, and so squeue, fails
    submitted("COMPLETED", "COMPLETED", "COMPLETED")
    complete(study, 0, 1, 2)
    assert slurm.run_jobs(study, "mine", study.runs) == []
    waiting = "2 pending (Resources)"
    assert shown == [(1, waiting), (1, f"{waiting}, SLURM does not answer"), (0, "")]


def test_an_interruption_cancels_what_has_not_ended(study, submitted, monkeypatch, tmp_path, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm.EpochBar, "show", interrupt)
    submitted("COMPLETED", "RUNNING", "PENDING")
    complete(study, 0)
    with pytest.raises(KeyboardInterrupt):
        slurm.run_jobs(study, "mine", study.runs)
    assert (tmp_path / "cancelled").read_text() == "7_1 7_2\n"
    assert "cancelled 2 SLURM jobs" in capsys.readouterr().err


def submission(program, study, tmp_path, **arguments):
    """The lines for sbatch that are submitted for the study's runs, as {option: value}."""
    pytest.importorskip("submitit", reason=NO_SUBMITIT)
    program("srun", "exit 1")
    program("sbatch", f'cp "$1" "{tmp_path}/script"; echo Submitted batch job 7')
    jobs = slurm._submit(study, "mine", study.runs, **arguments)
    assert [job.job_id for job in jobs] == ["7_0", "7_1", "7_2"]
    script = (tmp_path / "script").read_text()
    assert f"\n{sys.executable} -u -m submitit" in script and "srun" not in script
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))


@pytest.mark.parametrize(("jobs", "at_once"), [(2, 2), (None, 3)])
def test_one_array_with_a_gpu_for_each_job_leaves_the_rest_to_the_user(jobs, at_once, program, study, tmp_path):
    program("sinfo", "echo 'cpu|(null)'; echo 'main*|gpu:a100:4(S:0-1)'")
    options = submission(program, study, tmp_path, jobs=jobs)
    assert options["array"] == f"0-2%{at_once}" and options["gres"] == "gpu:1" and options["chdir"] == str(ROOT)
    assert options["comment"] == str(outputs_folder("mine"))
    assert Path(options["error"]).parent == outputs_folder("mine") / "logs" / "slurm"
    assert not {"partition", "time", "account", "qos", "mem", "cpus-per-task", "wckey"} & set(options)


def test_a_partition_without_gpus_is_asked_for_none(program, study, tmp_path, monkeypatch):
    program("sinfo", "test \"$4\" = small && echo 'small|craynetwork:4' || echo 'main*|gpu:2'")
    monkeypatch.setenv("SBATCH_PARTITION", "small")
    assert "gres" not in submission(program, study, tmp_path, jobs=1)


def test_jobs_that_sbatch_refuses_are_an_error_of_one_line(program, study, tmp_path):
    program("sinfo", "echo 'main*|(null)'")
    program("srun", "exit 1")
    program("sbatch", "echo 'sbatch: error: invalid account' >&2; exit 1")
    pytest.importorskip("submitit", reason=NO_SUBMITIT)
    with pytest.raises(StudyError, match="does not take the jobs: .*invalid account") as caught:
        slurm._submit(study, "mine", study.runs, None)
    assert "\n" not in str(caught.value)


def test_a_slurm_that_does_not_answer_gets_no_jobs(program, study):
    program("squeue", "exit 1")
    program("sinfo", "exit 1")
    with pytest.raises(StudyError, match="does not answer: squeue"):
        slurm.run_jobs(study, "mine", study.runs)
    with pytest.raises(StudyError, match="does not answer: sinfo"):
        slurm.partition_has_gpus()


def test_without_sbatch_or_submitit_the_engine_is_refused(monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(StudyError, match="needs sbatch"):
        slurm.check_slurm()
    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"needs submitit: .*\[slurm\]"):
        slurm.check_slurm()


@pytest.fixture
def in_job(monkeypatch):
    """execute() as in a job with three CPUs: returns what start_run was given."""
    started = []

    def start_run(*arguments):
        started.append(arguments)
        return types.SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr(slurm, "start_run", start_run)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    return started


def test_a_job_runs_what_a_slot_runs_in_the_folders_of_the_command(in_job, tmp_path, monkeypatch):
    study = load_study("smoke")
    monkeypatch.delenv("STUDY_OUTPUTS")
    monkeypatch.setenv("STUDY_DATA", "lost on the way")
    folders = {"STUDY_DATA": str(tmp_path / "images"), "STUDY_OUTPUTS": str(tmp_path / "results")}
    slurm.execute(study, "smoke", study.runs[0], folders)
    ((*arguments, environment),) = in_job
    assert arguments == [study, "smoke", study.runs[0]]
    assert environment == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert folders.items() <= os.environ.items()


def test_a_job_leaves_a_run_alone_that_another_process_works_on(in_job):
    study = load_study("smoke")
    with lock(run_folder("smoke", "resnet18", 0), "this test"), pytest.raises(StudyError, match="already being worked"):
        slurm.execute(study, "smoke", study.runs[0], {})
    assert not in_job


def test_a_job_on_a_node_of_another_precision_is_refused(in_job, monkeypatch):
    study = load_study("smoke")
    monkeypatch.setattr(slurm, "resolve_precision", lambda config, device: "fp16")
    finished = {"data_source": "digits", "data_fingerprint": load_dataset("digits").fingerprint, "precision": "bf16"}
    monkeypatch.setattr("lib.launch.finished_runs", lambda study: [(None, None, finished)])
    with pytest.raises(StudyError, match="has runs on .* in bf16 and this would add runs on .* in fp16"):
        slurm.execute(study, "smoke", study.runs[1], {})
    assert not in_job
