//! Other people's programs: Microsoft's clients against the simulated tenant, and Python's own reading of the same
//! e-mails. The checks are in `tests/clients/*.py`.

use crate::support::corpus;
use crate::support::tools::{is_offline, python};

#[test]
fn microsofts_own_clients_read_the_simulated_tenant() {
    if !is_offline() {
        python("microsoft_clients.py", &[]);
    }
}

#[test]
fn python_computes_the_same_digests_from_the_same_mails() {
    if !is_offline() {
        python("digests.py", &[corpus().to_str().unwrap()]);
    }
}

#[test]
fn the_replaced_products_own_client_searches_pages_groups_and_resumes() {
    if !is_offline() {
        python("incydr_client.py", &[]);
    }
}

#[test]
fn adbc_asks_over_flight_sql_and_nobody_asks_what_they_may_not() {
    if !is_offline() {
        python("flight.py", &[]);
    }
}

#[test]
fn psql_drivers_and_tools_ask_over_the_postgres_protocol() {
    if !is_offline() {
        python("postgres.py", &[]);
    }
}

#[test]
fn exports_are_read_by_delta_parquet_and_ocsf_readers_from_s3() {
    if !is_offline() {
        python("exports.py", &[]);
    }
}
