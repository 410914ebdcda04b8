"""The exceptions that users are meant to read."""


class StudyError(Exception):
    """What is wrong and what to do about it, in one line; shown without a traceback."""

    def _render_traceback_(self):
        """What IPython shows of it, instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class DivergedError(StudyError):
    """A training whose loss or logits are not finite: the one reason for which a run counts as failed for good."""
