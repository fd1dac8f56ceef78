# SPDX-License-Identifier: MIT
"""Prints what of core and bindings the tests have run, by folder, and fails below the gates.

    python3 spec/coverage/report.py OBJECTS unreachable.txt [FILE OR FOLDER...]

OBJECTS is the folder with gcov's files; code of LISTED, or of what is named, that never ran is listed.

A line counts once, however often it is compiled. A branch is one direction of a condition, as gcov finds it in the machine
code of -O0. The way on from a call and the way out by an exception of C++ are no branches here. It is gcov that is read,
not gcovr: what has not run has no mark of an exception in the text that gcovr reads in Debian 12.

The bodies of core/kernels are compiled once for each instruction set, inlined with constant arguments: one condition of the
source is then many in the machine code, most of which cannot go both ways. Their lines count, as run when one copy ran
(spec/c/kernels_test.c compares all copies with plain loops); their branches are in no sum. What the machine or the compiler
does not have (NEON) is not in the figures.

unreachable.txt lists code that no test can reach, `FILE | TEXT OF THE LINE | REASON`. What such a line has not run is left
out of the figures; how much that is stands below them.
"""
import glob
import json
import subprocess
import sys
from collections import defaultdict

GATES = {"core": (95, 90), "bindings": (95, 90)}  # lines, branches in per cent
KERNELS = "core/kernels"
LISTED = ("core/tape.c", "core/apply.c", "core/memory.c", "core/io/", "core/ops/conv")


class Line:
    """Whether it ran, and how often each branch was taken, by the function that it was compiled in."""

    def __init__(self):
        self.run = False
        self.counts = {}

    def add(self, line):
        self.run = self.run or line["count"] > 0
        counts = [branch["count"] for branch in conditions(line["branches"])]
        before = self.counts.setdefault(line.get("function_name"), counts)
        if before is not counts:  # a function of a header, compiled in several files
            self.counts[line.get("function_name")] = [a + b for a, b in zip(before, counts)]

    def branches(self):
        return [count > 0 for counts in self.counts.values() for count in counts]


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
        return (100 * self.lines_run / self.lines if self.lines else 100,
                100 * self.branches_run / self.branches if self.branches else 100)


def conditions(branches):
    """Without those of calls: a way on, followed by a way out that throws."""
    kept = []
    for branch in branches:
        if not branch["throw"]:
            kept.append(branch)
        elif kept and kept[-1]["fallthrough"]:
            kept.pop()
    return kept


def read_lines(objects):
    """{file: {number: Line}} of core and bindings."""
    files = defaultdict(lambda: defaultdict(Line))
    notes = sorted(glob.glob(f"{objects}/**/*.gcno", recursive=True))
    output = subprocess.run(["gcov", "--branch-probabilities", "--json-format", "--stdout", *notes],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    for report in output.splitlines():
        for file in json.loads(report)["files"]:
            if file["file"].startswith(("core/", "bindings/")):
                for line in file["lines"]:
                    files[file["file"]][line["line_number"]].add(line)
    return files


def read_unreachable(path):
    """{file: {text: how many lines of the file have it}}, none counted yet"""
    entries = defaultdict(dict)
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            parts = line.split(" | ")
            text = " | ".join(parts[1:-1]).strip()
            if not text:
                sys.exit(f"{path}:{number}: not `FILE | TEXT OF THE LINE | REASON`")
            entries[parts[0]][text] = 0
    return entries


def folders_of(path):
    """'core/io/npy.c' belongs to core/io and to core."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def worst_of(own, folder):
    paths = [path for path in own if path.startswith(folder + "/") and not path.startswith(KERNELS)]
    return sorted(paths, key=lambda path: own[path].branches_run - own[path].branches)[:10]


def main():
    unreachable = read_unreachable(sys.argv[2])
    listed = tuple(sys.argv[3:]) or LISTED
    counts, own, excused = defaultdict(Count), defaultdict(Count), 0
    for path, lines in sorted(read_lines(sys.argv[1]).items()):
        with open(path, encoding="utf-8") as file:
            text = [line.strip() for line in file]
        for number, line in sorted(lines.items()):
            run, branches, source = line.run, line.branches(), text[number - 1]
            if source in unreachable[path]:
                unreachable[path][source] += 1
                excused += branches.count(False)
                branches = [True] * branches.count(True)
                if not run:
                    continue
            own[path].add(run, branches)
            for folder in folders_of(path):
                in_sum = folder == KERNELS or not path.startswith(KERNELS)
                counts[folder].add(run, branches if in_sum else [])
            if path.startswith(listed) and not (run and all(branches)):
                never = f"{branches.count(False)} of {len(branches)} branches never taken" if run else "never run"
                print(f"{path}:{number}: {never}: {source}")

    print(f"\n{'':28}{'lines':>8}{'run':>9}{'branches':>10}{'taken':>9}")
    for folder in sorted(counts):
        count, (lines, branches) = counts[folder], counts[folder].percents()
        print(f"{folder:28}{count.lines:8}{lines:8.1f}%{count.branches:10}{branches:8.1f}%")
    print("the branches of core/kernels are not among those of core")
    print(f"left out as unreachable (spec/coverage/unreachable.txt): {excused} branches")

    bad = 0
    for path, texts in unreachable.items():
        for source, times in texts.items():
            if times == 0:
                print(f"unreachable.txt: {path} has no such code: {source}")
                bad = 1
    for folder, gates in GATES.items():
        for what, found, gate in zip(("lines", "branches"), counts[folder].percents(), gates):
            if found < gate:
                print(f"{folder}: {found:.1f} % of the {what}, less than {gate} %; the files with most of the branches:")
                for path in worst_of(own, folder):
                    lines, branches = own[path].percents()
                    print(f"  {path:40}{lines:8.1f}%{branches:8.1f}%{own[path].branches - own[path].branches_run:6} never")
                bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
