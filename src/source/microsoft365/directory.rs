//! Whom to monitor: users and groups of the directory.
//!
//! Audit records name people by user principal name, which may be an old one, or by another of their addresses. So a
//! person is known here by all of them: principal name, mail, every proxy address, and the object id.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Deserialize;
use uuid::Uuid;

use super::Tenant;
use super::graph::quoted;
use super::message::Page;
use crate::error::{Code, Error, Result};
use crate::http::header::{HeaderName, HeaderValue};
use crate::http::{Answer, Request, StatusCode, Url, parse_json};
use crate::limits;
use crate::source::{Member, ResolvedScope, Scope, ScopeFinding};

const USER_FIELDS: &str = "id,displayName,userPrincipalName,mail,proxyAddresses,accountEnabled,userType,assignedPlans";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: String,
    display_name: Option<String>,
    user_principal_name: Option<String>,
    mail: Option<String>,
    proxy_addresses: Option<Vec<String>>,
    account_enabled: Option<bool>,
    user_type: Option<String>,
    assigned_plans: Option<Vec<Plan>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    service: Option<String>,
    capability_status: Option<String>,
}

const GROUP_FIELDS: &str = "id,mail,proxyAddresses,visibility";

/// Any of these lets an application find groups.
const GROUP_RIGHTS: [&str; 3] = ["GroupMember.Read.All", "Group.Read.All", "Directory.Read.All"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    id: String,
    mail: Option<String>,
    proxy_addresses: Option<Vec<String>>,
    visibility: Option<String>,
}

/// A person as far as a resolved scope remembers one: a page of the directory is many times as large.
struct Person {
    member: Member,
    names: Vec<String>,
    oddity: Option<Oddity>,
}

/// Why somebody will hardly send anything that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Oddity {
    Guest,
    NoMailbox,
    Disabled,
}

impl Oddity {
    fn of_one(self) -> &'static str {
        match self {
            Self::Guest => "is a guest, whose mailbox is elsewhere",
            Self::NoMailbox => "has no mailbox: neither an address nor a plan for Exchange",
            Self::Disabled => "is disabled, so nobody can sign in with it; only others can send from its mailbox",
        }
    }

    fn of_many(self) -> &'static str {
        match self {
            Self::Guest => "are guests, whose mailboxes are elsewhere",
            Self::NoMailbox => "have no mailbox: neither an address nor a plan for Exchange",
            Self::Disabled => {
                "are disabled, so nobody can sign in with them; only others can send from their mailboxes"
            }
        }
    }
}

/// Who or what is meant by a name, the surest first: an object id, a principal name, the mail address, another address.
fn ranked<'a>(
    sure: [Option<&'a str>; 3],
    proxies: Option<&'a Vec<String>>,
) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
    let proxies = proxies.into_iter().flatten().filter_map(|proxy| {
        let (kind, address) = proxy.split_once(':')?;
        kind.eq_ignore_ascii_case("smtp").then_some((3, address))
    });
    sure.into_iter().enumerate().filter_map(|(rank, name)| Some((rank, name?))).chain(proxies)
}

impl Group {
    fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        ranked([Some(self.id.as_str()), None, self.mail.as_deref()], self.proxy_addresses.as_ref())
    }

    /// <https://learn.microsoft.com/graph/api/group-list-transitivemembers>: such members need `Member.Read.Hidden`.
    fn hides_members(&self) -> bool {
        self.visibility.as_deref().is_some_and(|visibility| visibility.eq_ignore_ascii_case("HiddenMembership"))
    }
}

