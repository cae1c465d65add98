"""A run that dies between the registration and the verdict: the same command comes to the verdict."""

from __future__ import annotations

import json

import pytest


@pytest.mark.usefixtures("done")
def test_a_version_that_was_never_judged_is_judged_by_the_next_run(tiny):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tiny.home / 'unjudged.db'}"
    how = {"store": "runs/store", "device": "cpu", "threads": 1, "mlflow": uri}
    words = ("run", tiny.config("unjudged", name="unjudged", exec=how))
    first = tiny(*words, "--json")
    assert first.returncode == 0, first.stdout + first.stderr
    version = json.loads(first.stdout)["release"]["version"]
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    # What the registry holds when a run is killed right after it has registered its bundle.
    client.delete_registered_model_alias("tiny-model", "champion")
    for tag in [t for t in client.get_model_version("tiny-model", version).tags if t.startswith("recdistill.promoted")]:
        client.delete_model_version_tag("tiny-model", version, tag)
    client.delete_model_version_tag("tiny-model", version, "recdistill.gate")
    again = tiny(*words, "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout)["release"]["version"] == version
    assert int(client.get_model_version_by_alias("tiny-model", "champion").version) == version
