"""Commands of batch systems whose daemons cannot be installed here: they start jobs on this machine at once.

`install` links this file under the name of each command. What they print has the form that the documentation of each
system gives:

- HTCondor: condor_submit(1), condor_q(1) with ``-af:jr``, condor_rm(1)
- PBS Pro: qsub(1B), qstat(1B) with ``-F json``, qdel(1B)
- LSF: bsub, bjobs with ``-o``, bkill (IBM Spectrum LSF command reference)
- Grid Engine: qsub(1) with ``-terse``, qstat(1), qdel(1)

It uses nothing but Python's standard library.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = "CAFETAL_TEST_BATCH"
"""Environment variable: where jobs are noted, each in a folder with its number."""

COMMANDS = ("condor_submit", "condor_q", "condor_rm", "qsub", "qstat", "qdel", "bsub", "bjobs", "bkill")


def install(folder):
    """Put the commands into a folder; return the folder for PATH."""
    for name in COMMANDS:
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        command.chmod(0o700)
    return folder


def jobs():
    """Return ``{number: process group}`` of all jobs that were submitted."""
    root = Path(os.environ[FOLDER])
    return {int(path.name): int((path / "pid").read_text()) for path in root.iterdir() if path.name.isdigit()}


def alive(pid):
    """Tell whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


HIDDEN = "CAFETAL_TEST_HIDDEN"
"""Environment variable: a folder that jobs of HTCondor do not see, as if they ran on another machine."""


def start(script, content, files=()):
    """Start a job in a folder of its own; return its number."""
    root = Path(os.environ[FOLDER])
    number = len(jobs()) + 1
    folder = root / str(number)
    folder.mkdir()
    (folder / "submitted").write_text(content)
    for path in files:
        shutil.copy(path, folder)
    command, environment = ["bash", script], {**os.environ, "_CONDOR_SCRATCH_DIR": str(folder)}
    if hidden := os.environ.get(HIDDEN):
        command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$1" && exec bash "$2"', "sh", hidden, script]
    with open(folder / "output", "w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                                   start_new_session=True, env=environment)  # fmt: skip
    (folder / "pid").write_text(str(process.pid))
    return number


def stop(numbers):
    """Kill jobs."""
    for number in numbers:
        if alive(pid := jobs()[number]):
            os.killpg(pid, signal.SIGTERM)


def condor_submit(path):
    content = Path(path).read_text()
    keys = dict(re.findall(r"^(\w+)\s*=\s*(.*)$", content, re.MULTILINE))
    assert keys["executable"] == "/bin/bash"
    assert keys["universe"] == "vanilla"
    number = start(keys["arguments"], content, keys["transfer_input_files"].split(","))
    print(f"Submitting job(s).\n1 job(s) submitted to cluster {number}.")


def condor_q(*arguments):
    for job in arguments[:-2]:
        number = int(job.partition(".")[0])
        print(f"{job} {2 if alive(jobs()[number]) else 4}")


def condor_rm(*arguments):
    stop({int(job.partition(".")[0]) for job in arguments if not job.startswith("-")})
    print("All jobs have been marked for removal")


def qsub(*arguments):
    script = arguments[-1]
    content = " ".join(arguments) + "\n" + Path(script).read_text()
    number = start(script, content)
    print(number if "-terse" in arguments else f"{number}.server")


def qstat(*arguments):
    if "json" in arguments:
        numbers = [int(job.partition(".")[0]) for job in arguments[arguments.index("json") + 1 :]]
        states = {f"{n}.server": {"job_state": "R" if alive(jobs()[n]) else "F"} for n in numbers}
        print(json.dumps({"timestamp": 1, "pbs_server": "server", "Jobs": states}))
        return
    lines = [f"{n:7} 0.55500 parsl.sge  me           r     11/28/2026 05:00:00 all.q@node                         1"
             for n, pid in jobs().items() if alive(pid)]  # fmt: skip
    if lines:
        head = "job-ID  prior   name       user         state submit/start at     queue                          slots"
        print("\n".join([head, "-" * 100, *lines]))


def qdel(*arguments):
    stop({int(job.partition(".")[0]) for job in arguments})


def bsub(*arguments):
    content = sys.stdin.read()  # a script behind `<`, in which bsub reads #BSUB
    script = Path(os.environ[FOLDER]) / "script.sh"
    script.write_text(content)
    print(f"Job <{start(str(script), content)}> is submitted to queue <normal>.")


def bjobs(*arguments):
    for job in arguments:
        if job.isdigit():
            print(f"{job} {'RUN' if alive(jobs()[int(job)]) else 'DONE'}")


def bkill(*arguments):
    stop(map(int, arguments))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
