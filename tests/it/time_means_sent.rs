//! Promise 5: `observed_at` is when the message was sent, `inserted_at` when the row became searchable.

use std::collections::BTreeMap;

use chrono::Duration;
use waybill::clock::Time;
use waybill::source::memory::Call;

use crate::inner::simulated::Simulated;
use crate::inner::{Tenant, query, record, sent};
use crate::nothing_hidden::new_lake;
use crate::support;

fn time(text: &serde_json::Value) -> Time {
    text.as_str().unwrap().parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Danger: rows of late records are filed under the day on which Waybill saw them.
/// Provoked: records that become available 53 hours and six days after their sends.
#[tokio::test]
async fn records_that_come_days_late_are_filed_under_the_day_on_which_they_were_sent() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let mut wanted = BTreeMap::new();
    for (number, late) in [(1, Duration::hours(53)), (2, Duration::days(6)), (3, Duration::zero())] {
        let sent = sent(number) - late;
        let mut message = tenant.message(number, &["a.txt"]);
        message.sent = sent;
        let mut send = record(number, &["a.txt"]);
        send.created = sent;
        tenant.source.add_message(sent, message);
        tenant.source.publish(tenant.at(-10), send);
        wanted.insert(format!("<{number}@contoso.example>"), sent);
    }
    // And one whose message cannot be had: the record tells when it was sent.
    let mut send = record(4, &["b.txt"]);
    send.created = sent(4) - Duration::days(3);
    wanted.insert("<4@contoso.example>".to_owned(), send.created);
    tenant.source.publish(tenant.at(-10), send);
    tenant.run(&lake).await.unwrap();
    let rows = query(&lake, "SELECT internet_message_id, observed_at, inserted_at, event_date FROM file_events").await;
    assert_eq!(rows.len(), wanted.len());
    for row in &rows {
        let sent = wanted[row["internet_message_id"].as_str().unwrap()];
        assert_eq!(time(&row["observed_at"]), sent);
        assert_eq!(row["event_date"].as_str().unwrap(), sent.date_naive().to_string());
        assert_eq!(time(&row["inserted_at"]), tenant.at(0), "now, when it became searchable");
    }
    let days: std::collections::BTreeSet<String> =
        wanted.values().map(|sent| format!("event_date={}", sent.date_naive())).collect();
    let files = lake.table(waybill::event::schema::TableName::FileEvents).await.unwrap().files().await.unwrap();
    let folders = files.iter().map(|file| file.path.as_ref().split('/').next().unwrap().to_owned()).collect();
    assert_eq!(days, folders, "the partitions on the store");
}

/// Danger: an upgrade gives the row the time of the retry.
#[tokio::test]
async fn an_upgrade_moves_the_time_of_insertion_and_not_the_time_of_sending() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-10), tenant.send(1, &["a.txt"]));
    tenant.source.fail(Call::Open, 1, waybill::error::Code::ServiceUnavailable);
    tenant.run(&lake).await.unwrap();
    tenant.clock.set(tenant.at(24 * 60));
    tenant.run(&lake).await.unwrap();
    let row = &query(&lake, "SELECT observed_at, inserted_at, hash_status FROM file_events").await[0];
    assert_eq!(row["hash_status"], "hashed");
    assert_eq!((time(&row["observed_at"]), time(&row["inserted_at"])), (sent(1), tenant.at(24 * 60)));
}

/// Real e-mails with their own dates, of 2006 and since, read today.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_mails_are_observed_at_the_time_of_their_date_header() {
    let mut tenant = Simulated::start(&[], |options| {
        options.content = vec![waybill::simulator::Content::Corpus(support::corpus())];
    })
    .await;
    tenant.since = crate::inner::simulated::now() - Duration::hours(24);
    let begun = crate::inner::simulated::now();
    tenant.run_done().await;
    let mut wanted: BTreeMap<String, Time> = BTreeMap::new();
    for message in tenant.messages().await {
        if !message["attachments"].as_array().unwrap().is_empty() {
            wanted.insert(message["internet_message_id"].as_str().unwrap().to_owned(), time(&message["sent"]));
        }
    }
    let rows =
        query(&tenant.lake, "SELECT internet_message_id, observed_at, inserted_at, event_date FROM file_events").await;
    let mut years = std::collections::BTreeSet::new();
    for row in &rows {
        let sent = wanted[row["internet_message_id"].as_str().unwrap()];
        assert_eq!(
            (time(&row["observed_at"]), row["event_date"].as_str().unwrap()),
            (sent, sent.date_naive().to_string().as_str())
        );
        assert!(time(&row["inserted_at"]) >= begun);
        years.insert(sent.date_naive().to_string()[..4].to_owned());
    }
    assert!(years.len() > 1, "mails of several years: {years:?}");
}
