"""A server on this machine that stands for W&B's: it answers what wandb's own processes ask, and notes it.

It keeps no more than a run's history and views. What the real service makes of them is not tested by it.
"""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "x" * 40


@dataclass
class History:
    """What was streamed of one run."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    name: str = ""
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    preempted: bool = False
    exit_codes: list[int] = field(default_factory=list)


@dataclass
class Service:
    """What was asked of it."""

    url: str = ""
    histories: dict[str, History] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # (operation, variables)
    runs: list[tuple[dict[str, Any], dict[str, Any], str]] = field(default_factory=list)  # config, summary, job type
    entity: str | None = "me"  # default of who asks
    refuses: str = ""  # an operation that fails

    def of(self, operation: str) -> list[dict[str, Any]]:
        """Variables of every call of an operation."""
        return [variables for name, variables in self.asked if name == operation]

    def answer(self, path: str, body: Any) -> dict[str, Any]:
        if "file_stream" in path:
            return self._stream(path.split("/")[-2], body)
        if not path.startswith("/graphql"):
            return {}
        operation = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
        name, variables = operation.group(1) if operation else "", body.get("variables") or {}
        self.asked.append((name, variables))
        data = None if name == self.refuses else self._data(name, body["query"], variables)
        return {"errors": [{"message": "permission denied"}], "data": None} if data is None else {"data": data}

    def _stream(self, run: str, body: dict[str, Any]) -> dict[str, Any]:
        history = self.histories.setdefault(run, History())
        lines = body.get("files", {}).get("wandb-history.jsonl")
        if lines:
            history.lines[lines["offset"] :] = [json.loads(line) for line in lines["content"]]
        history.preempted |= body.get("preempting", False)
        if body.get("complete"):
            history.exit_codes.append(body["exitcode"])
        return {}

    def _data(self, name: str, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        project = {"id": "cA==", "name": variables.get("project"), "entity": {"id": "ZQ==", "name": "me"}}
        if name == "UpsertBucket":
            run = variables["name"]
            new = run not in self.histories
            history = self.histories.setdefault(run, History())
            history.name = variables.get("displayName") or history.name
            history.group = variables.get("groupName") or history.group
            history.tags = variables.get("tags") or history.tags
            bucket = {"id": "cg==", "name": run, "displayName": history.name, "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket | {"historyLineCount": len(history.lines)}, "inserted": new}}
        if name == "RunResumeStatus":
            return {"model": project | {"bucket": self._resumed(variables["name"])}}
        if name == "CreateRunFiles":
            files = [{"name": each, "uploadUrl": f"{self.url}/upload/{each}"} for each in variables["files"]]
            return {"createRunFiles": {"runID": "cg==", "uploadHeaders": [], "files": files}}
        if "upsertView" in query:
            return {"upsertView": {"view": {"id": "dg==", "name": variables.get("name")}, "inserted": True}}
        if "viewer" in query and "project(" not in query:
            teams: dict[str, Any] = {"edges": []}
            return {"viewer": {"id": "dQ==", "entity": self.entity, "username": "me", "flags": "{}", "teams": teams}}
        return self._runs(query)

    def _resumed(self, run: str) -> dict[str, Any] | None:
        if run not in self.histories:
            return None
        lines = self.histories[run].lines
        tail = json.dumps([json.dumps(line) for line in lines[-1:]])
        counts = {"historyLineCount": len(lines), "logLineCount": 0, "eventsLineCount": 0}
        texts = {"summaryMetrics": "{}", "config": "{}", "wandbConfig": '{"t": 1}'}
        texts |= {"eventsTail": "[]", "historyTail": tail}
        return (
            {"id": "cg==", "name": run, "displayName": self.histories[run].name, "tags": self.histories[run].tags}
            | counts
            | texts
        )

    def _runs(self, query: str) -> dict[str, Any] | None:
        if "project(" not in query:
            return None  # artifacts, for one
        edges = []
        for number, (config, summary, job_type) in enumerate(self.runs):
            values = {key: {"value": value} for key, value in config.items()}
            run = {"id": "cg==", "name": f"run{number}", "displayName": f"run {number}", "state": "finished"}
            about: dict[str, Any] = {
                "projectId": "1",
                "sweepName": None,
                "tags": [],
                "group": None,
                "jobType": job_type,
            }
            about["user"] = {"name": "me", "username": "me"}
            texts = {"summaryMetrics": json.dumps(summary), "config": json.dumps(values), "systemMetrics": "{}"}
            times = {"createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": "2026-01-01T00:00:00Z", "description": None}
            edges.append({"node": run | about | texts | times | {"historyLineCount": 1}, "cursor": str(number)})
        runs = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"project": {"internalId": "1", "id": "cA==", "runCount": len(edges), "readOnly": False, "runs": runs}}


@contextmanager
def standing_for_wandb() -> Iterator[Service]:
    """Serve on a port of this machine."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            upload = self.path.startswith("/upload")
            reply = json.dumps({} if upload else service.answer(self.path, json.loads(content))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_PUT = do_POST

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that hangs up is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
