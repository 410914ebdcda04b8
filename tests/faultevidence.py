"""What became of each injected fault, written where the variable STUDY_EVIDENCE names a folder."""

import csv
from collections import Counter

COLUMNS = ("fault", "promise", "test", "outcome")
OUTCOMES = ("failed", "skipped", "passed")  # from the worst to the best


class FaultEvidence:
    """A pytest plugin that writes faults.csv and faults.md: a row for each `fault` mark of each test that was run."""

    def __init__(self, folder):
        self.folder = folder
        self.cases = {}  # {(fault, promise, test): {case: outcome}}

    def pytest_runtest_logreport(self, report):
        """Keep the worst outcome of the phases of a test; reports of xdist's workers arrive here too."""
        for name, mark in report.user_properties:
            if name == "fault":
                cases = self.cases.setdefault((*mark, report.nodeid.partition("[")[0]), {})
                cases[report.nodeid] = min(cases.get(report.nodeid, "passed"), report.outcome, key=OUTCOMES.index)

    def pytest_sessionfinish(self):
        """Write both files, in the order of the tests."""
        rows = sorted((test, fault, promise, _told(cases)) for (fault, promise, test), cases in self.cases.items())
        rows = [(fault, promise, test, outcome) for test, fault, promise, outcome in rows]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "faults.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        lines = ["| what was done | what is promised | outcome | test |", "|---|---|---|---|"]
        for fault, promise, test, outcome in rows:
            lines.append("| " + " | ".join(text.replace("|", "\\|") for text in (fault, promise, outcome, test)) + " |")
        (self.folder / "faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _told(cases):
    """`passed`, or `2 failed, 1 passed` where a test has several cases."""
    count = Counter(cases.values())
    if len(cases) == 1:
        return next(iter(count))
    return ", ".join(f"{count[outcome]} {outcome}" for outcome in OUTCOMES if count[outcome])
