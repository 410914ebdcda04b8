"""Execute a notebook through papermill in a process of its own, with checked parameters and a log."""

import atexit
import contextlib
import ctypes
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from lib.config import suggestion
from lib.errors import DivergedError, StudyError
from lib.paths import ROOT, shown
from lib.runs import read_json

ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): (.*)$")
OUR_ERRORS = (StudyError.__name__, DivergedError.__name__)  # their messages need no name before them
KILLED = "its process was killed, perhaps for want of memory: close other programs, or run fewer at a time (--jobs)"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookProcess:
    """One papermill execution of `template` into `output`, started at once; the output appears when it has succeeded.

    parameters: values of the cell tagged `parameters`. environment: variables to set for the kernel. Raises StudyError,
    before anything is launched, for a parameter that the notebook does not have.
    """

    def __init__(self, template, output, log, parameters, environment=None):
        check_parameters(template, parameters)
        self.output, self.log = output, log
        self.partial = output.with_name(output.stem + ".partial.ipynb")
        command = [sys.executable, "-m", "papermill", shown(template), shown(self.partial), "-k", "python3"]
        command += ["--no-progress-bar", "--log-output"]
        for name, value in parameters.items():
            command += ["-p", name, str(value)]
        try:
            for folder in (output.parent, log.parent):
                folder.mkdir(parents=True, exist_ok=True)
            self.partial.unlink(missing_ok=True)  # an earlier error is not this one's
            with log.open("w", encoding="utf-8") as file:
                self.process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=_kernel_environment(environment or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches the launcher alone, which then stops its runs
                    preexec_fn=_die_with_parent,
                )
        except OSError as error:
            raise StudyError(f"cannot write {shown(log)}: {error.strerror}; free space or set STUDY_OUTPUTS") from None

    def finished(self):
        """Whether the process has ended; moves the executed notebook into place when it ended well."""
        if self.process.poll() is None:
            return False
        if self.process.returncode == 0 and self.partial.exists():
            self.partial.replace(self.output)
        return True

    def wait(self):
        """Wait for the end; raises StudyError with the notebook's own error when it failed."""
        self.process.wait()
        self.finished()
        if self.failed:
            raise StudyError(f"{self.output.name} failed: {self.error()} (log: {shown(self.log)})")

    @property
    def failed(self):
        """Whether the finished process did not end well."""
        return self.process.returncode != 0

    def error(self):
        """The error that ended the notebook, in one line: the one that a cell raised, or else the last in the log."""
        cells = (read_json(self.partial) or {}).get("cells", [])
        raised = [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "error"]
        if raised:
            return _one_line(raised[-1]["ename"], raised[-1]["evalue"])
        lines = ANSI.sub("", self.log.read_text(encoding="utf-8", errors="replace")).splitlines()
        for line in reversed(lines):
            if match := ERROR_LINE.match(line.strip()):
                return _one_line(*match.groups())
        if self.process.returncode == -signal.SIGKILL:
            return KILLED
        if shutil.disk_usage(self.log.parent).free < 2**20:
            return "the disk is full: free space or set STUDY_OUTPUTS"  # the log had no room for its own error
        return f"ended with status {self.process.returncode} and no error in the log"

    def stop(self):
        """End the process and with it the kernel; a run goes on from its checkpoint next time."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        self.process.wait()


def _one_line(name, message):
    message = " ".join(message.split())
    if name == "DeadKernelError":
        return KILLED
    return message if name in OUR_ERRORS else f"{name}: {message}" if message else name


def check_parameters(template, parameters):
    """Raise StudyError for a parameter that the notebook does not define; papermill itself would only warn."""
    from papermill import inspect_notebook

    known = list(inspect_notebook(str(template)))
    for name in parameters:
        if name not in known:
            raise StudyError(f"{shown(template)} has no parameter {name!r}{suggestion(name, known)}")


def home_environment():
    """{"HOME": a folder that ends with this process} where the user's cannot be written, as in containers, else {}.

    Matplotlib and IPython would write warnings with its path into the notebooks.
    """
    home = Path(os.environ.get("HOME", ""))
    return {} if home.is_dir() and os.access(home, os.W_OK) else {"HOME": _temporary_home()}


@functools.cache
def _temporary_home():
    folder = tempfile.mkdtemp(prefix="study-home-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _kernel_environment(changes):
    environment = {**os.environ, **home_environment(), "STUDY_HEADLESS": "1"}
    # Another Jupyter on this machine must not lend its kernel or its matplotlib backend.
    environment["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")
    environment.pop("MPLBACKEND", None)
    return environment | changes


def _die_with_parent():
    """Ask Linux to end this child when the launcher dies, kill -9 included; other systems lack the call."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
