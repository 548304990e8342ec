//! Identifiers built as Exchange builds them, so that translating one into another is consistent and no table of ids
//! has to be kept: an item's number stands in its id.
//!
//! The layout of entry ids: <https://learn.microsoft.com/openspecs/exchange_server_protocols/ms-oxcdata>, "Message
//! EntryID"; that of audit and REST ids was measured on public examples.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A stable GUID for a name within this seed's world.
pub(crate) fn guid(seed: u64, name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("https://simulator.example/{seed}/{name}").as_bytes())
}

/// A pseudo-random number for a place (SplitMix64): cheap, and the same whenever it is asked for.
pub(crate) fn mix(seed: u64, place: u64) -> u64 {
    let mut value = seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Whether a place belongs to a share (0 to 1) of all places.
pub(crate) fn in_share(seed: u64, place: u64, share: f64) -> bool {
    share >= 1.0 || ((mix(seed, place) >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// A stable number for a text (FNV-1a, then mixed).
pub(crate) fn text_number(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mix(hash, 1)
}

/// The id of an audit record. Its last two groups are the event's time in .NET ticks, as measured on real records.
pub(crate) fn record_id(random: u64, time: DateTime<Utc>) -> String {
    /// Ticks of 100 ns from the year 1 to 1970.
    const UNIX_EPOCH_TICKS: i64 = 621_355_968_000_000_000;
    // The sub-second part is made up: only whole seconds of the event are known.
    let fraction = (mix(random, 7) % 10_000_000) as i64;
    let ticks = (UNIX_EPOCH_TICKS + time.timestamp() * 10_000_000 + fraction) as u64;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        random >> 32,
        (random >> 16) & 0xffff,
        random & 0xffff,
        ticks & 0xffff,
        ticks >> 16
    )
}

/// The folders that items of the simulator lie in, by their counter in ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    Inbox = 0x0c,
    SentItems = 0x0d,
    Drafts = 0x0f,
    DeletedItems = 0x0e,
    RecoverableItems = 0x1b,
    Other = 0x20,
}

impl Folder {
    /// The folder of a well-known name; other well-known folders exist and are empty.
    /// <https://learn.microsoft.com/graph/api/resources/mailfolder>
    pub(crate) fn well_known(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "sentitems" => Some(Self::SentItems),
            "inbox" => Some(Self::Inbox),
            "drafts" => Some(Self::Drafts),
            "deleteditems" => Some(Self::DeletedItems),
            "recoverableitemsdeletions" => Some(Self::RecoverableItems),
            "archive"
            | "clutter"
            | "conflicts"
            | "conversationhistory"
            | "junkemail"
            | "localfailures"
            | "msgfolderroot"
            | "outbox"
            | "scheduled"
            | "searchfolders"
            | "serverfailures"
            | "syncissues" => Some(Self::Other),
            _ => None,
        }
    }

    /// The folder of the id that [`Ids::folder`] made.
    pub(crate) fn of_id(id: &str) -> Option<Self> {
        let bytes = URL_SAFE.decode(id).ok()?;
        let counter = *bytes.get(43 + 43)?;
        [Self::Inbox, Self::SentItems, Self::Drafts, Self::DeletedItems, Self::RecoverableItems, Self::Other]
            .into_iter()
            .find(|folder| *folder as u8 == counter)
    }

    pub(crate) fn display_name(self) -> &'static str {
        match self {
            Self::Inbox => "Inbox",
            Self::SentItems => "Sent Items",
            Self::Drafts => "Drafts",
            Self::DeletedItems => "Deleted Items",
            Self::RecoverableItems => "Deletions",
            Self::Other => "Other",
        }
    }
}

/// Which object a message has become: what was sent, the draft it was, or a copy that its sender received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copy {
    Sent = 0,
    Draft = 1,
    Received = 2,
}

/// An item of a mailbox: the message's number and which of its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) copy: Copy,
}

impl Item {
    /// Six bytes of counter in an entry id: the copy in the highest bits, the number below.
    fn counter(self) -> [u8; 6] {
        let counter = (self.copy as u64) << 45 | self.number;
        let [_, _, counter @ ..] = counter.to_be_bytes();
        counter
    }

    fn of_counter(counter: &[u8]) -> Option<Self> {
        let value = counter.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let copy = match value >> 45 {
            0 => Copy::Sent,
            1 => Copy::Draft,
            2 => Copy::Received,
            _ => return None,
        };
        Some(Self { number: value & ((1 << 45) - 1), copy })
    }
}

