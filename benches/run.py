"""Speed of the library against the floor and against any other libvfio-user.so.0.

``run.py --library OURS [--against OTHER] [--out DIR] [--rows NAMES] [--quick]``

Every subject has a process of its own, and all of them run the same row in turn, in short
slices. A ratio is the median over the pairs of slices, with its 95 % confidence interval.
Counts of system calls and allocations come from pytest-clib's hooks, and instructions from
callgrind: both are exact. Figures go to the terminal and, as data (``results.json``), as a
page with plots (``index.html``) and in the form of the documentation (``tables.md``), to DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import page
import tables
from rows import COUNTED, ROWS, TARGETS, Row

from pytest_clib._results import compare_ratios

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("rows.c", "wire.c", "floor.c", "library.c")]
INCLUDE = HERE.parent / "crates" / "libvfio-user" / "include"
SLICE = 0.006  # seconds
MOST_OPERATIONS = 1_000_000
LIMIT = 30  # seconds that a slice may take
READY_LIMIT = 180  # seconds that getting ready may take: a million regions


class Subject:
    """A process that measures one subject in one row."""

    def __init__(
        self, program: Path, name: str, path: str, row: str, parameter: int
    ) -> None:
        self.name = name
        self.times: list[float] = []
        self._process = subprocess.Popen(
            [program, path, row, str(parameter)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read(READY_LIMIT)

    def _read(self, limit: float) -> str:
        answered, _, _ = select.select([self._process.stdout], [], [], limit)
        line = self._process.stdout.readline().strip() if answered else ""
        if not line:
            self.close()
            status = self._process.returncode
            why = f"ended early (status {status})" if answered else "does not answer"
            raise RuntimeError(f"{self.name} {why}")
        return line

    def run(self, operations: int) -> float:
        """Seconds for so many operations."""
        self._process.stdin.write(f"{operations}\n")
        self._process.stdin.flush()
        return float(self._read(LIMIT))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Bench:
    """What all rows share."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.pairs = 9 if arguments.quick else arguments.pairs
        self.quick = arguments.quick
        self.subjects = {"floor": "floor", "ours": str(arguments.library.resolve())}
        if arguments.against:
            self.subjects["against"] = str(arguments.against.resolve())
        self.program = scratch / "bench"
        self.shared = scratch / "bench.so"
        self._compile()

    def _compile(self) -> None:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        flags = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", f"-I{INCLUDE}"]
        libraries = ["-pthread", "-ldl"]
        for target, more in (
            (self.program, []),
            (self.shared, ["-DSHARED", "-shared", "-fPIC"]),
        ):
            subprocess.run(
                [*compiler, *flags, *more, "-o", target, *SOURCES, *libraries],
                check=True,
            )

    def measure(self, row: Row, parameter: int) -> dict:
        """The figures of all subjects that can do the row."""
        running: dict[str, Subject] = {}
        failures: dict[str, str] = {}
        for name, path in self.subjects.items():
            if name in row.without:
                continue
            try:
                running[name] = Subject(self.program, name, path, row.name, parameter)
            except RuntimeError as error:
                failures[name] = str(error)
        try:
            figures = self._slices(row, running, failures)
        finally:
            for subject in running.values():
                subject.close()
        return {
            "row": row.name,
            "title": row.title,
            "parameter": parameter,
            "label": row.label(parameter),
            "failures": failures,
            **figures,
        }

    def _slices(
        self, row: Row, running: dict[str, Subject], failures: dict[str, str]
    ) -> dict:
        if row.unit == "bytes":
            sizes = {name: subject.run(1) for name, subject in running.items()}
            return {"bytes": sizes, "ratios": {}}
        operations = 1
        slowest = self._turn(list(running.values()), running, failures, 1)
        while slowest < SLICE and operations < MOST_OPERATIONS:
            grown = int(operations * SLICE / max(slowest, 1e-9) / 2)
            operations = min(max(operations * 2, grown), MOST_OPERATIONS)
            slowest = self._turn(list(running.values()), running, failures, operations)
        for subject in running.values():
            subject.times.clear()
        for turn in range(self.pairs):
            order = list(running.values())
            self._turn(
                order if turn % 2 == 0 else order[::-1], running, failures, operations
            )
        return {
            "operations": operations,
            "ns": {
                name: statistics.median(subject.times) * 1e9
                for name, subject in running.items()
            },
            "ratios": self._ratios(running),
        }

    @staticmethod
    def _turn(
        order: list[Subject],
        running: dict[str, Subject],
        failures: dict[str, str],
        operations: int,
    ) -> float:
        """A slice of each; the longest, in seconds. Who fails is out."""
        longest = 0.0
        for subject in order:
            try:
                took = subject.run(operations)
            except RuntimeError as error:
                failures[subject.name] = str(error)
                running.pop(subject.name)
                continue
            subject.times.append(took / operations)
            longest = max(longest, took)
        return longest

    @staticmethod
    def _ratios(running: dict[str, Subject]) -> dict[str, dict]:
        ratios = {}
        for a, b in (("ours", "floor"), ("against", "floor"), ("ours", "against")):
            if a in running and b in running:
                pairs = zip(running[a].times, running[b].times, strict=True)
                found = compare_ratios(a, b, [one / other for one, other in pairs])
                ratios[f"{a}/{b}"] = {
                    "median": found.median,
                    "low": found.low,
                    "high": found.high,
                }
        return ratios

    def count(self, row: str, parameter: int) -> dict:
        """Exact figures of one operation of each library."""
        found = {}
        for name, path in self.subjects.items():
            if name != "floor":
                found[name] = {
                    **self._calls(path, row, parameter),
                    "instructions": self._instructions(path, row, parameter),
                }
        return {"row": row, "parameter": parameter, "counts": found}

    def _calls(self, path: str, row: str, parameter: int) -> dict:
        command = [HERE / "counts.py", self.shared, path, row, str(parameter), "200"]
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"no counts of calls: {done.stderr.strip()}", file=sys.stderr)
            return {}
        return json.loads(done.stdout)

    def _instructions(self, path: str, row: str, parameter: int) -> float | None:
        """User instructions in the library's functions, and what they call."""
        totals = [self._callgrind(path, row, parameter, n) for n in (500, 1500)]
        return None if None in totals else (totals[1] - totals[0]) / 1000

    def _callgrind(
        self, path: str, row: str, parameter: int, operations: int
    ) -> int | None:
        valgrind = shutil.which("valgrind")
        if valgrind is None:
            return None
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run(
                [
                    valgrind,
                    "--tool=callgrind",
                    "--toggle-collect=library_*",
                    f"--callgrind-out-file={out.name}",
                    self.program,
                    path,
                    row,
                    str(parameter),
                ],
                input=f"{operations}\n",
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT,
            )
            for line in Path(out.name).read_text().splitlines():
                if line.startswith(("summary:", "totals:")):
                    return int(line.split()[1])
        return None