impl User {
    /// Every name by which an audit record may mean this person.
    fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        let sure = [Some(self.id.as_str()), self.user_principal_name.as_deref(), self.mail.as_deref()];
        ranked(sure, self.proxy_addresses.as_ref())
    }

    /// Where the rights do not suffice, members come with their ids only.
    fn is_bare(&self) -> bool {
        self.user_principal_name.is_none() && self.mail.is_none()
    }

    fn into_person(self) -> Person {
        let names = self.names().filter(|(rank, _)| *rank == 3).map(|(_, name)| name.to_owned()).collect();
        let oddity = self.oddity();
        let lower = |text: &String| text.to_lowercase();
        let member = Member {
            address: self.user_principal_name.as_ref().map_or_else(|| self.id.clone(), lower),
            mail: self.mail.as_ref().filter(|mail| !mail.is_empty()).map(lower),
            name: self.display_name,
            object_id: self.id,
        };
        Person { member, names, oddity }
    }

    fn oddity(&self) -> Option<Oddity> {
        let is_exchange = |plan: &Plan| {
            let (service, status) =
                (plan.service.as_deref().unwrap_or_default(), plan.capability_status.as_deref().unwrap_or_default());
            service.eq_ignore_ascii_case("exchange") && status.eq_ignore_ascii_case("enabled")
        };
        if self.user_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("guest")) {
            return Some(Oddity::Guest);
        }
        // A shared mailbox has an address and no plan, and nobody signs in with it.
        let has_address = self.mail.as_deref().is_some_and(|mail| !mail.is_empty());
        let has_plan = self.assigned_plans.iter().flatten().any(is_exchange);
        match (has_address || has_plan, self.account_enabled) {
            (false, _) => Some(Oddity::NoMailbox),
            (true, Some(false)) if has_plan => Some(Oddity::Disabled),
            (true, _) => None,
        }
    }
}

/// What the entries of a scope mean in the directory.
///
/// An address may be the principal name of one person and a further address of another. Then the former is meant, in
/// whatever order the directory lists them, as when the entries are asked for one by one.
struct Wanted<T> {
    /// Each entry in lower case, with the rank and the place of what it means.
    entries: HashMap<String, Option<(usize, usize)>>,
    things: Vec<T>,
}

impl<T> Wanted<T> {
    fn new(entries: &[String]) -> Self {
        Self { entries: entries.iter().map(|entry| (key(entry), None)).collect(), things: Vec::new() }
    }

    /// So many that reading the directory costs less than asking for each.
    fn are_many(&self) -> bool {
        self.entries.len() > limits::SINGLE_LOOKUPS
    }

    /// Says what an entry means, since it was asked for.
    fn set(&mut self, entry: &str, thing: T) {
        self.entries.insert(key(entry), Some((0, self.things.len())));
        self.things.push(thing);
    }

    /// Offers something that came along; gives whether it is wanted, and then the caller must push it.
    fn is_wanted<'a>(&mut self, names: impl Iterator<Item = (usize, &'a str)>) -> bool {
        let place = self.things.len();
        let mut is_wanted = false;
        for (rank, name) in names {
            if let Some(meant) = self.entries.get_mut(&key(name))
                && meant.is_none_or(|(other, _)| rank < other)
            {
                *meant = Some((rank, place));
                is_wanted = true;
            }
        }
        is_wanted
    }

    fn get(&self, entry: &str) -> Option<&T> {
        let (_, place) = (*self.entries.get(&key(entry))?)?;
        self.things.get(place)
    }

    /// The entries that mean nothing, when they are few enough to ask what else they may be.
    fn few_missing<'a>(&self, entries: &'a [String]) -> Vec<&'a str> {
        let mut missing: Vec<&str> = entries.iter().map(|entry| entry.trim()).collect();
        missing.retain(|entry| self.get(entry).is_none());
        if missing.len() > limits::SINGLE_LOOKUPS { Vec::new() } else { missing }
    }

    /// All that is meant by an entry.
    fn into_things(self) -> impl Iterator<Item = T> {
        let meant: HashSet<usize> = self.entries.into_values().flatten().map(|(_, place)| place).collect();
        self.things.into_iter().enumerate().filter(move |(place, _)| meant.contains(place)).map(|(_, thing)| thing)
    }
}

fn key(entry: &str) -> String {
    entry.trim().to_lowercase()
}

