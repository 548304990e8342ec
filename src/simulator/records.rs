//! Audit records as Exchange writes them: the sends, and the many other records that a reader has to skip.
//!
//! Shapes and shares follow a public export of real records from 2021 and the public schema of 2026:
//! <https://learn.microsoft.com/office/office-365-management-api/office-365-management-activity-api-schema>

use std::io::Write;

use chrono::{DateTime, Utc};

use super::ids::{Folder, mix, record_id};
use super::tenant::{Message, TENANT_DOMAIN, Tenant, User};

/// Appends a text as a JSON string.
pub(crate) fn json_string(out: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}

fn puid(user: &User, seed: u64) -> String {
    format!("1003200{:09X}", mix(seed, user.index as u64) & 0xf_ffff_ffff)
}

fn sid(user: &User, seed: u64) -> String {
    let random = mix(seed ^ 0x0051_d000, user.index as u64);
    format!("S-1-5-21-{}-{}-{}-{}", seed & 0xffff_ffff, random & 0xffff_ffff, random >> 32, 1000 + user.index)
}

/// Addresses come bare, with a port, and in brackets.
fn client_ip(random: u64) -> String {
    let last = random % 250 + 1;
    match random >> 8 & 7 {
        0 => format!("203.0.113.{last}:{}", 1024 + (random >> 16) % 60_000),
        1 => format!("[2001:db8:{:x}::{last:x}]:{}", random >> 16 & 0xffff, 1024 + (random >> 32) % 60_000),
        2 => format!("2001:db8:{:x}::{last:x}", random >> 16 & 0xffff),
        _ => format!("203.0.113.{last}"),
    }
}

fn creation_time(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%dT%H:%M:%S")
}

/// Where and how somebody was signed in.
struct Client {
    app_id: &'static str,
    info: &'static str,
    is_rest: bool,
}

fn client(random: u64) -> Client {
    // 14 of 25 real sends were OWA in a browser, 6 OWA through a proxy, 5 REST.
    match random % 25 {
        0..=13 => Client {
            app_id: "00000002-0000-0ff1-ce00-000000000000",
            info: "Client=OWA;Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36;",
            is_rest: false,
        },
        14..=19 => Client {
            app_id: "00000002-0000-0ff1-ce00-000000000000",
            info: "Client=OWA;Action=ViaProxy",
            is_rest: false,
        },
        _ => Client { app_id: "00000003-0000-0000-c000-000000000000", info: "Client=REST;;", is_rest: true },
    }
}

