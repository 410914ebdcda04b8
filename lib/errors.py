"""The exceptions that users are meant to read."""


class StudyError(Exception):
    """What is wrong and what to do about it, in one line; shown without a traceback."""


class DivergedError(StudyError):
    """A training whose loss or logits are not finite: the one reason for which a run counts as failed for good."""