impl Tenant {
    pub(super) async fn resolve_scope(&self, scope: &Scope) -> Result<ResolvedScope> {
        let mut findings = Vec::new();
        let people = match scope {
            Scope::All => return Ok(ResolvedScope::all()),
            Scope::Users(entries) => self.resolve_users(entries, &mut findings).await?,
            Scope::Groups(entries) => self.resolve_groups(entries, &mut findings).await?,
        };
        Ok(ResolvedScope::only(people.into_iter().map(|person| (person.member, person.names)), findings))
    }

    /// Few entries are looked up one by one; for many the directory is read once, page by page, and each page is matched
    /// against the entries and dropped. So 100,000 entries cost a hundred requests and no more memory than they need.
    async fn resolve_users(&self, entries: &[String], findings: &mut Vec<ScopeFinding>) -> Result<Vec<Person>> {
        let mut wanted = Wanted::new(entries);
        if wanted.are_many() {
            let mut pages = self.directory(self.listing("users", USER_FIELDS)?, false);
            while let Some(page) = pages.next::<User>(self).await? {
                for user in page {
                    if wanted.is_wanted(user.names()) {
                        wanted.things.push(user.into_person());
                    }
                }
            }
        } else {
            for entry in entries {
                if let Some(user) = self.user(entry.trim()).await? {
                    wanted.set(entry, user.into_person());
                }
            }
        }
        let mut groups = HashSet::new();
        let missing = wanted.few_missing(entries);
        // A scope of users works without the right to see groups.
        if !missing.is_empty() && self.graph_tokens.get().await?.names_any(&GROUP_RIGHTS) {
            for entry in missing {
                if self.group(entry).await?.is_some() {
                    groups.insert(entry);
                }
            }
        }
        findings.extend(entries.iter().map(|entry| entry.trim()).filter_map(|entry| {
            let what = match wanted.get(entry) {
                Some(person) => format!("the user `{entry}` {}", person.oddity?.of_one()),
                None if groups.contains(entry) => format!("`{entry}` is a group and not a user"),
                None => format!("the directory has no user `{entry}`"),
            };
            Some(finding(entry, what))
        }));
        Ok(wanted.into_things().collect())
    }

    async fn resolve_groups(&self, entries: &[String], findings: &mut Vec<ScopeFinding>) -> Result<Vec<Person>> {
        let mut wanted = Wanted::new(entries);
        if wanted.are_many() {
            let mut pages = self.directory(self.listing("groups", GROUP_FIELDS)?, false);
            while let Some(page) = pages.next::<Group>(self).await? {
                for group in page {
                    if wanted.is_wanted(group.names()) {
                        wanted.things.push(group);
                    }
                }
            }
        } else {
            for entry in entries {
                if let Some(group) = self.group(entry.trim()).await? {
                    wanted.set(entry, group);
                }
            }
        }
        let mut users = HashSet::new();
        for entry in wanted.few_missing(entries) {
            if self.user(entry).await?.is_some() {
                users.insert(entry);
            }
        }
        let mut people: HashMap<String, Person> = HashMap::new();
        let mut bare: BTreeSet<String> = BTreeSet::new();
        for entry in entries.iter().map(|entry| entry.trim()) {
            let Some(group) = wanted.get(entry) else {
                findings.push(finding(
                    entry,
                    if users.contains(entry) {
                        format!("`{entry}` is a user and not a group")
                    } else {
                        format!("the directory has no group `{entry}` (dynamic distribution groups are not in it)")
                    },
                ));
                continue;
            };
            let (mut is_empty, mut odd) = (true, Odd::default());
            // The service follows the groups inside, cycles included.
            let mut pages = self.directory(self.members_url(group)?, true);
            while let Some(page) = pages.next::<User>(self).await? {
                for user in page {
                    is_empty = false;
                    if user.is_bare() {
                        bare.insert(user.id);
                        continue;
                    }
                    odd.note(&user);
                    if !people.contains_key(&user.id) {
                        people.insert(user.id.clone(), user.into_person());
                    }
                }
            }
            findings.extend(odd.findings(entry));
            if is_empty {
                let what = if group.hides_members() {
                    format!(
                        "the group `{entry}` hides its members: seeing them needs the permission `Member.Read.Hidden`"
                    )
                } else {
                    format!("the group `{entry}` has no members that can be seen")
                };
                findings.push(finding(entry, what));
            }
        }
        let bare: Vec<String> = bare.into_iter().filter(|id| !people.contains_key(id)).collect();
        let mut people: Vec<Person> = people.into_values().collect();
        if !bare.is_empty() {
            people.extend(self.resolve_users(&bare, findings).await?);
        }
        Ok(people)
    }

