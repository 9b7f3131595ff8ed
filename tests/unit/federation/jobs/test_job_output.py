"""The lines that tell why something has failed."""

import pytest

from cafetal.federation.jobs.job_output import of_jobs, summary, telling


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "Error 1:\n\tJob is marked as MISSING since the workers failed to register\n\tSTDOUT: loading\n"
            "\n\tSTDERR: /slurm_script: line 18: module: command not found\n",
            ["/slurm_script: line 18: module: command not found"],
        ),
        (
            "<frozen runpy>:128: RuntimeWarning: 'parsl' found in sys.modules\nslurmstepd: error: JOB 3 CANCELLED\n",
            ["slurmstepd: error: JOB 3 CANCELLED"],
        ),
        (
            "Traceback (most recent call last):\n  File x\nValueError: 'vm' is no address\n-----",
            ["ValueError: 'vm' is no address"],
        ),
        ("------\n\n======", []),
        ("hello\nworld", ["hello", "world"]),
    ],
)
def test_telling_lines(text, lines):
    assert telling(text) == lines


def test_each_cause_once():
    assert of_jobs(["error: disk quota"] * 3 + [""]) == "3 jobs: error: disk quota; no output"
    assert len(summary("error " + "x" * 1000)) == 500
