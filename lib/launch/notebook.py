"""Execute notebooks through papermill, each in a process of its own.

`python -m lib.launch.notebook JOB` is such a process. It ends with the process that has started it, even after kill -9.
"""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from lib.files import NOTEBOOKS, ROOT, StudyError, atomic_write, git, outputs_folder, run_folder, shown

OUR_ERRORS = ("StudyError", "DivergedError", "StepError")  # their messages need no name before them
KILLED = "its process was killed, perhaps for want of memory: close other programs, or run fewer at a time (--jobs)"
MACHINE_PATHS = rf"{re.escape(str(ROOT))}/|\S*/ipykernel_\d+/|\S*/site-packages/"  # ipykernel_… holds cells
FONT_LIST = ("Matplotlib is building", "Matplotlib created", "mkdir -p failed")  # first words where it finds none
WIDGET = "application/vnd.jupyter.widget-view+json"


class NotebookProcess:
    """One execution of `template`, started at once; `output` appears when it has succeeded, `log` holds what it prints.

    parameters: for the cell tagged so; environment: more variables. Raises StudyError when it cannot write the log.
    """

    def __init__(self, template, output, log, parameters, environment=None):
        self.output, self.log = output, log
        # not what the user has set for other notebooks: kernels, backends, search paths
        foreign = ("IPYTHON", "JUPYTER", "MATPLOTLIB", "MPLBACKEND", "PYTHON")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        ours |= {"STUDY_HEADLESS": "1", "PYTHONUTF8": "1", "MATPLOTLIBRC": os.devnull}
        ours |= {"PYTHONNOUSERSITE": "1"} if sys.flags.no_user_site else {}
        job = json.dumps({"template": str(template), "output": str(output), "parameters": parameters})
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("w", encoding="utf-8") as file:
                how = {"cwd": ROOT, "env": ours | (environment or {}), "stdout": file, "stderr": subprocess.STDOUT}
                how["stdin"] = subprocess.PIPE  # its end tells the process that this one has ended
                how["start_new_session"] = True  # Ctrl-C reaches the launcher alone, which then stops its runs
                self.process = subprocess.Popen([sys.executable, "-m", __name__, job], **how)
        except OSError as error:
            raise StudyError(f"cannot write {shown(log)}: {error.strerror}; free space or set STUDY_OUTPUTS") from None

    def wait(self):
        """Wait for the end; raises StudyError with the notebook's own error, in one line, when it has failed."""
        status = self.process.wait()
        self.process.stdin.close()
        if status:
            raise StudyError(f"{self._error(status)} (log: {shown(self.log)})")

    def stop(self):
        """End the process and with it the kernel; a run goes on from its checkpoint next time."""
        self.process.terminate()

    def _error(self, status):
        for line in reversed(self.log.read_text(encoding="utf-8", errors="replace").splitlines()):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
        if status == -signal.SIGKILL:
            return KILLED
        if shutil.disk_usage(self.log.parent).free < 2**20:  # then the log had no room for its own error
            return "the disk is full: free space or set STUDY_OUTPUTS"
        return f"it ended with status {status} and without an error"


def run_process(study, name, config, environment):
    """Start train.ipynb for one run of a study; name: what its parameter `study` gets, a name or a path."""
    log = outputs_folder(study.name) / "logs" / f"{config.arm}-seed-{config.seed:02d}.log"
    output = run_folder(study.name, config.arm, config.seed) / "notebook.ipynb"
    parameters = {"study": name, "arm": config.arm, "seed": config.seed, "settings": {}}  # all, whatever was saved
    return NotebookProcess(NOTEBOOKS / "train.ipynb", output, log, parameters, environment)


def execute(name, folder, parameters):
    """Execute notebooks/<name>.ipynb into <folder>/notebooks and wait for it; returns its path, raises StudyError."""
    output = folder / "notebooks" / f"{name}.ipynb"
    NotebookProcess(NOTEBOOKS / output.name, output, folder / "logs" / f"{name}.log", parameters).wait()
    return output


def _execute(template, output, parameters):
    """Execute a notebook and write what can be compared with other executions of it; raises whatever it raises."""
    import nbformat
    import papermill

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # nobody's own kernels and profiles
        for what in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            os.environ[what] = scratch
        how = {"kernel_name": "python3", "progress_bar": False, "log_output": True, "coalesce_streams": True}
        how["start_timeout"] = 600  # seconds, for a slow disk or a busy machine
        for attempt in (1, 2, 3):  # kernels that start at the same time may choose the same port
            try:
                notebook = papermill.execute_notebook(template, None, parameters, **how)
                break
            except RuntimeError as error:
                if attempt == 3 or "died before replying" not in str(error):
                    raise
    atomic_write(Path(output), nbformat.writes(_without_traces(notebook)).encode())


def _without_traces(notebook):
    """The notebook without times, paths of this machine, random names and outputs that need scripts."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.id = "injected-parameters"
        if cell.cell_type == "code":
            shown_always = [each for each in cell.outputs if WIDGET not in each.get("data", ())]
            cell.outputs = [each for each in shown_always if not each.get("text", "").startswith(FONT_LIST)]
            for texts in [part for output in cell.outputs for part in (output, output.get("data", {}))]:
                for kind in {"text", "text/plain"} & set(texts):
                    texts[kind] = re.sub(MACHINE_PATHS, "", texts[kind])
    return notebook


def _one_line(error, template):
    """An exception in one line; an error in a cell is told as the cell raised it, and whether the cells were edited."""
    name, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    if name == "DeadKernelError":
        return KILLED
    message = " ".join(message.split())
    if name in OUR_ERRORS:
        return message
    edited = git("diff", "--name-only", "HEAD", "--", template)
    hint = f" ({shown(template)} was edited: git diff {shown(template)} shows how)" if edited else ""
    return (f"{name}: {message}" if message else name) + hint


def _end_with_the_launcher():
    os.read(0, 1)  # returns when the launcher has ended, because it never writes
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = json.loads(sys.argv[1])
    try:
        _execute(**job)
    except Exception as error:
        logging.exception("the notebook has failed")
        sys.exit(f"error: {_one_line(error, job['template'])}")