/// Appends the `Send` record of a message. Three generations of records exist side by side: of 2021, with sizes (2023),
/// and with an access context, recipients and an immutable id (2026).
pub(crate) fn write_send(out: &mut Vec<u8>, tenant: &Tenant, owner: &User, message: &Message) {
    let random = mix(tenant.seed ^ 0x5e4d, message.number);
    let generation = random >> 20 & 3;
    let client = client(random >> 24);
    let ip = client_ip(random);
    let (puid, sid) = (puid(owner, tenant.seed), sid(owner, tenant.seed));
    let upn = &owner.user_principal_name;
    let session = uuid::Uuid::from_u64_pair(mix(random, 1), mix(random, 2));
    out.push(b'{');
    if generation == 2 {
        put(
            out,
            format_args!(
                r#""AppAccessContext":{{"AADSessionId":"{session}","UniqueTokenId":"{:016x}AA"}},"#,
                mix(random, 3)
            ),
        );
    }
    put(
        out,
        format_args!(
            r#""CreationTime":"{}","Id":"{}","Operation":"Send","OrganizationId":"{}","RecordType":2,"ResultStatus":"Succeeded","UserKey":"{puid}","UserType":0,"Version":1,"Workload":"Exchange","ClientIP":"{ip}","UserId":"#,
            creation_time(message.sent),
            record_id(random, message.sent),
            tenant.id,
        ),
    );
    // Audit records write addresses as the user did, whatever the letter case in the directory.
    json_string(out, if random >> 30 & 1 == 0 { upn } else { &message.from.address });
    put(out, format_args!(r#","AppId":"{}""#, client.app_id));
    if client.is_rest {
        put(out, format_args!(r#","ClientAppId":"ea0056b2-87ac-4765-ba13-e2768da6fba7""#));
    }
    put(out, format_args!(r#","ClientIPAddress":"{ip}","ClientInfoString":"{}""#, client.info));
    if client.is_rest && random >> 31 & 1 == 0 {
        put(out, format_args!(r#","ClientRequestId":"{}""#, uuid::Uuid::from_u64_pair(mix(random, 4), mix(random, 5))));
    }
    if generation == 2 {
        put(out, format_args!(r#","DeviceId":"","TokenObjectId":"{}","TokenTenantId":"{}""#, owner.id, tenant.id));
    }
    put(
        out,
        format_args!(
            r#","ExternalAccess":false,"InternalLogonType":0,"LogonType":0,"LogonUserSid":"{sid}","MailboxGuid":"{}","MailboxOwnerSid":"{sid}","MailboxOwnerUPN":"#,
            owner.mailbox
        ),
    );
    json_string(out, upn);
    put(
        out,
        format_args!(
            r#","OrganizationName":"{TENANT_DOMAIN}","OriginatingServer":"AM0PR04MB{:04} (15.20.4200.000)\r\n""#,
            random % 10_000
        ),
    );
    if !client.is_rest {
        put(out, format_args!(r#","SessionId":"{session}""#));
    }
    if generation == 2 {
        write_recipients(out, message);
    }
    out.extend_from_slice(b",\"Item\":{");
    write_attachments(out, message);
    // 13 of 25 real sends did not know the item; the others named the draft, which is gone.
    out.extend_from_slice(b"\"Id\":");
    let ids = owner.ids();
    json_string(out, &if random >> 33 & 1 == 0 { "Unknown".to_owned() } else { ids.audit_item(message.number) });
    if generation == 2 {
        out.extend_from_slice(b",\"ImmutableId\":");
        let item = super::ids::Item { number: message.number, copy: super::ids::Copy::Draft };
        json_string(out, &ids.message(item, Folder::Drafts, true));
    }
    out.extend_from_slice(b",\"InternetMessageId\":");
    json_string(out, &message.internet_message_id);
    // 9 of 25 had no folder; the folder's name is in the mailbox's language.
    if random >> 34 & 3 != 0 {
        let path = if owner.index % 7 == 6 { "\\\\Brouillons" } else { "\\\\Drafts" };
        put(out, format_args!(r#","ParentFolder":{{"Id":"{}","Path":"{path}"}}"#, ids.audit_folder(Folder::Drafts)));
    }
    if generation >= 1 {
        let size: u64 =
            message.attachments.iter().map(|attachment| attachment.bytes + u64::from(attachment.overhead)).sum();
        put(out, format_args!(r#","SizeInBytes":{}"#, size + 4096));
    }
    out.extend_from_slice(b",\"Subject\":");
    json_string(out, &message.subject);
    out.extend_from_slice(b"}}");
}

/// `"Attachments":"name (NNNb); …",`, absent if there are none. The sizes are those of the store, and others than
/// Graph's.
fn write_attachments(out: &mut Vec<u8>, message: &Message) {
    if message.attachments.is_empty() {
        return;
    }
    let mut text = String::new();
    for attachment in &message.attachments {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let size = attachment.bytes + u64::from(attachment.overhead) + attachment.name.len() as u64;
        text.push_str(&format!("{} ({size}b)", attachment.name));
    }
    out.extend_from_slice(b"\"Attachments\":");
    json_string(out, &text);
    out.push(b',');
}

fn write_recipients(out: &mut Vec<u8>, message: &Message) {
    /// The schema's limit.
    const RECIPIENTS_MAX: usize = 1000;
    let recipients = || message.to.iter().chain(&message.cc).chain(&message.bcc);
    put(out, format_args!(r#","recipientCount":{},"recipientList":["#, recipients().count()));
    for (index, recipient) in recipients().take(RECIPIENTS_MAX).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"Address\":");
        json_string(out, &recipient.address);
        out.extend_from_slice(b",\"Name\":");
        json_string(out, &recipient.name);
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends a record that is no send. Most records of `Audit.Exchange` are administrators' commands, then mailbox reads.
pub(crate) fn write_other(out: &mut Vec<u8>, tenant: &Tenant, user: &User, random: u64, time: DateTime<Utc>) {
    let (id, created) = (record_id(random, time), creation_time(time));
    let upn = &user.user_principal_name;
    let ip = client_ip(random >> 3);
    let server = format!("AM0PR04MB{:04} (15.20.4200.000)", random % 10_000);
    match random % 100 {
        0..=7 => write_mailbox_record(out, tenant, user, random, time),
        kind => {
            let (operation, parameters) = match kind % 4 {
                0 => (
                    "New-TransportRule",
                    r#"{"Name":"Name","Value":"Move"},{"Name":"SentTo","Value":"sales@contoso.example"},{"Name":"StopRuleProcessing","Value":"False"},{"Name":"Mode","Value":"Enforce"}"#,
                ),
                1 => (
                    "Set-Mailbox",
                    r#"{"Name":"Identity","Value":"someone"},{"Name":"AuditEnabled","Value":"True"},{"Name":"AuditLogAgeLimit","Value":"90.00:00:00"}"#,
                ),
                2 => (
                    "New-InboxRule",
                    r#"{"Name":"AlwaysDeleteOutlookRulesBlob","Value":"False"},{"Name":"Force","Value":"False"},{"Name":"FromAddressContainsWords","Value":"newsletter"},{"Name":"MoveToFolder","Value":"Archive"},{"Name":"Name","Value":"Newsletters"}"#,
                ),
                _ => (
                    "Set-CASMailbox",
                    r#"{"Name":"Identity","Value":"someone"},{"Name":"ImapEnabled","Value":"False"},{"Name":"PopEnabled","Value":"False"}"#,
                ),
            };
            put(
                out,
                format_args!(
                    r#"{{"CreationTime":"{created}","Id":"{id}","Operation":"{operation}","OrganizationId":"{}","RecordType":1,"ResultStatus":"True","UserKey":"{}","UserType":2,"Version":1,"Workload":"Exchange","ClientIP":"{ip}","ObjectId":"{}","UserId":"#,
                    tenant.id,
                    puid(user, tenant.seed),
                    user.id,
                ),
            );
            json_string(out, upn);
            put(
                out,
                format_args!(
                    r#","AppId":"fb78d390-0c51-40cd-8e17-fdbfab77341b","ClientAppId":"","ExternalAccess":false,"OrganizationName":"{TENANT_DOMAIN}","OriginatingServer":"{server}","Parameters":[{parameters}],"SessionId":"{}"}}"#,
                    uuid::Uuid::from_u64_pair(mix(random, 1), mix(random, 2)),
                ),
            );
        }
    }
}

/// A read, a draft or a deletion in somebody's mailbox.
fn write_mailbox_record(out: &mut Vec<u8>, tenant: &Tenant, user: &User, random: u64, time: DateTime<Utc>) {
    let (operation, record_type) = match random >> 8 & 3 {
        0 => ("Create", 2),
        1 => ("MoveToDeletedItems", 3),
        _ => ("MailItemsAccessed", 50),
    };
    let sid = sid(user, tenant.seed);
    put(
        out,
        format_args!(
            r#"{{"CreationTime":"{}","Id":"{}","Operation":"{operation}","OrganizationId":"{}","RecordType":{record_type},"ResultStatus":"Succeeded","UserKey":"{}","UserType":0,"Version":1,"Workload":"Exchange","ClientIP":"{}","UserId":"#,
            creation_time(time),
            record_id(random, time),
            tenant.id,
            puid(user, tenant.seed),
            client_ip(random >> 5),
        ),
    );
    json_string(out, &user.user_principal_name);
    put(
        out,
        format_args!(
            r#","AppId":"00000002-0000-0ff1-ce00-000000000000","ClientInfoString":"Client=OWA;Action=ViaProxy","ExternalAccess":false,"InternalLogonType":0,"LogonType":0,"LogonUserSid":"{sid}","MailboxGuid":"{}","MailboxOwnerSid":"{sid}","MailboxOwnerUPN":"#,
            user.mailbox,
        ),
    );
    json_string(out, &user.user_principal_name);
    put(
        out,
        format_args!(
            r#","OrganizationName":"{TENANT_DOMAIN}","OriginatingServer":"AM0PR04MB{:04} (15.20.4200.000)\r\n","#,
            random % 10_000
        ),
    );
    // Numbers above every real message: what these records name is in no mailbox.
    let number = (1 << 44) | (random >> 24);
    let ids = user.ids();
    let message_id = format!("<{number:x}@AM0PR04MB4196.eurprd04.prod.outlook.com>");
    let (item, folder) = (ids.audit_item(number), ids.audit_folder(Folder::Drafts));
    match operation {
        "Create" => put(
            out,
            format_args!(
                r#""Item":{{"Attachments":"draft.docx (20480b)","Id":"{item}","InternetMessageId":"{message_id}","ParentFolder":{{"Id":"{folder}","Path":"\\Drafts"}},"Subject":"Draft"}}}}"#
            ),
        ),
        "MoveToDeletedItems" => put(
            out,
            format_args!(
                r#""AffectedItems":[{{"Id":"{item}","InternetMessageId":"{message_id}","ParentFolder":{{"Id":"{folder}","Path":"\\Inbox"}},"Subject":"Old"}}],"CrossMailboxOperation":false,"DestFolder":{{"Id":"{folder}","Path":"\\Deleted Items"}},"Folder":{{"Id":"{folder}","Path":"\\Inbox"}}}}"#
            ),
        ),
        _ => put(
            out,
            format_args!(
                r#""OperationProperties":[{{"Name":"MailAccessType","Value":"Bind"}},{{"Name":"IsThrottled","Value":"False"}}],"Folders":[{{"FolderItems":[{{"InternetMessageId":"{message_id}","SizeInBytes":40960}}],"Id":"{folder}","Path":"\\Inbox"}}],"OperationCount":1}}"#
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::simulator::generate::Generated;

    fn tenant() -> Tenant {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let generate = "users=9,messages=200,attachments=1.5".parse().expect("valid");
        Tenant::new(3, now, Some(Generated::new(&generate, now)))
    }

    #[test]
    fn sends_are_json_and_name_their_message() {
        let tenant = tenant();
        let mut without_folder = 0;
        for number in 0..200 {
            let message = tenant.message(crate::simulator::tenant::GENERATED_FROM + number).expect("exists");
            let owner = Arc::clone(&tenant.read().users[message.owner]);
            let mut out = Vec::new();
            write_send(&mut out, &tenant, &owner, &message);
            let record: Value = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(record["Operation"], "Send");
            assert_eq!(record["Item"]["InternetMessageId"], message.internet_message_id.as_str());
            assert_eq!(record["CreationTime"], message.sent.format("%Y-%m-%dT%H:%M:%S").to_string());
            assert_eq!(record["Item"].get("Attachments").is_none(), message.attachments.is_empty());
            without_folder += usize::from(record["Item"].get("ParentFolder").is_none());
        }
        assert!((20..90).contains(&without_folder));
    }

    #[test]
    fn other_records_are_json_and_no_sends() {
        let tenant = tenant();
        let user = Arc::clone(&tenant.read().users[0]);
        for random in 0..2000 {
            let mut out = Vec::new();
            write_other(&mut out, &tenant, &user, mix(1, random), tenant.started);
            let record: Value = serde_json::from_slice(&out)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)));
            assert_ne!(record["Operation"], "Send");
        }
    }
}