/// Makes and reads the ids of one mailbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) mailbox: Uuid,
}

const ATTACHMENT_MARK: [u8; 5] = [0x01, 0x12, 0x00, 0x10, 0x00];
const ENTRY_LENGTH: usize = 70;

impl Ids {
    fn folder_entry(self, folder: Folder) -> Vec<u8> {
        let database = Uuid::new_v5(&self.mailbox, b"database");
        let mut entry = Vec::with_capacity(ENTRY_LENGTH);
        entry.extend_from_slice(&[0; 4]);
        entry.extend_from_slice(self.mailbox.as_bytes());
        entry.extend_from_slice(&[1, 0]);
        entry.extend_from_slice(database.as_bytes());
        entry.extend_from_slice(&[0, 0, 0, 0, 1, folder as u8]);
        entry.extend_from_slice(&[0, 0]);
        entry
    }

    fn entry(self, item: Item, folder: Folder) -> Vec<u8> {
        let database = Uuid::new_v5(&self.mailbox, b"database");
        let mut entry = self.folder_entry(folder);
        entry[20] = 7;
        entry.extend_from_slice(database.as_bytes());
        entry.extend_from_slice(&item.counter());
        entry.extend_from_slice(&[0, 0]);
        entry
    }

    fn rest_bytes(self, item: Item, folder: Folder, immutable: bool) -> Vec<u8> {
        let mut id = Vec::with_capacity(140);
        if immutable {
            id.extend_from_slice(&[0x00, 0x09, 0x00, 0x46, 0x00]);
            // An immutable id does not change with the folder.
            id.extend_from_slice(&self.entry(item, Folder::Other));
        } else {
            id.extend_from_slice(&[0x00, 0x03, 0x24, 0x00]);
            id.extend_from_slice(self.mailbox.to_string().as_bytes());
            id.extend_from_slice(&[0x00, 0x46, 0x00]);
            id.extend_from_slice(&self.entry(item, folder));
        }
        id
    }

    /// A message's id in Graph.
    pub(crate) fn message(self, item: Item, folder: Folder, immutable: bool) -> String {
        URL_SAFE.encode(self.rest_bytes(item, folder, immutable))
    }

    /// An attachment's id in Graph: the message's bytes, then its own.
    pub(crate) fn attachment(self, item: Item, folder: Folder, immutable: bool, index: usize) -> String {
        let mut id = self.rest_bytes(item, folder, immutable);
        id.extend_from_slice(&ATTACHMENT_MARK);
        id.extend_from_slice(&mix(item.number, index as u64 + 11).to_be_bytes());
        id.extend_from_slice(&(index as u64).to_be_bytes());
        URL_SAFE.encode(id)
    }

    /// A folder's id in Graph.
    pub(crate) fn folder(self, folder: Folder) -> String {
        let mut id = vec![0x00, 0x03, 0x24, 0x00];
        id.extend_from_slice(self.mailbox.to_string().as_bytes());
        id.extend_from_slice(&[0x00, 0x2e, 0x00]);
        id.extend_from_slice(&self.folder_entry(folder));
        URL_SAFE.encode(id)
    }

    /// The item of a message's or attachment's id, and the attachment's index; `None` for ids of other mailboxes.
    pub(crate) fn read(self, id: &str) -> Option<(Item, Option<usize>)> {
        let bytes = URL_SAFE.decode(id).or_else(|_| URL_SAFE_NO_PAD.decode(id)).ok()?;
        let start = if bytes.starts_with(&[0x00, 0x09]) { 5 } else { 43 };
        let entry = bytes.get(start..start + ENTRY_LENGTH)?;
        if entry[4..20] != *self.mailbox.as_bytes() {
            return None;
        }
        let item = Item::of_counter(&entry[62..68])?;
        let rest = &bytes[start + ENTRY_LENGTH..];
        match rest.strip_prefix(&ATTACHMENT_MARK) {
            None => rest.is_empty().then_some((item, None)),
            Some(rest) => {
                let index = u64::from_be_bytes(rest.get(8..16)?.try_into().ok()?);
                Some((item, Some(usize::try_from(index).ok()?)))
            }
        }
    }

