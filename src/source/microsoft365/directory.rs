//! Whom to monitor: users and groups of the directory.
//!
//! Audit records name people by user principal name, which may be an old one, or by another of their addresses. So a
//! person is known here by all of them: principal name, mail, every proxy address, and the object id.

use serde::Deserialize;
use uuid::Uuid;

use super::Tenant;
use super::graph::quoted;
use super::message::Page;
use crate::error::{Code, Error, Result};
use crate::http::header::{HeaderName, HeaderValue};
use crate::http::{Answer, Request, StatusCode, Url, parse_json};
use crate::limits;
use crate::source::{ResolvedScope, Scope};

const USER_FIELDS: &str = "id,userPrincipalName,mail,proxyAddresses,accountEnabled,userType,assignedPlans";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: String,
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

    fn is_named(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.aliases().any(|alias| alias.to_lowercase() == name)
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
        let aliases = users.iter().flat_map(|user| user.aliases().map(|alias| (alias.to_owned(), user.id.clone())));
        Ok(ResolvedScope::only(aliases, findings))
    }

    async fn resolve_users(&self, entries: &[String], findings: &mut Vec<String>) -> Result<Vec<User>> {
        let all = match entries.len() {
            0..=limits::SINGLE_LOOKUPS => None,
            _ => Some(self.all_users().await?),
        };
        let mut users = Vec::new();
        for entry in entries {
            let name = entry.trim();
            let user = match &all {
                Some(all) => all.iter().find(|user| user.is_named(name)).cloned(),
                None => self.user(name).await?,
            };
            let Some(user) = user else {
                findings.push(format!("the directory has no user `{name}`"));
                continue;
            };
            findings.extend(user.lacks_mailbox().map(|why| format!("the user `{name}` {why}")));
            users.push(user);
        }
        Ok(users)
    }

    async fn resolve_groups(&self, entries: &[String], findings: &mut Vec<String>) -> Result<Vec<User>> {
        let mut users: Vec<User> = Vec::new();
        for entry in entries {
            let name = entry.trim();
            let Some(group) = self.group(name).await? else {
                findings.push(format!("the directory has no group `{name}`"));
                continue;
            };
            let members = self.members(&group).await?;
            if members.is_empty() {
                findings.push(format!("the group `{name}` has no members that can be seen"));
            }
            users.extend(members);
        }
        users.sort_by(|one, other| one.id.cmp(&other.id));
        users.dedup_by(|second, first| second.id == first.id);
        // Where the rights do not suffice, members come with their ids only.
        let is_bare = |user: &User| user.user_principal_name.is_none() && user.mail.is_none();
        let bare = users.iter().filter(|user| is_bare(user)).count();
        if bare > limits::SINGLE_LOOKUPS {
            let all = self.all_users().await?;
            for user in users.iter_mut().filter(|user| is_bare(user)) {
                if let Some(known) = all.iter().find(|known| known.id == user.id) {
                    *user = known.clone();
                }
            }
        } else {
            for user in users.iter_mut().filter(|user| is_bare(user)) {
                if let Some(known) = self.user(&user.id).await? {
                    *user = known;
                }
            }
        }
        findings.extend(users.iter().filter_map(|user| {
            let name = user.user_principal_name.as_deref().unwrap_or(&user.id);
            user.lacks_mailbox().map(|why| format!("the member `{name}` {why}"))
        }));
        Ok(users)
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

    async fn all_users(&self) -> Result<Vec<User>> {
        let page_size = limits::DIRECTORY_PAGE.to_string();
        let url = self.graph_url(&["users"], &[("$select", USER_FIELDS), ("$top", page_size.as_str())])?;
        self.directory_pages(url, false).await
    }

    pub(super) async fn check_directory(&self) -> Result<()> {
        let url = self.graph_url(&["users"], &[("$select", "id"), ("$top", "1")])?;
        let _: Page<User> = self.http.json(&Request::get("directory", url), &self.graph_directory()).await?;
        Ok(())
    }

    /// Reads a collection, all pages. `is_advanced`: a cast needs the eventual index, or is refused.
    async fn directory_pages<T: serde::de::DeserializeOwned>(&self, mut url: Url, is_advanced: bool) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for _ in 0..limits::PAGES {
            let mut request = Request::get("directory", url);
            if is_advanced {
                request =
                    request.header(HeaderName::from_static("consistencylevel"), HeaderValue::from_static("eventual"));
            }
            let page: Page<T> = self.http.json(&request, &self.graph_directory()).await?;
            all.extend(page.value);
            match page.next {
                Some(next) => url = self.graph_link(&next)?,
                None => return Ok(all),
            }
        }
        Err(Error::new(Code::ServiceProtocol, "graph's pages of the directory never end"))
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
