//! The state of the simulated tenant: who is in it, which groups there are, and which messages were sent. The corpus, an
//! audit export or the generator fill it; the three services read it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::body::Bytes;
use chrono::{DateTime, Duration, Utc};
use serde::Deserialize;
use uuid::Uuid;

use super::corpus::{Mail, Source};
use super::generate::{Generated, Pattern};
use super::ids::{Copy, Ids, Item, guid, mix, text_number};
use super::mime::MimeAttachment;
use super::mime::fields::Mailbox;
use super::{Result, SimulatorError};

/// The domain of the tenant itself; mail addresses of a corpus keep their own.
pub(crate) const TENANT_DOMAIN: &str = "contoso.onmicrosoft.com";

/// A simulated tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) seed: u64,
    pub(crate) id: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) started: DateTime<Utc>,
    pub(crate) generated: Option<Generated>,
    world: RwLock<World>,
}

/// What can grow while the simulator runs.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) users: Vec<Arc<User>>,
    /// Every name that a user can be asked for by, in lower case.
    users_by_name: HashMap<String, usize>,
    pub(crate) groups: Vec<Arc<Group>>,
    groups_by_name: HashMap<String, usize>,
    pub(crate) messages: Vec<Arc<Message>>,
    /// Per user: which messages lie in the mailbox.
    mailboxes: Vec<MailboxIndex>,
}

#[derive(Debug, Default)]
struct MailboxIndex {
    by_message_id: HashMap<String, Vec<u64>>,
    all: Vec<u64>,
}

/// A user of the directory.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) index: usize,
    pub(crate) id: String,
    pub(crate) user_principal_name: String,
    pub(crate) mail: String,
    pub(crate) display_name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) kind: UserKind,
    pub(crate) mailbox: Uuid,
}

impl User {
    pub(crate) fn ids(&self) -> Ids {
        Ids { mailbox: self.mailbox }
    }

    pub(crate) fn has_mailbox(&self) -> bool {
        match self.kind {
            UserKind::Member | UserKind::Shared | UserKind::Disabled => true,
            UserKind::Guest | UserKind::NoMailbox => false,
        }
    }
}

/// What kind of user somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UserKind {
    #[default]
    Member,
    /// A shared mailbox: a user that cannot sign in.
    Shared,
    Guest,
    NoMailbox,
    Disabled,
}

/// A group of the directory.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) mail: String,
    pub(crate) display_name: String,
    /// Addresses of users and of other groups; groups may contain each other.
    pub(crate) members: Vec<String>,
    /// Whether its members are shown only to those who may see hidden ones.
    pub(crate) is_hidden: bool,
}

/// A message that was sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) number: u64,
    pub(crate) owner: usize,
    pub(crate) internet_message_id: String,
    pub(crate) subject: String,
    pub(crate) from: Mailbox,
    pub(crate) to: Vec<Mailbox>,
    pub(crate) cc: Vec<Mailbox>,
    pub(crate) bcc: Vec<Mailbox>,
    pub(crate) sent: DateTime<Utc>,
    pub(crate) attachments: Vec<Attachment>,
    /// The mail as it was given; generated messages have none.
    pub(crate) source: Option<Source>,
    /// Whether the sender is among the recipients and so received a copy.
    pub(crate) is_to_self: bool,
}

/// An attachment as the store holds it.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) is_inline: bool,
    pub(crate) content_id: Option<String>,
    pub(crate) kind: AttachmentKind,
    /// Length of what `$value` gives.
    pub(crate) bytes: u64,
    /// What the store's size has beyond that.
    pub(crate) overhead: u32,
    pub(crate) content: Content,
}

/// The kinds that Graph tells apart; references exist only as a fault makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachmentKind {
    File,
    Message,
}

/// Where an attachment's bytes come from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Held(Bytes),
    InMail(Source, MimeAttachment),
    Pattern(Pattern),
}

/// Users and groups as a file tells them: `{"users":[…],"groups":[…]}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DirectoryFile {
    users: Vec<UserEntry>,
    groups: Vec<GroupEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UserEntry {
    mail: String,
    #[serde(default)]
    user_principal_name: Option<String>,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    kind: UserKind,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GroupEntry {
    mail: String,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    hidden: bool,
}

impl DirectoryFile {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| SimulatorError::read(path, source))?;
        serde_json::from_slice(&text).map_err(|source| SimulatorError::understand(path, &source))
    }
}

