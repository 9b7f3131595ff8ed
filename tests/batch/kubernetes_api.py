"""A stand-in for the API of a Kubernetes cluster: it keeps pods, and runs the command of each on this machine.

Paths, bodies and phases are those of the API's reference,
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


class Cluster:
    """Pods of one namespace; a context manager. `pods` holds what was sent to make each, by name."""

    def __init__(self, folder, namespace):
        self.pods, self.processes, self.deleted = {}, {}, []
        self._prefix = f"/api/v1/namespaces/{namespace}/pods"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.config = folder / "kubeconfig"
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
        user = {"name": "me", "user": {"token": "secret"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "here"}
        self.config.write_text(
            yaml.safe_dump({**config, "clusters": [cluster], "contexts": [context], "users": [user]})
        )

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
            process.wait(20)

    def create(self, pod):
        name = pod["metadata"]["name"]
        (container,) = pod["spec"]["containers"]
        self.pods[name] = pod
        self.processes[name] = subprocess.Popen([*container["command"], *container["args"]])
        return 201, self.read(name)[1]

    def read(self, name):
        if name not in self.pods or name in self.deleted:
            return 404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        code = self.processes[name].poll()
        phase = "Running" if code is None else "Failed" if code else "Succeeded"
        return 200, {"kind": "Pod", "apiVersion": "v1", **self.pods[name], "status": {"phase": phase}}

    def delete(self, name):
        status, pod = self.read(name)
        if status == 200:
            self.deleted.append(name)
            self.processes[name].terminate()
        return status, pod

    def _handler(cluster):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.path.partition("?")[0] == cluster._prefix
                self._answer(*cluster.create(self._body()))

            def do_GET(self):
                self._answer(*cluster.read(self._name()))

            def do_DELETE(self):
                self._body()
                self._answer(*cluster.delete(self._name()))

            def _name(self):
                return self.path.partition("?")[0].removeprefix(f"{cluster._prefix}/")

            def _body(self):
                return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

            def _answer(self, status, body):
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format, *args):
                pass

        return Handler
