//! The same lake on different stores.

use crate::support::{Lake, Tenant};

#[test]
fn a_lake_in_a_folder() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "Test", &[]);
    let (exit, report) = lake.run("Test");
    println!("{exit} {report:#}");
    println!("{:?}", lake.count("SELECT count(*) FROM file_events"));
    println!("{:#}", lake.maintain());
    println!("{:#}", lake.run_done("Test"));
}
