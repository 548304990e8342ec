"""Types into `waybill sql` on a pseudo-terminal, as a person does.

    shell.py
"""

import os
import re
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pexpect

from hostile import REFUSED
from support import CORPUS, WAYBILL, Lake, run_checks, simulate

PROMPT = "waybill=> "
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")

lake: Lake
folder: Path


class Shell:
    """A shell on a terminal of its own; `seen` is all that it showed, without what commands the terminal."""

    def __init__(self, *arguments, environment=None, size=(40, 160)):
        environment = {
            **os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(folder / "state"), "WAYBILL_PAGER": "",
            **(environment or {}),
        }  # fmt: skip
        command = ["--lake", lake.url, "sql", *arguments]
        self.child = pexpect.spawn(WAYBILL, command, env=environment, timeout=30, encoding="utf-8", dimensions=size)
        self.wait()

    def wait(self, what=PROMPT):
        """Waits for a text; what was shown before it."""
        self.child.expect_exact(what)
        return CONTROL.sub("", self.child.before).replace("\r", "")

    def ask(self, line, what=PROMPT):
        """Types a line; what was shown until the prompt came again."""
        self.child.send(line + "\r")
        # rustyline shows the prompt anew with each letter; only one at the start of a line after an answer is meant.
        return self.settled() if what is PROMPT else self.wait(what)

    def settled(self):
        """All that is shown until the shell waits for input again."""
        text = ""
        while True:
            try:
                is_asking = CONTROL.sub("", text).rstrip().endswith("=>")
                text += self.child.read_nonblocking(65536, timeout=0.7 if is_asking else 30)
            except pexpect.TIMEOUT:
                break
            except pexpect.EOF:
                raise AssertionError(f"the shell ended: {text}")
        return CONTROL.sub("", text).replace("\r", "")

    def leave(self):
        self.child.sendeof()
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == 0, self.child.exitstatus


def a_statement_ends_with_a_semicolon_and_may_have_several_lines():
    shell = Shell()
    shell.child.send("SELECT 40 +\r")
    shell.child.send("  2 AS answer, ';' AS x\r")
    text = shell.ask("; -- done")
    assert re.search(r"answer +x *\n *42 +; *\n1 row\n", text), text
    text = shell.ask("SELECT 1 AS a; SELECT 2 AS b;")
    assert "1 row" in text and text.count("1 row\n") == 2, text
    shell.leave()


def tab_completes():
    shell = Shell()
    shell.child.send("SELECT count(*) AS n FROM file_ev")
    # The names are read in the background; until they are there, a tab does nothing.
    for _ in range(60):
        shell.child.send("\t")
        if shell.child.expect_exact(["file_events", pexpect.TIMEOUT], timeout=1) == 0:
            break
    text = shell.ask(" WHERE sende\t IS NOT NULL;")
    assert "1 row" in text and "sender" in text, text
    shell.child.send("\\tim\t")
    shell.wait("\\timing")
    assert "timing is on" in shell.ask("")
    shell.leave()


def commands_describe_and_set():
    shell = Shell()
    text = shell.ask("\\d")
    assert all(name in text for name in ("file_events", "searches", "events")), text
    text = shell.ask("\\d file_events")
    assert re.search(r"sha256 +string +may be null", text) and "meaning" not in text, text
    text = shell.ask("\\d+ runs")
    assert "One row per finished run" in text and "Id of the connection that was run." in text, text
    assert "events" in shell.ask("\\dv")
    text = shell.ask("\\dt")
    assert "runs" in text and "view" not in text, text
    text = shell.ask("\\df+ day_in_*")
    assert "day_in_zone(time, zone)" in text and "calendar day" in text, text
    assert lake.url in shell.ask("\\l")
    assert "no command `\\nope`" in shell.ask("\\nope")
    assert "there is no table" in shell.ask("\\d nope").lower() or "nope" in shell.ask("\\d nope")
    shell.ask("\\timing on")
    text = shell.ask("SELECT 1;")
    assert re.search(r"Time: \d+\.\d{3} ms", text), text
    shell.ask("\\x on")
    text = shell.ask("SELECT 1 AS a, 'b' AS long_name;")
    assert re.search(r"-\[ row 1 \]-+\na +\| 1\nlong_name \| b\n", text), text
    assert '{"a":1}' in shell.ask("\\format ndjson") + shell.ask("SELECT 1 AS a;")
    assert "nothing for a terminal" in shell.ask("\\pset format parquet") + shell.ask("SELECT 1;")
    assert "\\timing" in shell.ask("\\?")
    shell.leave()


