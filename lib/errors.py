"""The one exception that users are meant to read."""


class StudyError(Exception):
    """What is wrong and what to do about it, in one line; shown without a traceback."""
