"""Prints the cache key of a file for each of several analyses on disk, each read by a process of its own.

    python -m tests.keys_of < requests.json

A request has the ``folder`` of an analysis, and what `cafetal run` would be given there; ``setup`` is Python that a
user's script runs after it has imported the modules.
"""

import functools
import json
import os
import sys

import cloudpickle
import lz4.frame
from coffea.processor import Runner
from coffea.processor.executor import WorkItem

from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.runner.processors import load_processor, load_schema
from cafetal.shipping.cache_keys import FileKeys, analysis_key

ITEM = {"dataset": "d", "filename": "/store/a.root", "treename": "Events", "fileuuid": "00" * 16}


def work_function(processor, schema):
    """Make the function that Runner gives to an executor."""
    return functools.partial(
        Runner._work_function,
        *("root", 60, schema, False, False),
        processor_instance=lz4.frame.compress(cloudpickle.dumps(processor)),
        uproot_options={},
        iteritems_options={},
        checkpointer=None,
    )


def key(folder, processor, arguments=None, schema="NanoAODSchema", aux=None, item=None, setup=""):
    os.chdir(folder)
    instance = load_processor(processor, arguments or {})
    exec(setup, {"processor": instance})
    function = work_function(instance, load_schema(schema))
    shipment = MultiSiteExecutor(status=False).ship(function, aux or {})
    analysis = analysis_key(shipment, function)
    if analysis is None:
        return None
    fields = ITEM | (item or {})
    work_item = WorkItem(entrystart=0, entrystop=1, **{**fields, "fileuuid": bytes.fromhex(fields["fileuuid"])})
    return FileKeys(analysis).of(work_item).hex()


def in_child(request):
    """Run in a process that has imported nothing of the user's yet."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            answer = {"key": key(**request)}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = json.load(stream)
    os.waitpid(child, 0)
    return answer


if __name__ == "__main__":
    print(json.dumps([in_child(request) for request in json.load(sys.stdin)]))
