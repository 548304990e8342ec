//! Whom to monitor: users and groups of the directory.
//!
//! Audit records name people by user principal name, which may be an old one, or by another of their addresses. So a
//! person is known here by all of them: principal name, mail, every proxy address, and the object id.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    user_type: Option<String>,
    assigned_plans: Option<Vec<Plan>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    service: Option<String>,
    capability_status: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Group {
    id: String,
}

impl User {
    /// Every name by which an audit record may mean this person.
    fn aliases(&self) -> impl Iterator<Item = &str> {
        let proxies = self.proxy_addresses.iter().flatten().filter_map(|proxy| {
            let (kind, address) = proxy.split_once(':')?;
            kind.eq_ignore_ascii_case("smtp").then_some(address)
        });
        [Some(self.id.as_str()), self.user_principal_name.as_deref(), self.mail.as_deref()]
            .into_iter()
            .flatten()
            .chain(proxies)
    }

    fn into_person(self) -> (Member, Vec<String>) {
        let names = self.aliases().map(str::to_owned).collect();
        let lower = |text: &String| text.to_lowercase();
        let member = Member {
            address: self.user_principal_name.as_ref().map_or_else(|| self.id.clone(), lower),
            mail: self.mail.as_ref().filter(|mail| !mail.is_empty()).map(lower),
            name: self.display_name,
            object_id: self.id,
        };
        (member, names)
    }

    /// Why this person will hardly send anything that can be read, if so.
    fn lacks_mailbox(&self) -> Option<&'static str> {
        let is_exchange = |plan: &Plan| {
            let (service, status) =
                (plan.service.as_deref().unwrap_or_default(), plan.capability_status.as_deref().unwrap_or_default());
            service.eq_ignore_ascii_case("exchange") && status.eq_ignore_ascii_case("enabled")
        };
        if self.user_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("guest")) {
            return Some("is a guest, whose mailbox is elsewhere");
        }
        // A shared mailbox has no plan, but an address.
        let has_address = self.mail.as_deref().is_some_and(|mail| !mail.is_empty());
        let has_plan = self.assigned_plans.iter().flatten().any(is_exchange);
        (!has_address && !has_plan).then_some("has no mailbox: neither an address nor a plan for Exchange")
    }
}

impl Tenant {
    pub(super) async fn resolve_scope(&self, scope: &Scope) -> Result<ResolvedScope> {
        let mut findings = Vec::new();
        let users = match scope {
            Scope::All => return Ok(ResolvedScope::all()),
            Scope::Users(entries) => self.resolve_users(entries, &mut findings).await?,
            Scope::Groups(entries) => self.resolve_groups(entries, &mut findings).await?,
        };
        Ok(ResolvedScope::only(users.into_iter().map(User::into_person), findings))
    }

    /// Few entries are looked up one by one; for many the directory is read once, page by page, and each page is matched
    /// against the entries and dropped. So 100,000 entries cost a hundred requests and no more memory than they need.
    async fn resolve_users(&self, entries: &[String], findings: &mut Vec<ScopeFinding>) -> Result<Vec<User>> {
        let mut users = Vec::new();
        let mut found = vec![false; entries.len()];
        let mut take = |entry: &str, user: &User, findings: &mut Vec<ScopeFinding>| {
            findings.extend(user.lacks_mailbox().map(|why| finding(entry, format!("the user `{entry}` {why}"))));
            users.push(user.clone());
        };
        if entries.len() <= limits::SINGLE_LOOKUPS {
            for (place, entry) in entries.iter().map(|entry| entry.trim()).enumerate() {
                if let Some(user) = self.user(entry).await? {
                    found[place] = true;
                    take(entry, &user, findings);
                }
            }
        } else {
            let mut places: HashMap<String, Vec<usize>> = HashMap::new();
            for (place, entry) in entries.iter().enumerate() {
                places.entry(entry.trim().to_lowercase()).or_default().push(place);
            }
            let mut pages = self.directory(self.all_users_url()?, false);
            while let Some(page) = pages.next::<User>(self).await? {
                for user in page {
                    let names: BTreeSet<String> = user.aliases().map(str::to_lowercase).collect();
                    for place in names.iter().filter_map(|name| places.get(name)).flatten() {
                        if !std::mem::replace(&mut found[*place], true) {
                            take(entries[*place].trim(), &user, findings);
                        }
                    }
                }
            }
        }
        let missing = entries.iter().zip(&found).filter(|(_, is_found)| !**is_found).map(|(entry, _)| entry.trim());
        findings.extend(missing.map(|entry| finding(entry, format!("the directory has no user `{entry}`"))));
        Ok(users)
    }

