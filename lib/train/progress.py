"""What a person sees while a network trains: one line an epoch in a log, a bar and a live curve in JupyterLab."""

import os
import sys

import pandas as pd
from tqdm import tqdm

BAR = "{percentage:3.0f} %|{bar}| {n_fmt}/{total_fmt} epochs, {elapsed} so far, {remaining} left"


class RunProgress:
    """Shows how far a run is: with STUDY_HEADLESS set one line an epoch, else a bar and a curve."""

    def __init__(self, config):
        self.config, self.bar, self.curve = config, None, None

    def show(self, rows):
        """Show all rows of metrics so far."""
        if os.environ.get("STUDY_HEADLESS"):
            if rows:
                print(_line(rows, self.config.epochs), flush=True)
            return
        from IPython.display import Markdown, display  # neither of these where there is no notebook

        from lib.analyse.figures import arm_name, learning_curves, picture

        if self.bar is None:
            # the place of the curve, above the bar: output between two states of the bar would tear it in two
            self.curve = display(Markdown(""), display_id=True)
            # plain text in a fixed width, since a log or an HTML page shows no widgets
            how = {"bar_format": BAR, "ncols": 80, "mininterval": 0, "file": sys.stdout}
            self.bar = tqdm(total=self.config.epochs, initial=len(rows), **how)
        self.bar.update(len(rows) - self.bar.n)
        if rows and self.curve:  # None outside a notebook
            figure = learning_curves(pd.DataFrame(rows), self.config.arm)
            self.curve.update(picture(figure, f"Training loss and accuracy of {arm_name(self.config.arm)} so far."))
        if len(rows) == self.config.epochs:
            self.close()
            print("trained, now evaluated …", flush=True)

    def close(self):
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()


def _line(rows, epochs):
    row, seconds = rows[-1], sum(row["train_seconds"] for row in rows) / len(rows)
    told = f"loss {row['train_loss']:.3f}   training accuracy {row['train_accuracy']:.1%}"
    minutes_left = f"{(epochs - row['epoch']) * seconds / 60:.1f} min left"
    return f"epoch {row['epoch']:3d} of {epochs}   {told}   {row['images_per_second']:,.0f} images/s   {minutes_left}"
