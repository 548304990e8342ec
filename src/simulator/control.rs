//! The simulator's own requests, outside of Microsoft's paths: what was asked, what is true, what shall go wrong.
//!
//! | request | answer |
//! |---|---|
//! | `GET /_simulator/report` | the counters |
//! | `POST /_simulator/reset` | sets the counters to zero |
//! | `GET /_simulator/truth[?hashes=false][&skip=…&top=…]` | every sent message with its attachments and their digests |
//! | `POST /_simulator/faults` | replaces the faults by the body, a faults file |
//! | `POST /_simulator/messages[?sent=now][&audited=no]` | adds the body, a mail, as a message whose record becomes available now, or which has none |

use std::sync::Arc;

use axum::body::Bytes;
use futures::stream::{self, StreamExt};
use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Simulator;
use super::answer::{Reply, Request, graph_time};
use super::corpus::{self, Source};
use super::faults::Faults;
use super::generate::Generated;
use super::mime::fields::Mailbox;
use super::tenant::{Attachment, AttachmentKind, Content, GENERATED_FROM, Message};

pub(crate) async fn answer(simulator: &Arc<Simulator>, request: &Request, parts: &[&str]) -> Reply {
    match (request.method.as_str(), parts) {
        ("GET", ["_simulator", "report"]) => match serde_json::to_string(&simulator.report()) {
            Ok(report) => Reply::new(200, "application/json", report),
            Err(error) => Reply::new(500, "text/plain", error.to_string()),
        },
        ("POST", ["_simulator", "reset"]) => {
            simulator.counters.reset();
            Reply::json(200, &json!({}))
        }
        ("GET", ["_simulator", "truth"]) => truth(simulator, request),
        ("POST", ["_simulator", "faults"]) => {
            let faults = serde_json::from_slice(&request.body).and_then(Faults::parse);
            match faults {
                Ok(faults) => {
                    simulator.set_faults(&faults);
                    Reply::json(200, &json!({}))
                }
                Err(error) => Reply::json(400, &json!({"error": error.to_string()})),
            }
        }
        ("POST", ["_simulator", "messages"]) => add_message(simulator, request),
        _ => Reply::json(404, &json!({"error": "there is no such control request"})),
    }
}

fn add_message(simulator: &Simulator, request: &Request) -> Reply {
    let digest = hex(&Sha256::digest(&request.body));
    let mail = corpus::mail(&digest, &request.body, Source::Held(request.body.clone()), true);
    let now = (request.query("sent") == Some("now")).then_some(request.now);
    let numbers = simulator.tenant.add_mails(vec![mail], now);
    let message = numbers.first().and_then(|number| simulator.tenant.message(*number));
    if request.query("audited") != Some("no") {
        simulator.timeline.add(numbers, request.now);
    }
    match message {
        Some(message) => Reply::json(200, &describe(simulator, &message, false)),
        None => Reply::json(500, &json!({"error": "the message is gone"})),
    }
}

/// All messages as lines of one array, made one after the other: there may be millions.
fn truth(simulator: &Arc<Simulator>, request: &Request) -> Reply {
    let number = |name: &str, default: usize| request.query(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (skip, top) = (number("skip", 0), number("top", usize::MAX));
    let with_hashes = request.query("hashes") != Some("false");
    let stored = simulator.tenant.read().messages.len() as u64;
    let generated = simulator.tenant.generated.as_ref().map_or(0, Generated::messages);
    let numbers = (0..stored).chain(GENERATED_FROM..GENERATED_FROM + generated).skip(skip).take(top);
    let simulator = Arc::clone(simulator);
    let messages = stream::iter(numbers.enumerate()).then(move |(index, number)| {
        let simulator = Arc::clone(&simulator);
        async move {
            // Digests take time that the services need.
            let described = tokio::task::spawn_blocking(move || {
                simulator.tenant.message(number).map(|message| describe(&simulator, &message, with_hashes))
            });
            let described = described.await.ok().flatten().unwrap_or_default();
            Bytes::from(format!("{}{described}", if index == 0 { "" } else { ",\n" }))
        }
    });
    let head = stream::iter([Bytes::from_static(b"{\"messages\":[\n")]);
    let tail = stream::iter([Bytes::from_static(b"\n]}\n")]);
    Reply::stream("application/json", head.chain(messages).chain(tail).boxed())
}

fn describe(simulator: &Simulator, message: &Message, with_hashes: bool) -> Value {
    let owner = simulator.tenant.read().users.get(message.owner).cloned();
    let addresses =
        |mailboxes: &[Mailbox]| -> Vec<String> { mailboxes.iter().map(|mailbox| mailbox.address.clone()).collect() };
    let file = match &message.source {
        Some(Source::File(path)) => Some(path.to_string_lossy().into_owned()),
        _ => None,
    };
    json!({
        "mailbox": owner.as_ref().map(|owner| owner.user_principal_name.clone()),
        "user_id": owner.as_ref().map(|owner| owner.id.clone()),
        "internet_message_id": message.internet_message_id,
        "sent": graph_time(message.sent),
        "subject": message.subject,
        "from": message.from.address,
        "to": addresses(&message.to),
        "cc": addresses(&message.cc),
        "bcc": addresses(&message.bcc),
        "file": file,
        "attachments": message.attachments.iter().map(|attachment| describe_attachment(attachment, with_hashes)).collect::<Vec<_>>(),
    })
}

fn describe_attachment(attachment: &Attachment, with_hashes: bool) -> Value {
    let mut described = json!({
        "name": attachment.name,
        "content_type": attachment.content_type,
        "kind": match attachment.kind {
            AttachmentKind::File => "file",
            AttachmentKind::Message => "item",
        },
        "is_inline": attachment.is_inline,
        "bytes": attachment.bytes,
    });
    if with_hashes {
        let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
        let mut update = |chunk: &Bytes| {
            md5.update(chunk);
            sha256.update(chunk);
        };
        match &attachment.content {
            Content::Pattern(pattern) => pattern.chunks(attachment.bytes).for_each(|chunk| update(&chunk)),
            content => match content.read(attachment.bytes) {
                Ok(bytes) => update(&bytes),
                Err(error) => described["error"] = error.to_string().into(),
            },
        }
        described["md5"] = hex(&md5.finalize()).into();
        described["sha256"] = hex(&sha256.finalize()).into();
    }
    described
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
