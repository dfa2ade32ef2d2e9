"""Would the tests notice a wrong line? `make test-mutants` changes one line at a time, and runs the tests on it.

A change that no test notices survives: the line could be wrong unseen, or the change makes no difference. Tried are the
fast tests, then all of the most relevant files, in copies of the working tree that borrow what is installed here.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from tools.mutants import ROOT, Mutant, mutants_of

_JOBS = 2
_SECONDS = 600  # for all tests on one mutant
_moments = count(int(time.time()))  # Python takes the bytecode of one version of a file for one of the same time


class _Copy:
    """A copy of the working tree in which tests can be run: what git doesn't ignore, and the generated stubs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tests: subprocess.Popen[bytes] | None = None
        for path in (*_listed("ls-files", "-co", "--exclude-standard"), *ROOT.glob("client/userprofile/v1/*.*")):
            (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, folder / path.relative_to(ROOT))
        venv.create(folder / ".venv", symlinks=True)
        packages = Path(sysconfig.get_path("purelib"))
        for installed in packages.iterdir():  # ours by a path that leads from there into the copy
            with suppress(FileExistsError):
                (folder / ".venv" / packages.relative_to(sys.prefix) / installed.name).symlink_to(installed)
        for name in ("userprofile", "userprofile-server"):
            program = Path(shutil.copy2(Path(sys.prefix, "bin", name), folder / ".venv/bin"))
            program.write_text(program.read_text().replace(sys.prefix, str(folder / ".venv")))

    def put(self, path: Path, content: bytes) -> None:
        (self._folder / path).write_bytes(content)
        os.utime(self._folder / path, (moment := next(_moments), moment))

    def passes(self, arguments: list[str], output: int | None = subprocess.DEVNULL) -> bool:
        command = [".venv/bin/python", "-m", "pytest", "-xq", "-p", "no:cacheprovider", *arguments]
        self._tests = subprocess.Popen(command, cwd=self._folder, stdout=output, stderr=output, start_new_session=True)
        try:
            return self._tests.wait(_SECONDS) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.stop()

    def stop(self) -> None:
        """Interrupts the tests, which end what they have started, and then ends all that is left."""
        if self._tests is not None and self._tests.poll() is None:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                self._tests.send_signal(signal.SIGINT)
                self._tests.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(self._tests.pid, signal.SIGKILL)


def _listed(*command: str) -> list[Path]:
    """Returns the files that git names."""
    names = subprocess.check_output(["git", *command, "-z"], cwd=ROOT, text=True).split("\0")  # noqa: S607
    return sorted({ROOT / name for name in names if (ROOT / name).is_file()})


def _tests_by_relevance(path: Path) -> list[str]:
    """Returns all test files; those named like this file come first, then those that name what it or its users have."""
    imports = re.compile(rf"(?:from|import) .*\b{path.parent.name if path.stem == '__init__' else path.stem}\b")
    sources = [file for file in (ROOT / path.parts[0]).rglob("*.py") if "_pb2" not in file.name]
    texts = [file.read_text() for file in sources if file == ROOT / path or imports.search(file.read_text())]
    names = {name for text in texts for name in re.findall(r"^(?:class|def|async def) ([^\W_]\w*)", text, re.MULTILINE)}
    named = re.compile(rf"\b(?:{'|'.join(names)})\b")

    def relevance(test: Path) -> tuple[bool, bool, int]:
        same_side = (test.parent.name == "clients") == (path.parts[0] == "client")
        return path.stem in test.stem, same_side, len(named.findall(test.read_text()))

    tests = sorted(ROOT.glob("tests/**/test_*.py"), key=relevance, reverse=True)
    return [str(test.relative_to(ROOT)) for test in tests]


def main() -> None:
    """Tries a sample of mutants, and prints those that survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="files or folders; those that have changed unless given")
    parser.add_argument("--against", default="main", help="the commit since which they have changed (default: main)")
    parser.add_argument("--sample", type=int, default=60, help="how many mutants to try (default: 60)")
    parser.add_argument("--tests", type=int, default=4, help="of how many test files the slow tests too (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="for another sample")
    options = parser.parse_args()
    given = [file for path in options.files for file in (path.rglob("*.py") if path.is_dir() else [path])]
    changed = _listed("diff", "--name-only", options.against) + _listed("ls-files", "-o", "--exclude-standard")
    files = [file.resolve().relative_to(ROOT) for file in (given if options.files else changed)]
    files = [file for file in files if re.fullmatch(r"(client|server)/.*(?<!_pb2)(?<!_pb2_grpc)\.py", str(file))]
    if not files:
        sys.exit(f"Nothing in client/ or server/ differs from {options.against}: name files (FILES=…).")
    mutants = [mutant for file in sorted(files) for mutant in mutants_of(file)]
    sample = random.Random(options.seed).sample(mutants, min(options.sample, len(mutants)))  # noqa: S311
    tests = {file: _tests_by_relevance(file) for file in files}
    print(f"{len(sample)} of the {len(mutants)} possible changes of {len(files)} files are tried", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(_JOBS) as executor:
        copies = [_Copy(Path(folder, str(number))) for number in range(_JOBS)]
        free: SimpleQueue[_Copy] = SimpleQueue()
        trials: dict[Future[bool], Mutant] = {}

        def survives(mutant: Mutant) -> bool:
            copy = free.get()
            copy.put(mutant.path, mutant.content())
            passes = copy.passes(["--fast", *tests[mutant.path]]) and copy.passes(tests[mutant.path][: options.tests])
            copy.put(mutant.path, mutant.source)
            free.put(copy)
            return passes

        try:
            slow = {test for mutant in sample for test in tests[mutant.path][: options.tests]}
            if not (copies[0].passes(["--fast"], output=None) and copies[0].passes(sorted(slow), output=None)):
                sys.exit("The tests have to pass without a change.")
            for copy in copies:
                free.put(copy)
            trials |= {executor.submit(survives, mutant): mutant for mutant in sample}
            survivors = 0
            for number, trial in enumerate(as_completed(trials), 1):
                if trial.result():
                    survivors += 1
                    print(f"\nsurvives: {trials[trial].diff()}", flush=True)
                print(f"\r{number} tried, {survivors} survive", end="", file=sys.stderr, flush=True)
            print(f"\n{len(sample) - survivors} of {len(sample)} were noticed")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):  # whoever is impatient would leave tests running
                signal.signal(number, signal.SIG_IGN)
            executor.shutdown(wait=False, cancel_futures=True)
            while not all(trial.done() for trial in trials):
                for copy in copies:
                    copy.stop()
                time.sleep(0.1)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
