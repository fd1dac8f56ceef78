# SPDX-License-Identifier: MIT
"""Prints what of core and bindings the tests have run, by folder, from gcovr's JSON report, and fails below the gates.

    python3 spec/coverage/report.py REPORT.json [unreachable.txt]

A line counts once, however often it is compiled. A branch is one direction of one condition in the machine code of -O0.

The bodies of core/kernels are compiled once for each instruction set, inlined with constant arguments: one condition of the
source is then many in the machine code, most of which cannot go both ways. Their lines count, as run when one copy ran
(spec/c/kernels_test.c compares all copies with plain loops); their branches are printed in their own row and are in no
sum. What the machine or the compiler does not have (NEON) is not in the figures.

unreachable.txt lists code that no test can reach, `FILE | TEXT OF THE LINE | REASON`. What such a line has not run is left out
of the figures; how much that is stands below them.
"""
import json
import sys
from collections import defaultdict

GATES = {"core": (95, 90), "bindings": (95, 90)}  # lines, branches in per cent
KERNELS = "core/kernels"
# Whose branches that no test has taken are listed.
LISTED = ("core/tape.c", "core/apply.c", "core/memory.c", "core/io/", "core/ops/conv")


class Count:
    """Lines and branches, all and run."""

    def __init__(self):
        self.lines = self.lines_run = self.branches = self.branches_run = 0

    def add(self, run, branches):
        self.lines += 1
        self.lines_run += run
        self.branches += len(branches)
        self.branches_run += sum(branches)

    def percents(self):
        return (100 * self.lines_run / max(self.lines, 1), 100 * self.branches_run / max(self.branches, 1))


def read_unreachable(path):
    """{file: {text: how many lines of the file have it}}, none counted yet"""
    entries = defaultdict(dict)
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            parts = [part.strip() for part in line.split(" | ")]
            if len(parts) != 3 or not all(parts):
                sys.exit(f"{path}:{number}: not `FILE | TEXT OF THE LINE | REASON`")
            entries[parts[0]][parts[1]] = 0
    return entries


def folders_of(path):
    """'core/io/npy.c' belongs to core/io and to core."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def main():
    report = sys.argv[1]
    unreachable = read_unreachable(sys.argv[2]) if len(sys.argv) > 2 else {}
    with open(report, encoding="utf-8") as file:
        files = json.load(file)["files"]
    counts, own, missed, excused = defaultdict(Count), defaultdict(Count), defaultdict(list), 0
    for entry in files:
        path = entry["file"]
        if not path.startswith(("core/", "bindings/")):
            continue
        with open(path, encoding="utf-8") as file:
            text = [line.strip() for line in file]
        for line in entry["lines"]:
            if line.get("gcovr/noncode"):
                continue
            run = line["count"] > 0
            branches = [branch["count"] > 0 for branch in line["branches"] if not branch.get("throw")]
            source = text[line["line_number"] - 1]
            if source in unreachable.get(path, {}):
                unreachable[path][source] += 1
                if not run or not all(branches):
                    excused += branches.count(False) or 1
                    branches = [True for branch in branches if branch]
                    if not run:
                        continue
            own[path].add(run, branches)
            for folder in folders_of(path):
                in_sum = folder == KERNELS or not path.startswith(KERNELS)
                counts[folder].add(run, branches if in_sum else [])
            if not run or not all(branches):
                missed[path].append((line["line_number"], run, branches.count(False), len(branches), source))

    for path in sorted(missed):
        if path.startswith(LISTED):
            for number, run, never, of, source in missed[path]:
                if of or not run:
                    what = f"{never} of {of} branches never taken" if run else "never run"
                    print(f"{path}:{number}: {what}: {source}")
    print(f"\n{'':28}{'lines':>8}{'run':>9}{'branches':>10}{'taken':>9}")
    for folder in sorted(counts):
        count, (lines, branches) = counts[folder], counts[folder].percents()
        print(f"{folder:28}{count.lines:8}{lines:8.1f}%{count.branches:10}{branches:8.1f}%")
    print("the branches of core/kernels are not among those of core")
    print(f"left out as unreachable (spec/coverage/unreachable.txt): {excused} branches")

    bad = 0
    for path, texts in unreachable.items():
        for source, lines in texts.items():
            if lines == 0:
                print(f"unreachable.txt: {path} has no such code: {source}")
                bad = 1
    for folder, gates in GATES.items():
        for what, found, gate in zip(("lines", "branches"), counts[folder].percents(), gates):
            if found < gate:
                print(f"{folder}: {found:.1f} % of the {what}, less than {gate} %; the files with most of them:")
                worst = sorted((path for path in own if path.startswith(folder + "/") and not path.startswith(KERNELS)),
                               key=lambda path: own[path].branches_run - own[path].branches)
                for path in worst[:10]:
                    lines, branches = own[path].percents()
                    print(f"  {path:40}{lines:8.1f}%{branches:8.1f}%"
                          f"{own[path].branches - own[path].branches_run:6} never")
                bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
