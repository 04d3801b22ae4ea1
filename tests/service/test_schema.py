"""Whatever a program makes of OpenAPI's description is answered as it says."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.service.serving import Serving

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_every_answer_is_described(client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/segment", "/v1/status", "/metrics", "/healthz", "/readyz", "/v2/models/{model}/infer"} <= set(paths)
    for path in paths.values():
        for operation in path.values():
            assert operation.get("summary")
            assert operation.get("description")
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["required"] == ["error"]


def test_schemathesis_finds_nothing(served: Serving) -> None:
    program = shutil.which("schemathesis")
    if program is None:
        pytest.skip("needs schemathesis")
    command = [program, "run", f"{served.url}/openapi.json", "--checks", CHECKS, "--max-examples", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
