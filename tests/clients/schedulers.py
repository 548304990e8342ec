"""Holds what `waybill schedule` writes to the rules of those who read it.

    schedulers.py kubernetes FILE JOB    the rendered objects, by the Kubernetes API's own schemas
    schedulers.py indexed FILE JOB       the same of a job that is split into four shards
    schedulers.py metrics URL            the page of metrics, by Prometheus' own parser
"""

import json
import sys
import urllib.request
from pathlib import Path

import kubernetes_validate
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support import run_checks

what, *arguments = sys.argv[1:]


def objects():
    return {each["kind"]: each for each in yaml.safe_load_all(Path(arguments[0]).read_text())}


def the_schemas_of_kubernetes_accept_the_objects():
    assert sorted(objects()) == ["ConfigMap", "CronJob"]
    for each in objects().values():
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def a_field_that_does_not_exist_would_be_noticed():
    broken = objects()["CronJob"]
    broken["spec"]["scheduled"] = "x"
    try:
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("the schema check accepts anything")


def the_job_file_arrives_as_it_is():
    text = Path(arguments[1]).read_text()
    assert objects()["ConfigMap"]["data"]["job.toml"].strip() == text.strip()


def the_pod_meets_the_restricted_standard_and_is_not_tried_again():
    job = objects()["CronJob"]["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    limit = job["backoffLimitPerIndex"] if job.get("completionMode") == "Indexed" else job["backoffLimit"]
    assert (limit, pod["restartPolicy"]) == (0, "Never")
    assert objects()["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"
    # Exit code 3 is success to Kubernetes, since `Ignore` in a failure policy would start another pod at once.
    assert container["args"][-2:] == ["--success-exit", "3,11"], container["args"]


def each_shard_has_a_pod():
    job = objects()["CronJob"]["spec"]["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 4, 4)
    index = container["args"].index("--shard-index")
    # Kubernetes numbers the pods from 0 and puts the number in place of the variable.
    assert container["args"][index + 1] == "$(JOB_COMPLETION_INDEX)/4"


def secrets_are_references():
    (container,) = objects()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    secrets = {each["name"]: each["valueFrom"] for each in container["env"] if "valueFrom" in each}
    assert secrets == {"WAYBILL_SECRET": {"secretKeyRef": {"name": "waybill-nightly-eu", "key": "WAYBILL_SECRET"}}}


def prometheus_reads_every_line():
    with urllib.request.urlopen(arguments[0]) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    samples = [sample for family in families.values() for sample in family.samples]
    assert len(samples) == len(lines), "a line belongs to no family"
    types = {name: family.type for name, family in families.items()}
    assert "unknown" not in types.values(), types
    for name in ["runs", "events", "gaps", "bytes_hashed", "job_skipped", "job_ends"]:
        assert types[f"waybill_{name}"] == "counter", types
    assert types["waybill_run_duration_seconds"] == "histogram"
    for name in ["build_info", "last_success_timestamp_seconds", "lag_seconds", "owed", "next_fire_timestamp_seconds"]:
        assert types[f"waybill_{name}"] == "gauge", types

    def value(name, **labels):
        (found,) = [each.value for each in samples if each.name == name and each.labels == labels]
        return found

    # The connection's name is hostile; as a label it comes back as it is.
    name = 'mail "\\ one'
    assert value("waybill_runs_total", connection=name, outcome="done") == 1
    assert value("waybill_run_duration_seconds_count", connection=name) == 1
    assert value("waybill_run_duration_seconds_bucket", connection=name, le="+Inf") == 1
    assert value("waybill_events_total", connection=name) > 30
    assert value("waybill_bytes_hashed_total", connection=name) > 1000
    assert value("waybill_owed", connection=name, kind="blobs") == 0
    assert value("waybill_job_skipped_total", job="hourly") == 0
    assert value("waybill_job_ends_total", job="hourly", exit_code="0") == 1
    assert value("waybill_next_fire_timestamp_seconds", job="hourly") > value(
        "waybill_last_success_timestamp_seconds", connection=name
    )
    print(json.dumps(types, indent=1))


CHECKS = {
    "kubernetes": [
        the_schemas_of_kubernetes_accept_the_objects,
        a_field_that_does_not_exist_would_be_noticed,
        the_job_file_arrives_as_it_is,
        the_pod_meets_the_restricted_standard_and_is_not_tried_again,
        secrets_are_references,
    ],
    "indexed": [
        the_schemas_of_kubernetes_accept_the_objects,
        the_pod_meets_the_restricted_standard_and_is_not_tried_again,
        each_shard_has_a_pod,
    ],
    "metrics": [prometheus_reads_every_line],
}

if __name__ == "__main__":
    run_checks(CHECKS[what])