impl Tenant {
    /// An empty tenant with the ids that its seed gives.
    pub(crate) fn new(seed: u64, started: DateTime<Utc>, generated: Option<Generated>) -> Self {
        let secret = mix(seed, text_number("client secret"));
        let tenant = Self {
            seed,
            id: guid(seed, "tenant").to_string(),
            client_id: guid(seed, "client").to_string(),
            client_secret: format!("sim8Q~{secret:016x}{:016x}", mix(secret, 1)),
            started,
            generated,
            world: RwLock::default(),
        };
        if let Some(generated) = &tenant.generated {
            let mut world = tenant.write();
            for index in 0..generated.users {
                world.add_user(
                    seed,
                    &UserEntry {
                        mail: generated.address(index),
                        user_principal_name: None,
                        display_name: Some(generated.display_name(index)),
                        aliases: generated.aliases(index),
                        kind: UserKind::Member,
                    },
                );
            }
        }
        tenant
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a directory file tells; members that nobody knows become users.
    pub(crate) fn add_directory(&self, file: &DirectoryFile) {
        let mut world = self.write();
        for entry in &file.users {
            world.add_user(self.seed, entry);
        }
        for entry in &file.groups {
            let key = entry.mail.to_lowercase();
            if world.groups_by_name.contains_key(&key) {
                continue;
            }
            let group = Group {
                id: guid(self.seed, &format!("group/{key}")).to_string(),
                mail: entry.mail.clone(),
                display_name: entry.display_name.clone().unwrap_or_else(|| entry.mail.clone()),
                members: entry.members.clone(),
                is_hidden: entry.hidden,
            };
            let index = world.groups.len();
            world.groups_by_name.insert(group.id.clone(), index);
            world.groups_by_name.insert(key, index);
            world.groups.push(Arc::new(group));
        }
        for entry in &file.groups {
            for member in &entry.members {
                if !world.groups_by_name.contains_key(&member.to_lowercase()) {
                    world.user(self.seed, member, "");
                }
            }
        }
    }

    /// Makes sure that this address is a user's.
    pub(crate) fn add_user(&self, address: &str) {
        self.write().user(self.seed, address, "");
    }

    /// Adds mails as sent messages in the order of their time, and gives their numbers. With `shift_to` all dates move
    /// by one offset, so that the newest mail was sent then.
    pub(crate) fn add_mails(&self, mails: Vec<Mail>, shift_to: Option<DateTime<Utc>>) -> Vec<u64> {
        let newest = mails.iter().filter_map(|mail| mail.dated).max().unwrap_or(self.started);
        let shift = shift_to.map_or(Duration::zero(), |to| Duration::seconds(to.timestamp() - newest.timestamp()));
        let mut dated: Vec<(DateTime<Utc>, Mail)> = mails.into_iter().map(|mail| (mail.sent(newest), mail)).collect();
        dated.sort_by_key(|(sent, _)| *sent);
        let mut world = self.write();
        let whole_seconds = |sent: DateTime<Utc>| DateTime::from_timestamp(sent.timestamp(), 0).unwrap_or(sent);
        let shifted = |sent: DateTime<Utc>| whole_seconds(sent.checked_add_signed(shift).unwrap_or(sent));
        dated.into_iter().map(|(sent, mail)| world.add_mail(self.seed, mail, shifted(sent))).collect()
    }

    /// A message by its number, whether it is stored or generated.
    pub(crate) fn message(&self, number: u64) -> Option<Arc<Message>> {
        match &self.generated {
            Some(generated) if number >= GENERATED_FROM => generated.message(number - GENERATED_FROM).map(Arc::new),
            _ => self.read().messages.get(usize::try_from(number).ok()?).cloned(),
        }
    }

    pub(crate) fn user(&self, name: &str) -> Option<Arc<User>> {
        self.read().find_user(name)
    }

    pub(crate) fn group(&self, name: &str) -> Option<Arc<Group>> {
        self.read().find_group(name)
    }

    /// The numbers of the messages in a mailbox that have this id.
    pub(crate) fn find(&self, user: &User, internet_message_id: &str) -> Vec<u64> {
        if let Some(index) =
            self.generated.as_ref().and_then(|generated| generated.find(user.index, internet_message_id))
        {
            return vec![GENERATED_FROM + index];
        }
        let world = self.read();
        let mailbox = world.mailboxes.get(user.index);
        mailbox.and_then(|mailbox| mailbox.by_message_id.get(internet_message_id)).cloned().unwrap_or_default()
    }

    /// A page of the messages in a mailbox, newest last.
    pub(crate) fn mailbox(&self, user: &User, skip: usize, top: usize) -> Vec<u64> {
        let stored = {
            let world = self.read();
            world.mailboxes.get(user.index).map(|mailbox| mailbox.all.clone()).unwrap_or_default()
        };
        let generated = self.generated.iter().flat_map(|generated| generated.sent_by(user.index));
        stored.into_iter().chain(generated.map(|index| GENERATED_FROM + index)).skip(skip).take(top).collect()
    }

    /// All users reached from a group, and all groups, each once: groups may contain each other.
    pub(crate) fn members(&self, group: &Group) -> (Vec<Arc<User>>, Vec<Arc<Group>>) {
        let world = self.read();
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        let mut seen: HashSet<String> = HashSet::from([group.id.clone()]);
        let mut waiting: Vec<&str> = group.members.iter().rev().map(String::as_str).collect();
        while let Some(name) = waiting.pop() {
            if let Some(index) = world.groups_by_name.get(&name.to_lowercase()) {
                let inner = &world.groups[*index];
                if seen.insert(inner.id.clone()) {
                    groups.push(Arc::clone(inner));
                    waiting.extend(inner.members.iter().rev().map(String::as_str));
                }
            } else if let Some(user) = world.find_user(name)
                && seen.insert(user.id.clone())
            {
                users.push(user);
            }
        }
        (users, groups)
    }
}

/// Numbers from here on are generated messages.
pub(crate) const GENERATED_FROM: u64 = 1 << 40;

impl World {
    pub(crate) fn find_user(&self, name: &str) -> Option<Arc<User>> {
        let index = self.users_by_name.get(name).or_else(|| self.users_by_name.get(&name.to_lowercase()))?;
        self.users.get(*index).cloned()
    }