    /// The item that an id of any of Exchange's formats names.
    /// <https://learn.microsoft.com/graph/api/user-translateexchangeids>
    pub(crate) fn read_as(self, id: &str, format: &str) -> Option<Item> {
        match format {
            "restId" | "restImmutableEntryId" => self.read(id).map(|(item, _)| item),
            "entryId" | "immutableEntryId" => {
                let bytes = URL_SAFE_NO_PAD.decode(id.get(..id.len().checked_sub(1)?)?).ok()?;
                Item::of_counter(bytes.get(62..68)?)
            }
            "ewsId" => {
                let bytes = STANDARD.decode(id).ok()?;
                Item::of_counter(bytes.get(43 + 62..43 + 68)?)
            }
            _ => None,
        }
    }

    /// The item's id in any of Exchange's formats.
    pub(crate) fn write_as(self, item: Item, format: &str) -> Option<String> {
        let folder = folder_of(item);
        Some(match format {
            "restId" => self.message(item, folder, false),
            "restImmutableEntryId" => self.message(item, folder, true),
            "entryId" => format!("{}2", URL_SAFE_NO_PAD.encode(self.entry(item, folder))),
            "immutableEntryId" => format!("{}2", URL_SAFE_NO_PAD.encode(self.entry(item, Folder::Other))),
            "ewsId" => STANDARD.encode(self.rest_bytes(item, folder, false)),
            _ => return None,
        })
    }

    /// The store id that audit records carry: of the draft, which is gone once the message is sent.
    pub(crate) fn audit_item(self, number: u64) -> String {
        let mut id = vec![ENTRY_LENGTH as u8];
        id.extend_from_slice(&self.entry(Item { number, copy: Copy::Draft }, Folder::Drafts));
        id.push(0x09);
        STANDARD.encode(id)
    }

    /// The store id of a folder in audit records.
    pub(crate) fn audit_folder(self, folder: Folder) -> String {
        let mut id = vec![46];
        id.extend_from_slice(&self.folder_entry(folder));
        id.push(0x01);
        STANDARD.encode(id)
    }
}

/// The folder that a copy lies in, unless a fault has moved it.
pub(crate) fn folder_of(item: Item) -> Folder {
    match item.copy {
        Copy::Sent => Folder::SentItems,
        Copy::Draft => Folder::Drafts,
        Copy::Received => Folder::Inbox,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { mailbox: Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0) };

    #[test]
    fn ids_have_the_lengths_and_heads_of_real_ones() {
        let item = Item { number: 77, copy: Copy::Sent };
        let rest = IDS.message(item, Folder::SentItems, false);
        assert!(rest.starts_with("AAMkA") && rest.len() == 152, "{rest}");
        let store = IDS.audit_item(77);
        assert!(store.starts_with("RgAAAA") && store.len() == 96, "{store}");
        let folder = IDS.audit_folder(Folder::Drafts);
        assert!(folder.starts_with("LgAAAA") && folder.len() == 64, "{folder}");
        assert_eq!(IDS.folder(Folder::SentItems).len(), 120);
        assert_eq!(Folder::of_id(&IDS.folder(Folder::Drafts)), Some(Folder::Drafts));
    }

    #[test]
    fn an_id_gives_its_item_back_in_every_format() {
        let item = Item { number: 123_456_789, copy: Copy::Received };
        for immutable in [false, true] {
            assert_eq!(IDS.read(&IDS.message(item, Folder::Inbox, immutable)), Some((item, None)));
            assert_eq!(IDS.read(&IDS.attachment(item, Folder::Inbox, immutable, 5)), Some((item, Some(5))));
        }
        for format in ["restId", "restImmutableEntryId", "entryId", "immutableEntryId", "ewsId"] {
            let id = IDS.write_as(item, format).expect("known format");
            assert_eq!(IDS.read_as(&id, format), Some(item), "{format}");
        }
        let other = Ids { mailbox: Uuid::nil() };
        assert_eq!(other.read(&IDS.message(item, Folder::Inbox, false)), None);
    }

    #[test]
    fn the_time_stands_in_a_record_id() {
        let time = DateTime::from_timestamp(1_690_094_899, 0).expect("in range");
        let id = record_id(42, time);
        let ticks = format!("{}{}", &id[24..], &id[19..23]);
        let ticks = i64::from_str_radix(&ticks, 16).expect("hexadecimal");
        assert_eq!((ticks - 621_355_968_000_000_000) / 10_000_000, 1_690_094_899);
    }
}
