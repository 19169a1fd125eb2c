"""Runs cases several at a time, each in a network namespace of its own, and tells how they went."""

import concurrent.futures
import os
import shutil
import signal
import sys
import tempfile
import traceback

import harness
import namespace


class Runner:
    """The cases of one program, `program` (its `__file__`), whose kind is `kind`.

    The program starts itself again for each case, in the namespace, with the case's name in its
    environment: see `inside`.
    """

    def __init__(self, program, kind, cases, args, addresses=()):
        self.program = os.path.abspath(program)
        self.kind = kind
        self.variable = f"PIECEWORK_{kind.upper()}_INSIDE"
        self.cases = cases
        self.chosen = [case for case in cases if all(word in case.name for word in args.words)]
        self.args = args
        self.addresses = addresses
        self.work = os.path.abspath(args.work) if args.work else None

    @staticmethod
    def add_arguments(parser, jobs):
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        parser.add_argument("--bin", default=os.path.join(root, "target", "debug"), help="our programs")
        parser.add_argument("--work", help="folder for content and logs; temporary if not given")
        parser.add_argument("--jobs", type=int, default=jobs, help="cases at a time")
        parser.add_argument("--list", action="store_true", help="print the names of the cases")
        parser.add_argument("words", nargs="*")

    def list(self):
        print("\n".join(case.name for case in self.chosen))
        return 0

    def inside(self):
        """The case to run where this process is, or None if it is to run them all."""
        name = os.environ.get(self.variable)
        return next((case for case in self.cases if case.name == name), None) if name else None

    def begin(self):
        """Makes the folder for content and logs."""
        if not self.work:
            self.work = tempfile.mkdtemp(prefix=f"piecework-{self.kind}-")
        os.makedirs(self.work, exist_ok=True)
        return self.work

    def folder_of(self, case):
        return os.path.join(self.work, case.name.replace(" ", "-"))

    def run_all(self, *more):
        """Runs the chosen cases, with `more` arguments for this program. Gives the exit code."""
        passed = failed = 0
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as jobs:
            started = [(case, jobs.submit(self.in_namespace, case, more)) for case in self.chosen]
            for number, (case, done) in enumerate(started, 1):
                problem, printed, seconds = done.result()
                verdict = "FAILED" if problem else "ok    "
                print(f"[{number}/{len(self.chosen)}] {verdict} {case.name} ({seconds:.1f} s)", flush=True)
                for line in (problem or printed).splitlines():
                    print(f"    {line}", flush=True)
                if problem:
                    failed += 1
                    print(f"    logs: {self.folder_of(case)}", flush=True)
                    namespace.show_logs(self.folder_of(case))
                else:
                    passed += 1
                    shutil.rmtree(self.folder_of(case))
        if not failed and not self.args.work:
            shutil.rmtree(self.work)
        print(f"{passed} passed, {failed} failed", flush=True)
        return 1 if failed or not passed else 0

    def in_namespace(self, case, more):
        """Runs this program for one case where there is nothing but a loopback device. Gives what is
        wrong, if anything is, what it printed, and how many seconds it took."""
        folder = self.folder_of(case)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        program = [sys.executable, self.program, "--bin", os.path.abspath(self.args.bin), "--work", self.work, *more]
        return namespace.run_alone(program, {self.variable: case.name}, self.addresses)


def run_one(body, end=lambda: None):
    """Runs one case, where nothing but it is running. Prints what is wrong; gives the exit code."""
    # The first process of a namespace is spared every signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        body()
        return 0
    except harness.Failure as failure:
        print(failure, flush=True)
    except Exception:
        traceback.print_exc(file=sys.stdout)
    finally:
        end()
    return 1
