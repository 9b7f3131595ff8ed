"""Private attributes of other packages that we use: named here, and there in the versions that are installed."""

import ast
import inspect
from pathlib import Path

import boost_histogram as bh
import filelock._identity
import globus_compute_sdk
import globus_compute_sdk.sdk.client
import globus_compute_sdk.sdk.executor
import parsl.executors.status_handling
import parsl.jobs.job_status_poller
import pytest
import uproot
from coffea.nanoevents import BaseSchema
from coffea.nanoevents import factory as coffea_factory
from coffea.nanoevents.mapping.uproot import UprootSourceMapping
from coffea.processor import Runner

ENGINE = Path(__file__).parents[2] / "analysis" / "cafetal"
SDK = globus_compute_sdk.sdk

IN_CLASSES = [
    (SDK.executor, "_ResultWatcher"),
    (SDK.executor, "_REGISTERED_EXECUTORS"),
    (SDK.executor, "_RESULT_WATCHERS"),
    (SDK.client, "_ComputeWebClient"),
    (globus_compute_sdk.Executor, "_get_result_watcher"),
    (globus_compute_sdk.Client, "_log_version_mismatch"),
    (Runner, "_work_function"),
    (coffea_factory, "_OnlySliceableAs"),
    (filelock._identity, "host_name"),
    (UprootSourceMapping, "_extract_base_form"),
    (bh.Histogram(bh.axis.Regular(1, 0, 1)), "_hist"),
    (bh.Histogram(bh.axis.Regular(1, 0, 1)), "_variance_known"),
]
"""What is there in a class, a module or an object."""
IN_SOURCES = [
    (globus_compute_sdk.Executor, "_task_submitter"),
    (globus_compute_sdk.Executor, "_task_group_id"),
    (globus_compute_sdk.Client, "_compute_web_client"),
    (parsl.executors.status_handling.BlockProviderExecutor, "_last_poll_time"),
    (parsl.jobs.job_status_poller.JobStatusPoller, "_executors"),
    (parsl.jobs.job_status_poller.JobStatusPoller, "_strategy"),
    (BaseSchema, "_form"),
    (uproot.reading.ReadOnlyFile, "_begin_chunk"),
    (uproot.model.Model, "_file"),
    (uproot.model.Model, "_parent"),
    (uproot.model.Model, "_members"),
    (uproot.behaviors.TBranch.HasBranches, "_lookup"),
    (uproot.behaviors.TBranch.TBranch, "_cache_key"),
    (uproot.behaviors.TBranch.TBranch, "_interpretation"),
]
"""What objects of a class get."""
OURS = {"_locate", "_folder", "_take_folder", "_leave_folder"}
"""Private attributes of objects of our own, used by their neighbours."""


@pytest.mark.parametrize(("owner", "name"), IN_CLASSES, ids=lambda each: getattr(each, "__name__", str(each)))
def test_it_is_there(owner, name):
    assert hasattr(owner, name)


@pytest.mark.parametrize(("owner", "name"), IN_SOURCES, ids=lambda each: getattr(each, "__name__", str(each)))
def test_it_is_given_to_objects(owner, name):
    assert f".{name}" in inspect.getsource(inspect.getmodule(owner))


def test_what_we_override_has_the_same_parameters():
    from cafetal.federation.globus_compute import auth, submitter

    for ours, theirs, name in (
        (submitter._OwnExecutor, globus_compute_sdk.Executor, "_get_result_watcher"),
        (auth.ListeningClient, globus_compute_sdk.Client, "_log_version_mismatch"),
    ):
        parameters = [inspect.signature(getattr(owner, name)).parameters for owner in (ours, theirs)]
        assert list(parameters[0]) == list(parameters[1])


def private_names(path):
    """Private attributes in a source that none of its own functions or classes defines, and private imports."""
    tree = ast.parse(path.read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if own and isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not (own and node.attr in defined) and node.attr not in defined:
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("cafetal", "__future__")):
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))


def test_each_is_named_here():
    """Another one must be entered above, so that it is seen at once when a new version has it no more."""
    named = {name for _, name in (*IN_CLASSES, *IN_SOURCES)} | OURS
    sources = [path for path in ENGINE.rglob("*.py") if "templates" not in path.parts]
    found = {(name, str(path.relative_to(ENGINE))) for path in sources for name in private_names(path)}
    assert not sorted((name, where) for name, where in found if name not in named)
