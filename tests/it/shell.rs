//! `waybill sql` as a person and their programs meet it: a real terminal, and files that others read. The checks are in
//! `tests/clients/shell.py` and `tests/clients/rows.py`.

use crate::support::tools::{is_offline, python};

#[test]
fn a_person_at_a_terminal_asks_the_lake() {
    if !is_offline() {
        python("shell.py", &[]);
    }
}

#[test]
fn others_read_the_parquet_and_arrow_that_sql_writes() {
    if !is_offline() {
        python("rows.py", &[]);
    }
}