def rows_go_to_a_file_and_statements_come_from_one():
    shell = Shell("--format", "csv")
    out, script = folder / "out.csv", folder / "in.sql"
    script.write_text("-- two\nSELECT 1 AS a;\n\\timing on\nSELECT ';' AS b")
    shell.ask(f"\\o {out}")
    assert not out.exists()
    text = shell.ask(f"\\i {script}")
    assert "1 row for" in text and "timing is on" in text, text
    assert "error" in shell.ask("SELECT 1 / (20000 - value) FROM range(30000);")
    shell.ask("\\o")
    assert out.read_text() == "a\n1\nb\n;\n", out.read_text()
    (folder / "loop.sql").write_text(f"\\i {folder}/loop.sql\n")
    assert "within each other" in shell.ask(f"\\i {folder}/loop.sql")
    assert "cannot read" in shell.ask("\\i /no/such/file")
    shell.leave()


def the_editor_changes_the_last_statement():
    editor = folder / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/41/42/ "$1"\n')
    editor.chmod(0o755)
    shell = Shell(environment={"EDITOR": str(editor), "VISUAL": ""})
    shell.ask("SELECT 41 AS n;")
    shell.child.send("\\e\r")
    shell.wait("SELECT 42 AS n;")
    assert re.search(r"n *\n *42", shell.ask("")), "the statement of the editor"
    shell.leave()


def errors_show_their_place_and_the_shell_goes_on():
    shell = Shell()
    text = shell.ask("SELECT * FORM file_events;")
    assert "line 1: SELECT * FORM file_events" in text and "^" in text and "hint: " in text, text
    assert "only queries are allowed" in shell.ask("DROP TABLE runs;")
    assert "1 row" in shell.ask("SELECT 1;")
    shell.leave()


def what_was_typed_is_there_in_the_next_shell():
    shell = Shell()
    shell.ask("SELECT 'remembered',\r  2;")
    shell.leave()
    path = folder / "state" / "waybill" / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shell = Shell()
    shell.child.send("\x1b[A")
    shell.wait("remembered")
    text = shell.ask("")
    assert "1 row" in text, text
    shell.leave()


def without_a_place_for_history_the_shell_works():
    shell = Shell(environment={"XDG_STATE_HOME": "/dev/null"})
    assert "1 row" in shell.ask("SELECT 1;")
    shell.leave()


def ctrl_c_ends_the_query_and_the_line_but_not_the_shell():
    shell = Shell()
    shell.child.send("SELECT count(*) FROM range(1000000000000);\r")
    shell.wait("rows read")  # The progress display.
    began = time.monotonic()
    shell.child.sendintr()
    shell.wait("cancelled")
    assert time.monotonic() - began < 5
    shell.settled()
    assert "1 row" in shell.ask("SELECT 1;")
    shell.child.send("SELECT half a")
    shell.child.sendintr()
    time.sleep(0.3)
    assert "1 row" in shell.ask("SELECT 1;")
    shell.leave()
    rows = lake.sql("SELECT outcome FROM searches WHERE statement LIKE 'SELECT count(*) FROM range(1%'")
    assert {"outcome": "cancelled"} in rows, rows


def a_long_answer_goes_through_a_pager():
    shell = Shell(environment={"WAYBILL_PAGER": "less -S"}, size=(20, 60))
    shell.child.send("SELECT value AS number FROM range(500);\r")
    shell.wait("17")
    time.sleep(0.5)
    shell.child.send("G")
    shell.wait("499")
    shell.child.send("q")
    assert "500 rows" in shell.settled()
    # Whoever leaves early ends the query, and is told nothing.
    shell.child.send("SELECT value AS number FROM range(100000000000);\r")
    shell.wait("17")
    time.sleep(1)
    shell.child.send("q")
    text = shell.settled()
    assert "error" not in text and text.rstrip().endswith("=>"), text
    assert "1 row" in shell.ask("SELECT 1;")
    # What fits is shown at once.
    assert "5 rows" in shell.ask("SELECT * FROM range(5);")
    shell.ask("\\pset pager off")
    assert "99 rows" in shell.ask("SELECT * FROM range(99);")
    shell.leave()
    shell = Shell("--no-pager", environment={"WAYBILL_PAGER": "less -S"}, size=(20, 60))
    assert "99 rows" in shell.ask("SELECT * FROM range(99);")
    shell.leave()


