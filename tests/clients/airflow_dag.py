"""Lets Airflow import rendered DAGs, as its scheduler would, and compares when it would start them.

    airflow_dag.py FOLDER    `expected.json` in it says what each DAG has to be
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

home = tempfile.TemporaryDirectory()
os.environ |= {"AIRFLOW_HOME": home.name, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

from airflow.dag_processing.dagbag import DagBag  # noqa: E402, the home comes first
from airflow.timetables.trigger import CronTriggerTimetable  # noqa: E402
from croniter import croniter  # noqa: E402, with which Airflow reads cron expressions

from support import run_checks  # noqa: E402

folder = Path(sys.argv[1])
expected = json.loads((folder / "expected.json").read_text())
bag = DagBag(dag_folder=str(folder))


def airflow_imports_every_dag():
    assert bag.import_errors == {}, bag.import_errors
    assert sorted(bag.dags) == sorted(expected)


def each_dag_runs_one_at_a_time_and_never_catches_up():
    for dag in bag.dags.values():
        (task,) = dag.tasks
        told = task.partial_kwargs if task.is_mapped else vars(task)
        assert (dag.catchup, dag.max_active_runs, told["retries"]) == (False, 1, 0), dag
        assert told["skip_on_exit_code"] in (11, [11]), told["skip_on_exit_code"]


def a_split_run_is_one_task_with_an_instance_for_each_shard():
    (task,) = bag.dags["waybill_shards"].tasks
    assert task.is_mapped, task
    commands = task.expand_input.value["bash_command"]
    assert [command.split(" --shard ")[1].split(" ")[0] for command in commands] == ["1/3", "2/3", "3/3"], commands


def airflow_starts_it_when_waybill_would():
    for name, dag in bag.dags.items():
        timetable = dag.timetable
        # Airflow itself understands the expression.
        CronTriggerTimetable(timetable.expression, timezone=timetable.timezone).validate()
        zone = timetable.timezone
        fires = [datetime.fromisoformat(fire) for fire in expected[name]["fires"]]
        start = datetime.fromisoformat(expected[name]["start"]).astimezone(zone)
        times = croniter(timetable.expression, start, ret_type=datetime)
        assert [times.get_next() for _ in fires] == fires, (name, timetable.expression)


def the_command_that_airflow_gives_to_bash_does_the_job():
    (task,) = bag.dags["waybill_runs"].tasks
    path = f"{Path(os.environ['WAYBILL_BIN']).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **expected["waybill_runs"]["environment"], "PATH": path}
    done = subprocess.run(["bash", "-c", task.bash_command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The last line of stdout becomes the task's XCom.
    report = json.loads(done.stdout.strip().split("\n")[-1])
    assert report["job"] == "runs" and report["runs"][0]["outcome"] == "partial", report


if __name__ == "__main__":
    run_checks(
        [
            airflow_imports_every_dag,
            each_dag_runs_one_at_a_time_and_never_catches_up,
            a_split_run_is_one_task_with_an_instance_for_each_shard,
            airflow_starts_it_when_waybill_would,
            the_command_that_airflow_gives_to_bash_does_the_job,
        ]
    )
