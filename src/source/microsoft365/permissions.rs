//! Which application permissions are needed, and which a token carries.
//!
//! The fewest that work: <https://learn.microsoft.com/graph/permissions-reference> and the feed's guide. A token is opaque
//! to clients by contract, so what it says serves diagnosis only; whether a service answers is what counts. With access
//! granted in Exchange (RBAC for Applications) a token works for mail without naming `Mail.Read`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Tenant;
use crate::error::Result;
use crate::source::Scope;

/// An application permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Permission {
    /// Its name, which a token's `roles` carry.
    pub name: &'static str,
    /// Its id in an application's manifest.
    pub id: &'static str,
    /// The id of the service that it opens.
    pub resource_id: &'static str,
    /// That service's name in the portal.
    pub resource: &'static str,
    /// What Waybill does with it.
    pub why: &'static str,
}

const GRAPH: (&str, &str) = ("00000003-0000-0000-c000-000000000000", "Microsoft Graph");
const FEED: (&str, &str) = ("c5393580-f805-4401-95e8-94b7a6ef2fc2", "Office 365 Management APIs");

const ACTIVITY_FEED_READ: Permission = Permission {
    name: "ActivityFeed.Read",
    id: "594c1fb6-4f81-4475-ae41-0c394909246c",
    resource_id: FEED.0,
    resource: FEED.1,
    why: "reads the audit log, which says who sent what",
};
const MAIL_READ: Permission = Permission {
    name: "Mail.Read",
    id: "810c84a8-4a9e-49e6-bf7d-12d183f40d01",
    resource_id: GRAPH.0,
    resource: GRAPH.1,
    why: "reads sent messages' properties and attachments; the lesser Mail.ReadBasic.All has no attachments",
};
const USER_READ_ALL: Permission = Permission {
    name: "User.Read.All",
    id: "df021288-bdef-4463-88db-98f22de89214",
    resource_id: GRAPH.0,
    resource: GRAPH.1,
    why: "resolves the monitored users with all of their addresses",
};
const GROUP_MEMBER_READ_ALL: Permission = Permission {
    name: "GroupMember.Read.All",
    id: "98830695-27a2-44f7-8c18-0c3ebc9698f6",
    resource_id: GRAPH.0,
    resource: GRAPH.1,
    why: "resolves the monitored groups, nested ones included",
};

/// The fewest permissions with which a scope can be monitored.
pub fn needed(scope: &Scope) -> &'static [Permission] {
    match scope {
        Scope::All => &[ACTIVITY_FEED_READ, MAIL_READ],
        Scope::Users(_) => &[ACTIVITY_FEED_READ, MAIL_READ, USER_READ_ALL],
        Scope::Groups(_) => &[ACTIVITY_FEED_READ, MAIL_READ, USER_READ_ALL, GROUP_MEMBER_READ_ALL],
    }
}

/// What fresh tokens carry, beside what is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// Names that the tokens carry; nothing when a token does not tell.
    pub names: Option<Vec<String>>,
    /// Names that are needed and are not there. `Mail.Read` may be granted in Exchange instead.
    pub missing: Vec<&'static str>,
    /// Names that are there and are not needed.
    pub surplus: Vec<String>,
}

impl Granted {
    fn new(names: Option<Vec<String>>, scope: &Scope) -> Self {
        let needed = needed(scope);
        let held = names.as_deref().unwrap_or_default();
        let is_missing = |permission: &&Permission| names.is_some() && !held.iter().any(|name| name == permission.name);
        Self {
            missing: needed.iter().filter(is_missing).map(|permission| permission.name).collect(),
            surplus: held
                .iter()
                .filter(|name| needed.iter().all(|permission| permission.name != name.as_str()))
                .cloned()
                .collect(),
            names,
        }
    }

    /// Whether the tokens carry nothing at all: nobody consented, or consent has not spread yet.
    pub fn is_bare(&self) -> bool {
        self.names.as_ref().is_some_and(Vec::is_empty)
    }
}

impl Tenant {
    /// Asks for new tokens, as those from before a grant stay without it until they end.
    pub(super) async fn granted(&self, scope: &Scope) -> Result<Granted> {
        let feed = self.feed_tokens.roles().await?;
        let graph = self.graph_tokens.roles().await?;
        let names = feed.zip(graph).map(|(mut feed, graph)| {
            feed.extend(graph);
            feed.sort_unstable();
            feed.dedup();
            feed
        });
        Ok(Granted::new(names, scope))
    }
}

/// The `roles` of a token's claims; nothing when it is no token that can be looked into.
pub(super) fn roles(token: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(default)]
        roles: Vec<String>,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(names: &[&str], scope: &Scope) -> Granted {
        Granted::new(Some(names.iter().map(|name| (*name).to_owned()).collect()), scope)
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_named() {
        let all = granted(&["ActivityFeed.Read", "Mail.ReadWrite"], &Scope::All);
        assert_eq!(
            (all.missing.as_slice(), all.surplus.as_slice()),
            (&["Mail.Read"][..], &["Mail.ReadWrite".to_owned()][..])
        );
        let groups = granted(&["ActivityFeed.Read", "Mail.Read", "User.Read.All"], &Scope::Groups(vec![]));
        assert_eq!(groups.missing, ["GroupMember.Read.All"]);
        assert!(granted(&[], &Scope::All).is_bare());
    }

    #[test]
    fn a_token_that_does_not_tell_accuses_nobody() {
        for token in ["", "opaque", "a.b.c", "a.e30.c"] {
            let granted = Granted::new(roles(token).filter(|_| token != "a.e30.c"), &Scope::All);
            assert!(granted.missing.is_empty() && !granted.is_bare(), "{token}");
        }
        assert_eq!(roles("a.e30.c"), Some(vec![]));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"roles":["Mail.Read"]}"#);
        assert_eq!(roles(&format!("a.{claims}.c")), Some(vec!["Mail.Read".to_owned()]));
    }
}