def hostile_values_do_not_command_the_terminal():
    shell = Shell()
    for form in ("table", "csv"):
        shell.ask(f"\\format {form}")
        shell.child.send("SELECT chr(27) || ']0;owned' || chr(7) || chr(155) || 'x' AS \"hostile\";\r")
        shell.child.expect_exact("0;owned")
        assert not shell.child.before.endswith("\x1b]"), repr(shell.child.before[-20:])
        text = shell.settled()
        assert "\x07" not in text and "\x9b" not in text, repr(text)
    shell.leave()


def contents():
    """Every file of the lake and its size, but for the record of searches, which grows by what is refused."""
    root = Path(lake.url)
    paths = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "searches"]
    return {path: path.stat().st_size for path in paths}


def is_clear(text):
    """Whether a person learns from it what was wrong, and not what the program is made of."""
    noise = ("panicked", "RUST_BACKTRACE", "internal error", "This issue was likely caused by a bug", "waybill-stolen.csv:")
    return "error: " in text and len(text) < 4000 and not any(word in text for word in noise)


def what_nobody_may_ask_is_refused_and_changes_nothing():
    before, script = contents(), folder / "hostile.sql"
    for statement in REFUSED:
        script.write_text(statement)
        command = [WAYBILL, "--lake", lake.url, "sql", "--file", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        what = f"{statement[:80]!r}: {done.returncode}, {done.stdout[:200]!r}, {done.stderr[:1000]!r}"
        assert done.returncode in (1, 2) and not done.stdout and is_clear(done.stderr), what
    # The same in a shell, which goes on. An empty file asks for nothing there, and what takes a while shows its progress.
    shell = Shell()
    for statement in (statement for statement in REFUSED if statement and "generate_series" not in statement):
        script.write_text(statement)
        text = shell.ask(f"\\i {script}")
        assert is_clear(text), (statement[:80], text)
    assert "1 row" in shell.ask("SELECT 1;")
    shell.leave()
    assert contents() == before
    assert not Path("/tmp/waybill-stolen.csv").exists()


def quit_and_a_signal_leave():
    for word in ("\\q", "quit", "EXIT"):
        shell = Shell()
        shell.child.send(word + "\r")
        shell.child.expect(pexpect.EOF)
        shell.child.close()
        assert shell.child.exitstatus == 0
    shell = Shell()
    time.sleep(0.5)
    shell.child.kill(signal.SIGTERM)
    shell.child.expect(pexpect.EOF)
    shell.child.close()
    assert shell.child.exitstatus == 130, shell.child.exitstatus


def what_was_asked_is_recorded_and_what_was_described_is_not():
    rows = lake.sql("SELECT DISTINCT statement, surface, outcome FROM searches WHERE surface = 'sql'")
    statements = {row["statement"]: row["outcome"] for row in rows}
    assert statements["SELECT 41 AS n"] == "done", statements
    assert statements["DROP TABLE runs"] == "refused", statements
    assert not [text for text in statements if text.startswith("\\")], statements


CHECKS = [
    a_statement_ends_with_a_semicolon_and_may_have_several_lines,
    tab_completes,
    commands_describe_and_set,
    rows_go_to_a_file_and_statements_come_from_one,
    the_editor_changes_the_last_statement,
    errors_show_their_place_and_the_shell_goes_on,
    what_was_typed_is_there_in_the_next_shell,
    without_a_place_for_history_the_shell_works,
    ctrl_c_ends_the_query_and_the_line_but_not_the_shell,
    a_long_answer_goes_through_a_pager,
    hostile_values_do_not_command_the_terminal,
    what_nobody_may_ask_is_refused_and_changes_nothing,
    quit_and_a_signal_leave,
    what_was_asked_is_recorded_and_what_was_described_is_not,
]

if __name__ == "__main__":
    with simulate("--corpus", CORPUS, "--shift-dates", "now") as tenant, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lake = Lake(folder / "lake", tenant)
        lake.add(tenant)
        lake.run()
        run_checks(CHECKS)
