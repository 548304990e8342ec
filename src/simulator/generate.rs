//! A generated tenant of any size: users, messages and attachments are computed from the seed when they are asked for,
//! so nothing has to be kept, however many there are.

use std::str::FromStr;
use std::sync::LazyLock;

use axum::body::Bytes;
use chrono::{DateTime, Duration, Utc};

use super::SimulatorError;
use super::ids::{in_share, mix};
use super::mime::fields::Mailbox;
use super::tenant::{Attachment, AttachmentKind, Content, GENERATED_FROM, Message, TENANT_DOMAIN};

/// How large a generated tenant is, as `users=…,messages=…,days=…,seed=…` tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Generate {
    /// Number of users, each with a mailbox.
    pub users: usize,
    /// Further addresses of each user.
    pub aliases: usize,
    /// Number of sent messages.
    pub messages: u64,
    /// Over how many days before the start the messages were sent.
    pub days: f64,
    /// Everything generated follows from this number.
    pub seed: u64,
    /// Attachments per message, on average.
    pub attachments: f64,
    /// Size of every attachment in bytes; without it they differ, a few hundred KB at most.
    pub size: Option<u64>,
    /// Share of sends among all audit records. In a real tenant 0.4 % of the Exchange records are sends.
    pub sends: f64,
}

impl Default for Generate {
    fn default() -> Self {
        Self { users: 10, aliases: 0, messages: 100, days: 1.0, seed: 1, attachments: 1.5, size: None, sends: 0.004 }
    }
}

impl FromStr for Generate {
    type Err = SimulatorError;

    fn from_str(text: &str) -> Result<Self, SimulatorError> {
        let mut generate = Self::default();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let wrong = || SimulatorError::Generate { part: pair.trim().to_owned() };
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            let value = value.trim();
            match name.trim() {
                "users" => generate.users = bytes(value).ok_or_else(wrong)? as usize,
                "aliases" => {
                    generate.aliases = bytes(value).filter(|aliases| *aliases <= 400).ok_or_else(wrong)? as usize
                }
                "messages" => generate.messages = bytes(value).ok_or_else(wrong)?,
                "days" => generate.days = number(value).ok_or_else(wrong)?,
                "seed" => generate.seed = value.parse().map_err(|_| wrong())?,
                "attachments" => generate.attachments = number(value).ok_or_else(wrong)?,
                "size" => generate.size = Some(bytes(value).ok_or_else(wrong)?),
                "sends" => {
                    generate.sends = number(value).filter(|share| (1e-9..=1.0).contains(share)).ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            }
        }
        generate.users = generate.users.max(1);
        Ok(generate)
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// A whole number with an optional `k`, `m` or `g`, in units of 1,000.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1_000),
        b'm' => (&text[..text.len() - 1], 1_000_000),
        b'g' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text.as_str(), 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A generated tenant that ends at `until`.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    pub(crate) users: usize,
    aliases: usize,
    pub(crate) seed: u64,
    messages: u64,
    records: u64,
    span: Duration,
    until: DateTime<Utc>,
    attachments: f64,
    size: Option<u64>,
}

/// What stands at a place of the generated audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Send(u64),
    Other,
}