    pub(crate) fn find_group(&self, name: &str) -> Option<Arc<Group>> {
        self.groups.get(*self.groups_by_name.get(&name.to_lowercase())?).cloned()
    }

    /// The user of this address, made if there is none.
    fn user(&mut self, seed: u64, address: &str, display_name: &str) -> usize {
        if let Some(index) = self.users_by_name.get(&address.to_lowercase()) {
            return *index;
        }
        self.add_user(
            seed,
            &UserEntry {
                mail: address.to_owned(),
                user_principal_name: None,
                display_name: Some(display_name.to_owned()).filter(|name| !name.is_empty()),
                aliases: Vec::new(),
                kind: UserKind::Member,
            },
        )
    }

    fn add_user(&mut self, seed: u64, entry: &UserEntry) -> usize {
        let mail = entry.mail.to_lowercase();
        if let Some(index) = self.users_by_name.get(&mail) {
            return *index;
        }
        let user_principal_name = match (&entry.user_principal_name, entry.kind) {
            (Some(name), _) => name.clone(),
            // A guest's name is made of the address at home.
            (None, UserKind::Guest) => format!("{}#EXT#@{TENANT_DOMAIN}", mail.replace('@', "_")),
            (None, _) => mail.clone(),
        };
        let index = self.users.len();
        let user = User {
            index,
            id: guid(seed, &format!("user/{mail}")).to_string(),
            display_name: entry
                .display_name
                .clone()
                .unwrap_or_else(|| mail.split('@').next().unwrap_or_default().to_owned()),
            aliases: entry.aliases.clone(),
            kind: entry.kind,
            mailbox: guid(seed, &format!("mailbox/{mail}")),
            mail,
            user_principal_name,
        };
        let names = [&user.id, &user.mail, &user.user_principal_name].into_iter().chain(&user.aliases);
        for name in names {
            self.users_by_name.entry(name.to_lowercase()).or_insert(index);
        }
        self.users.push(Arc::new(user));
        self.mailboxes.push(MailboxIndex::default());
        index
    }

    fn add_mail(&mut self, seed: u64, mail: Mail, sent: DateTime<Utc>) -> u64 {
        let owner = self.user(seed, &mail.from.address, &mail.from.name);
        let number = self.messages.len() as u64;
        let is_to_self = mail
            .to
            .iter()
            .chain(&mail.cc)
            .any(|mailbox| self.users_by_name.get(&mailbox.address.to_lowercase()) == Some(&owner));
        let mailbox = &mut self.mailboxes[owner];
        mailbox.all.push(number);
        mailbox.by_message_id.entry(mail.internet_message_id.clone()).or_default().push(number);
        self.messages.push(Arc::new(Message {
            number,
            owner,
            internet_message_id: mail.internet_message_id,
            subject: mail.subject,
            from: mail.from,
            to: mail.to,
            cc: mail.cc,
            bcc: mail.bcc,
            sent,
            attachments: mail.attachments,
            source: Some(mail.source),
            is_to_self,
        }));
        number
    }
}

impl Message {
    /// The objects that this message is in its sender's mailbox. The order means nothing, so the one that is wanted
    /// is not the first.
    pub(crate) fn items(&self) -> Vec<Item> {
        let item = |copy| Item { number: self.number, copy };
        if self.is_to_self { vec![item(Copy::Received), item(Copy::Sent)] } else { vec![item(Copy::Sent)] }
    }
}

impl Content {
    /// All bytes at once, for what is small or has to be held anyway.
    pub(crate) fn read(&self, bytes: u64) -> std::io::Result<Bytes> {
        match self {
            Self::Held(held) => Ok(held.clone()),
            Self::InMail(source, found) => Ok(found.bytes(&source.read()?).into_owned().into()),
            Self::Pattern(pattern) => Ok(pattern
                .chunks(bytes)
                .fold(Vec::new(), |mut whole, chunk| {
                    whole.extend_from_slice(&chunk);
                    whole
                })
                .into()),
        }
    }
}
