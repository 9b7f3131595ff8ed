"""How Globus Compute calls functions of `bootstrap`: by requests in plain text.

The service is given the source of this module once, behind those of `bootstrap` and `plain_text`. No byte code and no
pickle comes between, so that also another version of Python can answer.
"""

from .bootstrap import *  # noqa: F403  # the functions that requests name
from .bootstrap import measured
from .plain_text import NotPlain, attributes, decode, encode


def serve(request: str) -> str:
    """Do what a request says, and answer in plain text.

    A request is JSON: ``{"function": name, "args", "limit"}`` for a function of this module, or ``{"pickle", ...}``
    for any other with its arguments, from a ``python`` of the same version: else the answer is ``other_python``. An
    answer has the ``result``, or the ``error`` (``type``, ``message``, ``traceback``, ``attributes``), or the size of a
    result that is ``too_large`` (more than ``limit`` characters), or that it is ``not_plain`` (its type). With
    ``trust``, such a result comes as a ``pickle``. ``measures`` are as `measured`'s.
    """
    import base64
    import json
    import time
    import traceback

    task = json.loads(request)
    answer: dict[str, object] = {}
    started, cpu = time.time(), time.process_time()
    try:
        if "function" in task:
            function, args, kwargs = globals()[task["function"]], decode(task["args"]), {}
        else:
            import platform

            import cloudpickle

            python = platform.python_version()
            if task.get("python", python).split(".")[:2] != python.split(".")[:2]:
                return json.dumps({"other_python": python})
            function, args, kwargs = cloudpickle.loads(base64.b64decode(task["pickle"]))
        result, answer["measures"] = measured(function, args, kwargs)
        if type(result).__module__ == "parsl.app.errors":
            result.reraise()  # Parsl has wrapped what its app raised
        try:
            answer["result"] = encode(result)
        except NotPlain as error:
            if task.get("trust"):
                import cloudpickle

                answer["pickle"] = base64.b64encode(cloudpickle.dumps(result)).decode()
            else:
                answer["not_plain"] = str(error)
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        kind = type(error)
        try:
            message = str(error)
        except Exception:
            message = "(its message cannot be shown)"
        answer["error"] = {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "message": message,
            "traceback": traceback.format_exc(),
            "attributes": attributes(error),
        }
        times = {"started": started, "finished": time.time(), "cpu_seconds": time.process_time() - cpu}
        answer.setdefault("measures", times)
    try:
        text = json.dumps(answer)
    except ValueError as error:  # an integer of more digits than Python converts
        text = json.dumps({"error": {"type": "builtins.ValueError", "message": str(error), "traceback": ""}})
    if len(text) > task["limit"]:
        text = json.dumps({"measures": answer.get("measures"), "too_large": len(text)})
    return text