impl Generated {
    pub(crate) fn new(generate: &Generate, until: DateTime<Utc>) -> Self {
        let records = (generate.messages as f64 / generate.sends).round() as u64;
        Self {
            users: generate.users,
            aliases: generate.aliases,
            seed: generate.seed,
            messages: generate.messages,
            records: records.max(generate.messages),
            span: Duration::milliseconds((generate.days * 86_400_000.0) as i64),
            until,
            attachments: generate.attachments,
            size: generate.size,
        }
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn address(&self, user: usize) -> String {
        format!("user{user:05}@{TENANT_DOMAIN}")
    }

    pub(crate) fn aliases(&self, user: usize) -> Vec<String> {
        (1..=self.aliases).map(|alias| format!("user{user:05}.alias{alias}@{TENANT_DOMAIN}")).collect()
    }

    pub(crate) fn display_name(&self, user: usize) -> String {
        const NAMES: [&str; 16] = [
            "Ada", "Bo", "Cleo", "Dana", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jule", "Kim", "Lars", "Mina", "Nils",
            "Olga", "Pia",
        ];
        let number = mix(self.seed, user as u64) as usize;
        format!("{} {}son {user}", NAMES[number % 16], NAMES[number / 16 % 16])
    }

    /// The record at this place: sends are spread evenly among the others.
    pub(crate) fn entry(&self, place: u64) -> Entry {
        if self.messages == 0 {
            return Entry::Other;
        }
        let (messages, records, wide) = (u128::from(self.messages), u128::from(self.records), u128::from(place));
        // Message k stands at place floor(k * records / messages).
        let message = (wide * messages).div_ceil(records);
        if message < messages && message * records / messages == wide {
            Entry::Send(message as u64)
        } else {
            Entry::Other
        }
    }

    /// When the event at this place of the log happened.
    pub(crate) fn time(&self, place: u64) -> DateTime<Utc> {
        let span = self.span.num_milliseconds() as i128;
        let passed = span * (2 * i128::from(place) + 1) / (2 * i128::from(self.records.max(1)));
        self.until - self.span + Duration::milliseconds(passed as i64)
    }

    fn sent(&self, message: u64) -> DateTime<Utc> {
        let place = u128::from(message) * u128::from(self.records) / u128::from(self.messages.max(1));
        let time = self.time(place as u64);
        DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
    }

    fn owner(&self, message: u64) -> usize {
        (message % self.users as u64) as usize
    }

    /// The messages that a user sent.
    pub(crate) fn sent_by(&self, user: usize) -> impl Iterator<Item = u64> + use<> {
        (user as u64..self.messages).step_by(self.users)
    }

    fn message_id(&self, message: u64) -> String {
        let check = mix(self.seed, message) as u32;
        format!("<AM0{message:012X}{check:08X}@AM0PR04MB4196.eurprd04.prod.outlook.com>")
    }

    /// The message of this user that has this id.
    pub(crate) fn find(&self, user: usize, internet_message_id: &str) -> Option<u64> {
        let message = u64::from_str_radix(internet_message_id.get(4..16)?, 16).ok()?;
        let is_it =
            message < self.messages && self.owner(message) == user && self.message_id(message) == internet_message_id;
        is_it.then_some(message)
    }

    pub(crate) fn message(&self, message: u64) -> Option<Message> {
        if message >= self.messages {
            return None;
        }
        let random = mix(self.seed ^ 0x6d73_6773, message);
        let owner = self.owner(message);
        let user = |user: usize| Mailbox { name: self.display_name(user), address: self.address(user) };
        let mut to =
            vec![Mailbox { name: String::new(), address: format!("partner{}@fabrikam.example", random % 997) }];
        if random & 3 == 0 && self.users > 1 {
            to.push(user((owner + 1 + (random >> 8) as usize % (self.users - 1)) % self.users));
        }
        let mut attachments = self.attachments.trunc() as usize;
        attachments += usize::from(in_share(self.seed, message ^ 0xa77a, self.attachments.fract()));
        Some(Message {
            number: GENERATED_FROM + message,
            owner,
            internet_message_id: self.message_id(message),
            subject: format!(
                "{} {}",
                ["Report", "Re: offer", "Figures", "Minutes", "FW: contract"][random as usize % 5],
                message
            ),
            from: user(owner),
            to,
            cc: Vec::new(),
            bcc: Vec::new(),
            sent: self.sent(message),
            attachments: (0..attachments).map(|index| self.attachment(message, index)).collect(),
            source: None,
            is_to_self: false,
        })
    }

    fn attachment(&self, message: u64, index: usize) -> Attachment {
        /// One of five attachments is a file that others send as well.
        const KNOWN_SHARE: f64 = 0.2;
        const KNOWN_FILES: u64 = 1000;
        const KINDS: [(&str, &str); 6] = [
            ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            ("pdf", "application/pdf"),
            ("png", "image/png"),
            ("zip", "application/zip"),
            ("csv", "text/csv"),
        ];
        let mut key = mix(mix(self.seed, message ^ 0x6174_7461), index as u64);
        if in_share(self.seed, key, KNOWN_SHARE) {
            key = mix(self.seed, key % KNOWN_FILES);
        }
        let (extension, content_type) = KINDS[(key >> 40) as usize % KINDS.len()];
        let is_inline = extension == "png" && key & 0x10_0000 != 0;
        Attachment {
            name: if is_inline {
                format!("image{:03}.png", index + 1)
            } else {
                format!("file-{:06x}.{extension}", key & 0xff_ffff)
            },
            content_type: content_type.to_owned(),
            is_inline,
            content_id: is_inline.then(|| format!("image{:03}.png@01DB0000", index + 1)),
            kind: AttachmentKind::File,
            // The square of an even distribution: many small ones, few large ones.
            bytes: self.size.unwrap_or_else(|| {
                let part = (mix(key, 3) % 1000) as f64 / 1000.0;
                (part * part * 300_000.0) as u64
            }),
            overhead: 200 + (key % 100) as u32,
            content: Content::Pattern(Pattern { key }),
        }
    }
}

/// Bytes without end that follow from a key. They are cut out of one pool at places that the key chooses, so that
/// serving them costs neither computing nor copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pattern {
    key: u64,
}

