//! Promise 9: any Delta reader reads the same rows that Waybill's own SQL returns. The check is in
//! `tests/clients/readers.py`: Python `deltalake`, DuckDB with its delta extension, and Polars.

use crate::support::tools::{is_offline, python};

#[test]
fn other_readers_of_delta_read_the_same_rows() {
    if !is_offline() {
        python("readers.py", &[]);
    }
}
