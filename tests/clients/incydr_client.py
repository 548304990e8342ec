"""The replaced product's own client, unmodified (PyPI incydr), against `waybill serve`: library and command line."""

import csv
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import requests
from openapi_spec_validator import validate

from support import CORPUS, Lake, run_checks, serve, simulate

folder = Path(tempfile.mkdtemp())
os.environ["HOME"] = str(folder)  # the client keeps checkpoints there
os.chdir(folder)  # and reads a .env of the working directory

import incydr  # noqa: E402
from incydr import EventQuery, GroupingEventQuery  # noqa: E402
from _incydr_sdk.exceptions import IncydrException  # noqa: E402

COMMAND = Path(sys.executable).with_name("incydr")


def stay(manager):
    """Enters what lives as long as the process."""
    held.append(manager)
    return manager.__enter__()


held = []
tenant = stay(simulate("--corpus", CORPUS, "--shift-dates", "now"))
lake = Lake(folder / "lake", tenant)
lake.add(tenant)
lake.run()
token = json.loads(lake.waybill("serve", "token", "add", "--name", "SIEM", "--role", "analyst", "--output", "json"))["token"]
viewer = json.loads(lake.waybill("serve", "token", "add", "--name", "Eye", "--role", "viewer", "--output", "json"))["token"]
url = stay(serve(lake))["http"]
client = incydr.Client(url=url, api_client_id="SIEM", api_client_secret=token)
bearer = {"Authorization": f"Bearer {token}"}
everything = {"groups": [{"filters": [{"term": "event.id", "operator": "EXISTS", "value": None}]}]}


