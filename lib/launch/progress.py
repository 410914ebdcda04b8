"""What a person sees while the runs of a study are at work, here or as SLURM jobs."""

import sys
import time

from tqdm import tqdm

from lib.files import run_folder

LINE_SECONDS = 60  # between lines where there is no terminal for a bar


class Progress:
    """The epochs that are done: a bar on a terminal, else a line now and then; and a line for each run that ends."""

    def __init__(self, study, configs):
        self.bar = tqdm(total=sum(config.epochs for config in configs), unit="epoch", disable=not sys.stderr.isatty())
        self.study, self.settled_epochs, self.failed, self.last_line = study, 0, 0, time.monotonic()

    def show(self, running, note=""):
        """Show the epochs that are done by now, which runs are running, and a note behind them."""
        done = self.settled_epochs + sum(epochs_done(self.study, config) for config in running)
        told = ", ".join([*(f"{config.arm} seed {config.seed}" for config in running), *([note] if note else [])])
        if self.bar.disable and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            print(f"{done} of {self.bar.total} epochs; {told}", file=sys.stderr, flush=True)
        self.bar.set_postfix_str(told, refresh=False)
        self.bar.update(done - self.bar.n)

    def settle(self, config, error=None):
        """Count a run as over, failed where there is an error."""
        self.settled_epochs += config.epochs
        self.failed += error is not None
        run = f"{config.arm} seed {config.seed}"
        self.bar.write(f"failed: {run}: {error}" if error else f"done: {run}", file=sys.stderr)

    def close(self):
        """Leave the bar as it is."""
        self.bar.close()


def epochs_done(study, config):
    """Number of epochs in the metrics that a run has written so far."""
    try:
        text = (run_folder(study.name, config.arm, config.seed) / "metrics.csv").read_text(encoding="utf-8")
    except OSError:
        return 0
    return max(0, len(text.splitlines()) - 1)