    /// One user, by object id, principal name, mail, or any of the addresses.
    async fn user(&self, name: &str) -> Result<Option<User>> {
        let select = ("$select", USER_FIELDS);
        if Uuid::try_parse(name).is_ok() {
            return self.directory_object(self.graph_url(&["users", name], &[select])?).await;
        }
        for filter in [
            format!("userPrincipalName eq {}", quoted(name)),
            format!("mail eq {}", quoted(name)),
            format!("proxyAddresses/any(x:x eq {})", quoted(&format!("smtp:{name}"))),
        ] {
            let url = self.graph_url(&["users"], &[("$filter", &filter), select])?;
            if let Some(user) = self.first(url).await? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    async fn group(&self, name: &str) -> Result<Option<Group>> {
        let select = ("$select", GROUP_FIELDS);
        if Uuid::try_parse(name).is_ok() {
            return self.directory_object(self.graph_url(&["groups", name], &[select])?).await;
        }
        for filter in [
            format!("mail eq {}", quoted(name)),
            format!("proxyAddresses/any(x:x eq {})", quoted(&format!("smtp:{name}"))),
        ] {
            let url = self.graph_url(&["groups"], &[("$filter", &filter), select])?;
            if let Some(group) = self.first(url).await? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    fn members_url(&self, group: &Group) -> Result<Url> {
        let page_size = limits::DIRECTORY_PAGE.to_string();
        let query = [("$select", USER_FIELDS), ("$count", "true"), ("$top", page_size.as_str())];
        self.graph_url(&["groups", &group.id, "transitiveMembers", "microsoft.graph.user"], &query)
    }

    fn listing(&self, what: &str, fields: &str) -> Result<Url> {
        let page_size = limits::DIRECTORY_PAGE.to_string();
        self.graph_url(&[what], &[("$select", fields), ("$top", page_size.as_str())])
    }

    pub(super) async fn check_directory(&self) -> Result<()> {
        let url = self.graph_url(&["users"], &[("$select", "id"), ("$top", "1")])?;
        let _: Page<User> = self.http.json(&Request::get("directory", url), &self.graph_directory()).await?;
        Ok(())
    }

    /// The first of a collection, which may begin with empty pages.
    async fn first<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<Option<T>> {
        let mut pages = self.directory(url, false);
        while let Some(page) = pages.next(self).await? {
            if let Some(first) = page.into_iter().next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// A collection; `is_advanced`: a cast needs the eventual index, or is refused.
    fn directory(&self, url: Url, is_advanced: bool) -> Pages {
        Pages { next: Some(url), is_advanced, read: 0 }
    }

    /// Reads one object, which may not exist.
    async fn directory_object<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<Option<T>> {
        let read = |answer: &Answer| match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => parse_json(answer).map(Some),
        };
        self.http.read(&Request::get("directory", url), &self.graph_directory(), read).await
    }
}

/// A collection of the directory, page by page.
struct Pages {
    next: Option<Url>,
    is_advanced: bool,
    read: usize,
}

impl Pages {
    /// The next page, which may be empty; nothing after the last.
    async fn next<T: serde::de::DeserializeOwned>(&mut self, tenant: &Tenant) -> Result<Option<Vec<T>>> {
        let Some(url) = self.next.take() else { return Ok(None) };
        self.read += 1;
        if self.read > limits::PAGES {
            return Err(Error::new(Code::ServiceProtocol, "graph's pages of the directory never end"));
        }
        let mut request = Request::get("directory", url);
        if self.is_advanced {
            request = request.header(HeaderName::from_static("consistencylevel"), HeaderValue::from_static("eventual"));
        }
        let page: Page<T> = tenant.http.json(&request, &tenant.graph_directory()).await?;
        self.next = page.next.map(|next| tenant.graph_link(&next)).transpose()?;
        Ok(Some(page.value))
    }
}

/// The odd members of one group: a company's group may have thousands of guests, which are one finding.
#[derive(Default)]
struct Odd(BTreeMap<Oddity, (usize, Vec<String>)>);

impl Odd {
    fn note(&mut self, user: &User) {
        let Some(oddity) = user.oddity() else { return };
        let (count, names) = self.0.entry(oddity).or_default();
        *count += 1;
        if names.len() < limits::NAMES_LISTED {
            names.push(format!("`{}`", user.user_principal_name.as_ref().unwrap_or(&user.id)));
        }
    }

    fn findings(self, group: &str) -> impl Iterator<Item = ScopeFinding> {
        self.0.into_iter().map(move |(oddity, (count, names))| {
            let listed = names.join(", ");
            let what = match count {
                1 => format!("the member {listed} of the group `{group}` {}", oddity.of_one()),
                _ => {
                    let more = if count > names.len() { ", …" } else { "" };
                    format!("{count} members of the group `{group}` {}: {listed}{more}", oddity.of_many())
                }
            };
            finding(group, what)
        })
    }
}

fn finding(entry: &str, what: String) -> ScopeFinding {
    ScopeFinding { entry: entry.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str, name: &str, proxies: &[&str]) -> User {
        User {
            id: id.to_owned(),
            user_principal_name: Some(name.to_owned()),
            proxy_addresses: Some(proxies.iter().map(|proxy| (*proxy).to_owned()).collect()),
            ..User::default()
        }
    }

    /// Danger: who is monitored depends on the order in which the directory lists people.
    #[test]
    fn a_principal_name_is_meant_before_somebody_elses_further_address() {
        let people = [
            user("1", "one@x.com", &["SMTP:one@x.com", "smtp:two@x.com", "sip:three@x.com"]),
            user("2", "Two@x.com", &["smtp:third@x.com"]),
            user("3", "nobody@x.com", &[]),
        ];
        for order in [[0, 1, 2], [2, 1, 0]] {
            let mut wanted =
                Wanted::new(&[" TWO@x.com".to_owned(), "third@X.com".to_owned(), "three@x.com".to_owned()]);
            for place in order {
                if wanted.is_wanted(people[place].names()) {
                    wanted.things.push(people[place].id.clone());
                }
            }
            assert_eq!(wanted.get("two@x.com").map(String::as_str), Some("2"));
            assert_eq!(wanted.get("third@x.com").map(String::as_str), Some("2"));
            assert_eq!(wanted.get("three@x.com"), None, "an address for calls is no mail address");
            assert_eq!(wanted.into_things().collect::<Vec<_>>(), ["2"], "who lost all entries is not monitored");
        }
    }

    #[test]
    fn who_will_hardly_send_is_told_apart_from_a_shared_mailbox() {
        let plan = || Plan { service: Some("exchange".into()), capability_status: Some("Enabled".into()) };
        let person = |mail: Option<&str>, plans: Vec<Plan>, is_enabled: bool, kind: &str| User {
            mail: mail.map(str::to_owned),
            assigned_plans: Some(plans),
            account_enabled: Some(is_enabled),
            user_type: Some(kind.to_owned()),
            ..user("1", "a@x.com", &[])
        };
        let cases = [
            (person(Some("a@x.com"), vec![plan()], true, "Member"), None),
            (person(Some("a@x.com"), vec![], false, "Member"), None),
            (person(None, vec![plan()], true, "Member"), None),
            (person(Some(""), vec![], true, "Member"), Some(Oddity::NoMailbox)),
            (person(Some("a@x.com"), vec![plan()], false, "Member"), Some(Oddity::Disabled)),
            (person(Some("a@home.com"), vec![], true, "Guest"), Some(Oddity::Guest)),
        ];
        for (user, oddity) in cases {
            assert_eq!(user.oddity(), oddity, "{user:?}");
        }
    }
}