def main() -> None:
    """Measures, prints, saves."""
    parser = argparse.ArgumentParser(description="Speed of libvfio-user.so.0")
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--rows", default="", help="names, separated by commas")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    arguments = parser.parse_args()
    for path in filter(None, (arguments.library, arguments.against)):
        if not path.exists():
            parser.error(f"there is no {path}")
    chosen = [name for name in arguments.rows.split(",") if name]
    unknown = set(chosen) - {row.name for row in ROWS}
    if unknown:
        known = ", ".join(row.name for row in ROWS)
        parser.error(
            f"no row is called {', '.join(sorted(unknown))}; there are {known}"
        )
    against = arguments.against is not None
    with tempfile.TemporaryDirectory(prefix="vfu-bench-") as scratch:
        os.environ["BENCH_DIR"] = scratch
        bench = Bench(arguments, Path(scratch))
        print(tables.heading(against))
        results = []
        for row in ROWS:
            if chosen and row.name not in chosen:
                continue
            for parameter in row.quick if arguments.quick else row.parameters:
                results.append(bench.measure(row, parameter))
                print(tables.line(results[-1], against), flush=True)
                for why in results[-1]["failures"].values():
                    print(f"  {why}", file=sys.stderr)
        counts = [
            {"name": name, **bench.count(row, parameter)}
            for row, parameter, name in COUNTED
            if not chosen or row in chosen
        ]
    data = {
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "load": os.getloadavg(),
        "pairs": bench.pairs,
        "results": results,
        "counts": counts,
    }
    data["targets"] = [target.judge(data) for target in TARGETS]
    for line in (*tables.counts(counts), *tables.targets(data["targets"])):
        print(line)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    page.write(arguments.out, data)
    (arguments.out / "tables.md").write_text(tables.markdown(data))
    names = ("index.html", "results.json", "tables.md")
    print("\n" + ", ".join(str(arguments.out / name) for name in names))


if __name__ == "__main__":
    main()