const POOL_BYTES: usize = 4 << 20;
const CHUNK_BYTES: usize = 256 << 10;

static POOL: LazyLock<Bytes> = LazyLock::new(|| {
    let words = 0..(POOL_BYTES / 8) as u64;
    words.flat_map(|word| mix(0x706f_6f6c, word).to_le_bytes()).collect::<Vec<u8>>().into()
});

impl Pattern {
    /// The first `bytes` of the pattern. It begins with its key, so that no two patterns are alike.
    pub(crate) fn chunks(self, bytes: u64) -> impl Iterator<Item = Bytes> + Send + use<> {
        let pool = POOL.clone();
        let mut left = bytes;
        let mut number = 0_u64;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let chunk = if number == 0 {
                let head = [self.key.to_le_bytes(), mix(self.key, 0).to_le_bytes()].concat();
                let length = left.min(head.len() as u64) as usize;
                Bytes::from(head).slice(..length)
            } else {
                let start = mix(self.key, number) as usize % (POOL_BYTES - CHUNK_BYTES);
                let length = left.min(CHUNK_BYTES as u64) as usize;
                pool.slice(start..start + length)
            };
            number += 1;
            left -= chunk.len() as u64;
            Some(chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(text: &str) -> Generated {
        let until = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        Generated::new(&text.parse().expect("valid"), until)
    }

    #[test]
    fn every_message_has_one_place_in_the_log() {
        for text in ["messages=7,sends=0.3", "messages=1000,sends=0.004", "messages=5,sends=1"] {
            let generated = generated(text);
            let sends: Vec<u64> = (0..generated.records())
                .filter_map(|place| match generated.entry(place) {
                    Entry::Send(message) => Some(message),
                    Entry::Other => None,
                })
                .collect();
            assert_eq!(sends, (0..generated.messages).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn a_message_is_found_by_its_id_in_its_senders_mailbox_only() {
        let generated = generated("users=3,messages=10");
        let message = generated.message(7).expect("exists");
        assert_eq!(generated.find(1, &message.internet_message_id), Some(7));
        assert_eq!(generated.find(2, &message.internet_message_id), None);
        assert_eq!(generated.find(1, "<x@y>"), None);
        assert!(message.sent <= generated.until);
    }

    #[test]
    fn a_pattern_has_its_length_and_its_key() {
        for bytes in [0, 1, 16, 17, 300_000, 1_000_000] {
            let sum: usize = Pattern { key: 5 }.chunks(bytes).map(|chunk| chunk.len()).sum();
            assert_eq!(sum as u64, bytes);
        }
        let first = |key| Pattern { key }.chunks(100).next();
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn wrong_words_are_refused() {
        assert_eq!("users=2,size=3k,sends=0.5".parse::<Generate>().expect("valid").size, Some(3000));
        for text in ["users", "size=x", "sends=0", "colour=red", "days=-1"] {
            assert!(text.parse::<Generate>().is_err(), "{text}");
        }
    }
}
