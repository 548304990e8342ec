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
