"""Grid Engine's jobs with the states that its qstat(1) has, where Parsl's provider mistakes some for failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parsl.jobs.states import JobState, JobStatus
from parsl.providers import GridEngineProvider
from parsl.providers.errors import SubmitException

_POLL = 10
"""Seconds between two looks at the queue; Parsl's own 60 are lost whenever a job has ended."""


class GridEngineJobs(GridEngineProvider):  # type: ignore[misc]  # parsl comes without types
    """Submits jobs as Parsl's provider does, and knows their states and their output.

    Parsl has ``t`` (being transferred to a node, a second for each job) and the states of suspended jobs as failed,
    upon which it gives up the whole endpoint. It neither says why `qsub` refuses a job nor where a job's output is.
    """

    @property
    def status_polling_interval(self) -> int:
        """Seconds."""
        return _POLL

    def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:
        """Run a command; a refused `qsub` raises with its own words.

        Raises:
            SubmitException: if `qsub` takes no job.
        """
        code, output, errors = super().execute_wait(cmd, timeout)
        if code != 0 and cmd.startswith("qsub "):
            raise SubmitException(cmd.rpartition("/")[2], (errors or output).strip(), output, errors, code)
        return code, output, errors

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl.sge") -> Any:
        """Return the id of a new job, whose files are named after its script, the newest with this name."""
        job = super().submit(command, tasks_per_node, job_name)
        scripts = sorted(Path(self.script_dir).glob(f"{job_name}.*.submit"), key=lambda path: path.stat().st_mtime)
        if job is not None and scripts:
            self.resources[job]["script"] = str(scripts[-1])
        return job

    def _status(self) -> None:
        code, output, _ = self.execute_wait("qstat")
        if code != 0:
            return
        columns = [line.split() for line in output.splitlines()]
        states = {words[0]: words[4] for words in columns if len(words) > 4 and words[0].isdigit()}
        for job, resource in self.resources.items():
            script = resource.get("script")
            files = {"stdout_path": f"{script}.stdout", "stderr_path": f"{script}.stderr"} if script else {}
            resource["status"] = JobStatus(job_state(states.get(job)), **files)


def job_state(state: str | None) -> JobState:
    """Return Parsl's name for a state of qstat(1), which shows none of a job that has ended.

    >>> [job_state(state).name for state in ("qw", "t", "r", "S", "Eqw", "dr", None)]
    ['PENDING', 'RUNNING', 'RUNNING', 'RUNNING', 'FAILED', 'COMPLETED', 'COMPLETED']
    """
    if state is None or "d" in state:
        return JobState.COMPLETED
    if "E" in state:
        return JobState.FAILED
    return JobState.PENDING if "q" in state else JobState.RUNNING