    async fn resolve_groups(&self, entries: &[String], findings: &mut Vec<ScopeFinding>) -> Result<Vec<User>> {
        let mut users: BTreeMap<String, User> = BTreeMap::new();
        for entry in entries.iter().map(|entry| entry.trim()) {
            let Some(group) = self.group(entry).await? else {
                let what = match self.user(entry).await? {
                    Some(_) => format!("`{entry}` is a user and not a group"),
                    None => format!("the directory has no group `{entry}` (dynamic distribution groups are not in it)"),
                };
                findings.push(finding(entry, what));
                continue;
            };
            let members = self.members(&group).await?;
            if members.is_empty() {
                findings.push(finding(entry, format!("the group `{entry}` has no members that can be seen")));
            }
            users.extend(members.into_iter().map(|user| (user.id.clone(), user)));
        }
        // Where the rights do not suffice, members come with their ids only.
        let bare: Vec<String> = users
            .values()
            .filter(|user| user.user_principal_name.is_none() && user.mail.is_none())
            .map(|user| user.id.clone())
            .collect();
        let mut ignored = Vec::new();
        for user in self.resolve_users(&bare, &mut ignored).await? {
            users.insert(user.id.clone(), user);
        }
        findings.extend(users.values().filter_map(|user| {
            let name = user.user_principal_name.as_deref().unwrap_or(&user.id);
            user.lacks_mailbox().map(|why| finding(name, format!("the member `{name}` {why}")))
        }));
        Ok(users.into_values().collect())
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
            let users: Vec<User> = self.directory_pages(url, false).await?;
            if let Some(user) = users.into_iter().next() {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    async fn group(&self, name: &str) -> Result<Option<Group>> {
        let select = ("$select", "id");
        if Uuid::try_parse(name).is_ok() {
            return self.directory_object(self.graph_url(&["groups", name], &[select])?).await;
        }
        for filter in [
            format!("mail eq {}", quoted(name)),
            format!("proxyAddresses/any(x:x eq {})", quoted(&format!("smtp:{name}"))),
        ] {
            let url = self.graph_url(&["groups"], &[("$filter", &filter), select])?;
            let groups: Vec<Group> = self.directory_pages(url, false).await?;
            if let Some(group) = groups.into_iter().next() {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// The people in a group and in the groups inside it; the service follows them, cycles included.
    async fn members(&self, group: &Group) -> Result<Vec<User>> {
        let page_size = limits::DIRECTORY_PAGE.to_string();
        let query = [("$select", USER_FIELDS), ("$count", "true"), ("$top", page_size.as_str())];
        let url = self.graph_url(&["groups", &group.id, "transitiveMembers", "microsoft.graph.user"], &query)?;
        self.directory_pages(url, true).await
    }

    fn all_users_url(&self) -> Result<Url> {
        let page_size = limits::DIRECTORY_PAGE.to_string();
        self.graph_url(&["users"], &[("$select", USER_FIELDS), ("$top", page_size.as_str())])
    }

    pub(super) async fn check_directory(&self) -> Result<()> {
        let url = self.graph_url(&["users"], &[("$select", "id"), ("$top", "1")])?;
        let _: Page<User> = self.http.json(&Request::get("directory", url), &self.graph_directory()).await?;
        Ok(())
    }

    /// Reads a collection, all pages at once. `is_advanced`: a cast needs the eventual index, or is refused.
    async fn directory_pages<T: serde::de::DeserializeOwned>(&self, url: Url, is_advanced: bool) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let mut pages = self.directory(url, is_advanced);
        while let Some(page) = pages.next(self).await? {
            all.extend(page);
        }
        Ok(all)
    }

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

fn finding(entry: &str, what: String) -> ScopeFinding {
    ScopeFinding { entry: entry.to_owned(), what }
}