def command(*arguments, code=0):
    """Runs the client's command line."""
    environment = os.environ | {
        "INCYDR_URL": url, "INCYDR_API_CLIENT_ID": "SIEM", "INCYDR_API_CLIENT_SECRET": token, "INCYDR_USE_RICH": "false",
        "COLUMNS": "200",
    }  # fmt: skip
    done = subprocess.run([COMMAND, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == code, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def lines(*arguments):
    out = command(*arguments, "-f", "json-lines")
    return [] if "No results found" in out else [json.loads(line) for line in out.split("\n") if line]


def post(path, body, **options):
    return requests.post(f"{url}{path}", json=body, headers=bearer, **options)


def everything_by_pages(**options):
    query = EventQuery(start_date="P20000D", **options)
    query.page_token = ""
    events, pages = [], 0
    while query.page_token is not None:
        page = client.file_events.v2.search(query)
        assert len(page.file_events) <= query.page_size
        events += page.file_events
        pages += 1
    return events, pages


def in_lake(what="*", where="true", table="file_events"):
    return lake.sql(f"SELECT {what} FROM {table} WHERE {where} ORDER BY inserted_at, event_id")


def pages_have_every_event_once_and_in_order():
    rows = in_lake("event_id")
    for size in (4, 10_000):
        events, pages = everything_by_pages(page_size=size)
        assert [event.event.id.split("_")[1] for event in events] == [row["event_id"] for row in rows]
        assert pages == -(-len(rows) // size), f"{pages} pages of {size}"
    ids = [event.event.id for event in events]
    assert ids == sorted(ids) and len(set(ids)) == len(ids) > 30


def pages_in_any_order_have_every_event_once():
    ids = {row["event_id"] for row in in_lake("event_id")}
    for key in ("file.name", "file.sizeInBytes", "@timestamp", "risk.score", "destination.email.subject", "event.observer"):
        for direction in ("asc", "desc"):
            events, _ = everything_by_pages(page_size=5, sort_key=key, sort_dir=direction)
            found = [event.event.id.split("_")[1] for event in events]
            assert len(found) == len(ids) and set(found) == ids, f"{key} {direction}"
    sizes = [event.file.size_in_bytes for event in everything_by_pages(page_size=5, sort_key="file.sizeInBytes")[0]]
    known = [size for size in sizes if size is not None]
    assert known == sorted(known) and sizes[: len(known)] == known, "events without a value come last"


def an_event_says_what_the_lake_has():
    events, _ = everything_by_pages()
    rows = {row["event_id"]: row for row in in_lake(table="events")}
    for event in events:
        row = rows[event.event.id.split("_")[1]]
        assert (event.file.name, event.file.size_in_bytes) == (row["file_name"], row["file_size_bytes"])
        assert (event.file.hash.md5, event.file.hash.sha256) == (row["md5"], row["sha256"])
        assert event.destination.email.recipients == row["recipients"]
        assert event.destination.email.subject == row["subject"]
        assert (event.source.email.sender, event.source.email.from_) == (row["sender"], row["from_address"])
        assert event.user.email == (row["mailbox"] or row["sender"])
        assert (event.risk.score, event.risk.severity) == (row["risk_score"], row["risk_severity"])
        assert [indicator.name for indicator in event.risk.indicators] == row["risk_indicators"]
        assert sum(indicator.weight for indicator in event.risk.indicators) == event.risk.score
        assert (event.event.action, event.event.observer, event.event.vector) == ("file-emailed", "Office365", "EMAILED")
        assert event.timestamp == datetime.datetime.fromisoformat(row["observed_at"])
        assert event.event.detector_display_name == "Test"


def the_command_line_finds_a_file_by_its_hash():
    row = in_lake("*", "md5 IS NOT NULL")[0]
    for option, value in (("--md5", row["md5"].upper()), ("--sha256", row["sha256"]), ("--file-name", row["file_name"])):
        found = lines("file-events", "search", "--start", "P20000D", "--risk-score", "0", option, value)
        assert row["event_id"] in {event["event"]["id"].split("_")[1] for event in found}, option
        column = {"--md5": "md5", "--sha256": "sha256", "--file-name": "lower(file_name)"}[option]
        assert len(found) == len(in_lake("event_id", f"{column} = lower('{value}')")), option
    nobody = lines("file-events", "search", "--start", "P20000D", "--risk-score", "0", "--md5", "0" * 32)
    assert nobody == []
    user = row["mailbox"]
    found = lines("file-events", "search", "--start", "P20000D", "--risk-score", "0", "--username", user)
    assert len(found) == len(in_lake("event_id", f"mailbox = '{user}'"))


def the_default_command_shows_what_has_risk():
    found = lines("file-events", "search", "--start", "P20000D")
    risky = in_lake("event_id", "risk_score > 1", "events")
    assert len(found) == len(risky) > 0
    table = command("file-events", "search", "--start", "P20000D", "-f", "csv", "--columns", "event.id,file.name,risk.score")
    assert len(list(csv.reader(io.StringIO(table)))) == len(risky) + 1


def groups_are_counted():
    query = GroupingEventQuery(start_date="P20000D").group_by("file.category")
    groups = {group.value: group.doc_count for group in client.file_events.v2.search_groups(query).groups}
    rows = lake.sql("SELECT file_category AS value, count(*) AS n FROM file_events GROUP BY 1")
    assert groups == {row["value"]: row["n"] for row in rows}
    by_recipient = lines("file-events", "search-groups", "--start", "P20000D", "--risk-score", "0",
                         "--group-by", "destination.email.recipients")  # fmt: skip
    rows = lake.sql(
        "SELECT r AS value, count(*) AS n FROM (SELECT unnest(recipients) AS r FROM file_events) GROUP BY r ORDER BY n DESC, r"
    )
    assert [(group["value"], group.get("docCount", group.get("doc_count"))) for group in by_recipient] == [(row["value"], row["n"]) for row in rows]
    nothing = post("/v2/file-events/grouping", everything | {"groupingTerm": "process.owner"}).json()
    assert nothing == {"groups": [], "problems": None}


def a_checkpoint_resumes_after_days_and_misses_nothing():
    ask = ("file-events", "search", "--start", "P20000D", "--risk-score", "0", "--checkpoint", "nightly")
    first = lines(*ask)
    assert len(first) == len(in_lake("event_id"))
    assert lines(*ask) == [], "nothing new"
    # Mails that were sent long before those that were shown already, and became searchable after them.
    other = stay(simulate("--generate", "users=5,messages=60,days=2,attachments=2,size=1000,seed=7"))
    late = Lake(lake.url, other)
    late.add(other, name="Other")
    late.run("Other")
    second = lines(*ask)
    assert 0 < len(second) == len(in_lake("event_id", "connection_name = 'Other'"))
    assert {event["connection"]["name"] for event in second} == {"Other"}
    # Maintenance moves rows to other files, and not to other places.
    lake.maintain()
    assert lines(*ask) == []
    seen = [event["event"]["id"] for event in first + second]
    assert len(set(seen)) == len(seen) == len(in_lake("event_id"))
    # Any event ever shown is a token, in any order.
    answer = post("/v2/file-events", everything | {"pgToken": seen[10], "srtKey": "event.id", "srtDir": "asc"}).json()
    assert [event["event"]["id"] for event in answer["fileEvents"]] == seen[11:111]


def pages_by_number_go_beyond_ten_thousand_and_have_no_token():
    total = len(in_lake("event_id"))
    body = everything | {"pgSize": 10, "srtKey": "event.id", "srtDir": "asc"}
    first, second = (post("/v2/file-events", body | {"pgNum": number}).json() for number in (1, 2))
    assert (first["totalCount"], first["nextPgToken"]) == (total, None), first["nextPgToken"]
    ids = [event["event"]["id"] for page in (first, second) for event in page["fileEvents"]]
    assert len(set(ids)) == 20 and ids == sorted(ids)
    assert post("/v2/file-events", body | {"pgNum": 2000}).json()["fileEvents"] == []


def what_is_wrong_is_said_in_the_products_words():
    def problems(body, status=400):
        answer = post("/v2/file-events", body)
        assert answer.status_code == status, answer.text
        assert answer.json()["fileEvents"] is None
        return [problem["type"] for problem in answer.json()["problems"]]

    def filtered(term, operator, value):
        return {"groups": [{"filters": [{"term": term, "operator": operator, "value": value}]}]}

    assert problems(filtered("file.nme", "IS", "x")) == ["ILLEGAL_VALUE"]
    assert problems(filtered("file.name", "GREATER_THAN", 3)) == ["ILLEGAL_OPERATOR"]
    assert problems(filtered("file.hash.md5", "IS", "abc")) == ["ILLEGAL_VALUE"]
    assert problems(filtered("file.name", "IS", None)) == ["MISSING_VALUE"]
    assert problems(filtered("file.name", "IS", "x" * 5000)) == ["MAX_LENGTH_EXCEEDED"]
    assert problems({"groups": []}) == ["MISSING_GROUPS"]
    assert problems({"groups": [{}]}) == ["MISSING_FILTERS"], "what `EventQuery.subquery` sends"
    assert problems({"groups": [{"filterClause": "AND", "filters": None}]}) == ["MISSING_FILTERS"]
    assert problems(everything | {"pgSize": 10_001}) == ["INVALID_PAGE_SIZE"]
    assert problems(everything | {"pgSize": "10"}) == ["INVALID_PAGE_SIZE"]
    assert problems(everything | {"pgNum": 0}) == ["INVALID_PAGE_NUMBER"]
    for strange in ("x", "'; DROP TABLE file_events", "9" * 16 + "_" + "0" * 36, "0_1_2", "../../etc/passwd"):
        assert problems(everything | {"pgToken": strange}) == ["INVALID_PAGE_TOKEN"], strange
    assert problems(everything | {"srtKey": "destination.email.recipients"}) == ["ILLEGAL_SORT"]
    assert problems(everything | {"srtKey": "event_id; --"}) == ["ILLEGAL_SORT"]
    assert requests.post(f"{url}/v2/file-events", data="{", headers=bearer).status_code == 400
    too_large = requests.post(f"{url}/v2/file-events", data="[" * 5_000_000, headers=bearer)
    assert too_large.status_code == 413, too_large.status_code
    deep = requests.post(f"{url}/v2/file-events", data='{"groups":' + "[" * 100_000, headers=bearer)
    assert deep.status_code == 400, deep.status_code
    try:
        client.file_events.v2.search(EventQuery(start_date="P1D").equals("file.nme", "x"))
    except IncydrException as error:
        assert "there is no term `file.nme`" in str(error)
    else:
        raise AssertionError("an unknown term was searched")
    # Filters are values, whatever is in them.
    hostile = ["' OR '1'='1", "\\", "*' --", "%_", "\u0000", "x'); DROP TABLE file_events; --"]
    for text in hostile:
        for term in ("file.name", "source.email.sender", "destination.email.recipients", "destination.email.subject"):
            answer = post("/v2/file-events", filtered(term, "IS", text))
            assert answer.status_code == 200 and answer.json()["totalCount"] == 0, (term, text, answer.text)
    assert len(in_lake("event_id")) > 0


def saved_searches_are_made_listed_and_run():
    assert client.file_events.v2.list_saved_searches() == []
    risky = {"name": "Risky mail", "notes": "for the SIEM", "columns": ["file.name"], "srtKey": "@timestamp", "srtDir": "desc",
             "groupClause": "AND", "groups": [{"filterClause": "AND", "filters": [
                 {"term": "risk.score", "operator": "GREATER_THAN", "value": 1}]}]}  # fmt: skip
    made = post("/v2/file-events/saved-searches", risky)
    assert made.status_code == 201, made.text
    id = made.json()["searches"][0]["id"]
    listed = client.file_events.v2.list_saved_searches()
    assert [(search.id, search.name, search.created_by_username) for search in listed] == [(id, "Risky mail", "token:SIEM")]
    search = client.file_events.v2.get_saved_search(id)
    assert search.groups[0].filters[0].value == "1" and search.srt_dir == "desc"
    found = lines("file-events", "search", "--saved-search", id)
    assert len(found) == len(in_lake("event_id", "risk_score > 1", "events"))
    assert "Risky mail" in command("file-events", "list-saved-searches", "-f", "json-lines")
    place = f"{url}/v2/file-events/saved-searches/{id}"
    assert post("/v2/file-events/saved-searches", risky | {"name": "risky MAIL"}).status_code == 400, "the name is taken"
    changed = requests.put(place, json=risky | {"name": "Risk"}, headers=bearer)
    assert changed.json()["searches"][0]["name"] == "Risk"
    assert requests.delete(place, headers=bearer).status_code == 204
    assert requests.get(place, headers=bearer).status_code == 404
    assert requests.get(f"{url}/v2/file-events/saved-searches/x%2f..%2f", headers=bearer).status_code == 404
    kept = lake.sql("SELECT action FROM changes WHERE action LIKE 'search%' ORDER BY changed_at")
    assert [row["action"] for row in kept] == ["search_saved", "search_saved", "search_removed"]


def an_export_is_whole_and_harmless():
    columns = ["event.id", "@timestamp", "file.name", "file.hash.sha256", "destination.email.recipients", "risk.score"]
    answer = post("/v2/file-events/export", everything | {"columns": columns, "srtKey": "event.id", "srtDir": "asc"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(answer.content.decode())))
    expected = in_lake("*", table="events")
    assert rows[0] == columns and len(rows) == len(expected) + 1
    for row, event in zip(rows[1:], expected):
        assert row[0].endswith("_" + event["event_id"])
        assert row[2].removeprefix("'") == (event["file_name"] or "")
        assert row[4].removeprefix("'") == "; ".join(event["recipients"]) and row[5] == str(event["risk_score"])
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    assert post("/v2/file-events/export", everything).json()["problems"][0]["type"] == "MISSING_VALUE"


def the_equivalent_sql_gives_the_same_events():
    body = {"groupClause": "OR", "groups": [
        {"filters": [{"term": "file.name", "operator": "IS", "value": "*.PDF"}]},
        {"subgroupClause": "AND", "subgroups": [
            {"filters": [{"term": "file.sizeInBytes", "operator": "LESS_THAN", "value": 20000}]},
            {"filters": [{"term": "risk.severity", "operator": "IS_ANY", "value": ["low", "MODERATE"]}]}]}],
        "srtKey": "event.id", "srtDir": "asc"}  # fmt: skip
    statement = post("/v2/file-events/sql", body).json()["sql"]
    found = [event["event"]["id"].split("_")[1] for event in post("/v2/file-events", body | {"pgSize": 1000}).json()["fileEvents"]]
    assert [row["event_id"] for row in lake.sql(statement)] == found != []


def clients_sign_in_in_three_ways_and_nobody_else():
    basic = ("SIEM", token)
    ways = [
        requests.post(f"{url}/v1/oauth", auth=basic),
        requests.post(f"{url}/v1/oauth?grant_type=client_credentials", auth=basic),
        requests.post(f"{url}/v1/oauth", data={"grant_type": "client_credentials", "client_id": "SIEM", "client_secret": token}),
    ]
    for way in ways:
        assert way.status_code == 200 and way.json()["token_type"] == "bearer" and way.json()["expires_in"] == 900
        got = {"Authorization": f"Bearer {way.json()['access_token']}"}
        assert requests.post(f"{url}/v2/file-events", json=everything, headers=got).status_code == 200
    wrong = [("SIEM", token[:-1] + "x"), ("Other", token), ("SIEM", ""), ("", token), ("SIEM", "x" * 100_000)]
    for name, secret in wrong:
        status = requests.post(f"{url}/v1/oauth", auth=(name, secret)).status_code
        assert status in (401, 431), (name, status)
    assert requests.post(f"{url}/v1/oauth", data={"client_id": "SIEM", "client_secret": "no"}).status_code == 401
    assert requests.post(f"{url}/v1/oauth", data={"grant_type": "password"}).status_code == 400
    assert requests.post(f"{url}/v1/oauth").status_code == 400
    for path in ("/v2/file-events", "/v2/file-events/grouping", "/v2/file-events/export", "/v2/file-events/sql"):
        seen = requests.post(f"{url}{path}", json=everything, headers={"Authorization": f"Bearer {viewer}"})
        assert seen.status_code == 403 and seen.json()["code"] == "not-allowed", path
        nobody = requests.post(f"{url}{path}", json=everything, headers={"Authorization": "Bearer wb_no"})
        assert nobody.status_code == 401, path


def what_is_taken_back_opens_nothing_any_more():
    gone = json.loads(lake.waybill("serve", "token", "add", "--name", "Gone", "--role", "analyst", "--output", "json"))["token"]
    got = requests.post(f"{url}/v1/oauth", auth=("Gone", gone)).json()["access_token"]
    headers = {"Authorization": f"Bearer {got}"}
    assert requests.post(f"{url}/v2/file-events", json=everything, headers=headers).status_code == 200
    lake.waybill("serve", "token", "remove", "--name", "Gone")
    assert requests.post(f"{url}/v2/file-events", json=everything, headers=headers).status_code == 401


def answers_are_as_the_description_says():
    description = requests.get(f"{url}/v2/openapi.json", headers=bearer).json()
    validate(description)
    asked = [
        ("post", "/v2/file-events", everything),
        ("post", "/v2/file-events", {"groups": [{}]}),
        ("post", "/v2/file-events/grouping", everything | {"groupingTerm": "file.name"}),
        ("post", "/v2/file-events/sql", everything),
        ("get", "/v2/file-events/saved-searches", None),
        ("post", "/v2/file-events/saved-searches", everything | {"name": "As described"}),
    ]
    for method, path, body in asked:
        answer = requests.request(method, f"{url}{path}", json=body, headers=bearer)
        responses = description["paths"][path][method]["responses"]
        schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), schema | {"components": description["components"]})
    served = {(path, method) for path, methods in description["paths"].items() for method in methods}
    assert len(served) >= 11, served


def every_search_is_on_record():
    lake.waybill("sql", "SELECT 1")
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=60)
    while datetime.datetime.now() < deadline:
        rows = lake.sql("SELECT * FROM searches WHERE surface = 'api'")
        if any("md5" in row["statement"] and row["who"] == "token:SIEM" for row in rows):
            return
    raise AssertionError(f"not recorded: {rows[-3:]}")


run_checks(
    [
        saved_searches_are_made_listed_and_run,
        pages_have_every_event_once_and_in_order,
        pages_in_any_order_have_every_event_once,
        an_event_says_what_the_lake_has,
        the_command_line_finds_a_file_by_its_hash,
        the_default_command_shows_what_has_risk,
        groups_are_counted,
        a_checkpoint_resumes_after_days_and_misses_nothing,
        pages_by_number_go_beyond_ten_thousand_and_have_no_token,
        what_is_wrong_is_said_in_the_products_words,
        an_export_is_whole_and_harmless,
        the_equivalent_sql_gives_the_same_events,
        clients_sign_in_in_three_ways_and_nobody_else,
        what_is_taken_back_opens_nothing_any_more,
        answers_are_as_the_description_says,
        every_search_is_on_record,
    ]
)
