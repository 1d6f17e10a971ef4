"""A pytest plug-in that writes what became of each test, one a line, to the file in $OUTCOMES."""

import os

RANK = {"passed": 0, "skipped": 1, "failed": 2}
worst = {}


def pytest_runtest_logreport(report):
    known = worst.get(report.nodeid, "passed")
    worst[report.nodeid] = max(known, report.outcome, key=RANK.get)
    if report.when == "teardown":
        with open(os.environ["OUTCOMES"], "a", encoding="utf-8") as file:
            print(worst.pop(report.nodeid), report.nodeid.encode("unicode_escape").decode(), file=file)
