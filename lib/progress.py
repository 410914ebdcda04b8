"""What a person sees while a network trains: one line an epoch in a log, a bar and a live curve in JupyterLab."""

import os
import sys

from tqdm import tqdm

BAR = "{percentage:3.0f} %|{bar}| {n_fmt}/{total_fmt} epochs, {elapsed} so far, {remaining} left"


class Interrupted(KeyboardInterrupt):
    """A person has stopped the training: what to do next, in one line."""

    def _render_traceback_(self):  # IPython shows it in place of a traceback
        return [str(self)]


class TrainingProgress:
    """Callable for execute_run's on_epoch: reports the newest row of metrics of a run of `epochs` epochs.

    With STUDY_HEADLESS set, one line an epoch; else a bar with the time left and a learning curve drawn in place. As a
    context around the run, it turns an interruption into Interrupted.
    """

    def __init__(self, epochs):
        self.epochs = epochs
        self.headless = bool(os.environ.get("STUDY_HEADLESS"))
        self.bar = self.curve = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.bar is not None:
            self.bar.close()
        if kind is KeyboardInterrupt:
            raise Interrupted("Stopped. Run this cell again, and it goes on after the last finished epoch.") from None

    def __call__(self, rows):
        if self.headless:
            if rows:
                print(self._line(rows), flush=True)
            return
        if self.bar is None:
            from IPython.display import Markdown, display

            # the place of the curve, above the bar: output between two states of the bar would tear it in two
            self.curve = display(Markdown(""), display_id=True)
            self.bar = tqdm(
                total=self.epochs, initial=len(rows), bar_format=BAR, ncols=80, mininterval=0, file=sys.stdout
            )
        self.bar.update(len(rows) - self.bar.n)
        if len(rows) > 1:  # one epoch is no line yet
            self._draw(rows)
        if len(rows) == self.epochs:
            self.bar.close()
            print("trained, now evaluated …", flush=True)

    def _line(self, rows):
        row = rows[-1]
        seconds_left = (self.epochs - row["epoch"]) * sum(r["train_seconds"] for r in rows) / len(rows)
        return (
            f"epoch {row['epoch']:3d} of {self.epochs}   loss {row['train_loss']:.3f}   "
            f"training accuracy {row['train_accuracy']:.1%}   {row['images_per_second']:,.0f} images/s   "
            f"{seconds_left / 60:.1f} min left"
        )

    def _draw(self, rows):
        import matplotlib.pyplot as plt
        import pandas as pd

        from lib.figures import learning_curves

        figure = learning_curves(pd.DataFrame(rows).assign(arm="this run", seed=0))
        if self.curve:  # None outside a notebook
            self.curve.update(figure)
        plt.close(figure)
