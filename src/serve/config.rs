//! What a server is told: by options, or by a file.
//!
//! ```toml
//! public_url = "https://waybill.contoso.example"
//! query_memory_mb = 2048
//!
//! [sign_in]
//! issuer = "https://login.microsoftonline.com/<tenant id>/v2.0"
//! client_id = "<application id>"
//! client_secret = { env = "WAYBILL_OIDC_SECRET" }    # or { file = "/run/secrets/oidc" }
//!
//! [roles.admin]
//! groups = ["<object id of a group>"]
//!
//! [[policy]]
//! role = "analyst"
//! hidden_columns = ["subject"]
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::auth::Role;
use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;
use crate::search::Policy;
use crate::secret::SecretPlace;
use crate::source::microsoft365::Overrides;

/// How a lake is served.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Endpoints of connections that are added in the console, where they are not the cloud's own. Whoever runs the server
    /// says them, and not the console, as secrets are sent there.
    #[serde(default)]
    pub endpoints: Overrides,
    /// The address under which browsers reach the server.
    pub public_url: Option<String>,
    /// Memory of a query, in megabytes, of which eight may be at work at once.
    pub query_memory_mb: Option<u64>,
    /// A proxy in front speaks TLS.
    #[serde(default)]
    pub behind_proxy: bool,
    /// The certificate and its key.
    pub tls: Option<TlsFiles>,
    /// How people sign in.
    pub sign_in: Option<SignIn>,
    /// Who has which role.
    #[serde(default)]
    pub roles: Roles,
    /// Who may see only a part of the lake.
    #[serde(default, rename = "policy")]
    pub policies: Policies,
}

/// Who may see only a part of the lake.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Policies(Vec<PolicyFor>);

/// A policy, and whom it concerns.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFor {
    /// Those whom the record of searches calls so: `ann@contoso.example`, `token:BI`. Case does not matter.
    #[serde(default)]
    who: Vec<String>,
    /// Everybody of this role.
    role: Option<Role>,
    /// Only rows of these connections.
    connections: Option<Vec<String>>,
    /// Columns of file events whose values are not shown.
    #[serde(default)]
    hidden_columns: Vec<String>,
}

impl Policies {
    /// What somebody may see: what all policies that concern them leave.
    pub(crate) fn of(&self, who: &str, role: Role) -> Arc<Policy> {
        let concerns =
            |one: &&PolicyFor| one.role == Some(role) || one.who.iter().any(|named| named.eq_ignore_ascii_case(who));
        let mut whole = Policy::default();
        for PolicyFor { connections, hidden_columns, .. } in self.0.iter().filter(concerns) {
            whole.hidden_columns.extend(hidden_columns.iter().cloned());
            whole.connections = match (whole.connections, connections) {
                (Some(some), Some(others)) => Some(some.into_iter().filter(|one| others.contains(one)).collect()),
                (some, others) => some.or_else(|| others.clone()),
            };
        }
        Arc::new(whole)
    }

    /// Fails when a policy would not do what whoever wrote it thinks.
    fn check(&self) -> Result<()> {
        for PolicyFor { who, role, connections, hidden_columns } in self.0.iter().cloned() {
            let policy = Policy { connections, hidden_columns };
            policy.check()?;
            if who.is_empty() && role.is_none() {
                return Err(Error::new(Code::Configuration, "a `[[policy]]` concerns nobody: give `who` or `role`"));
            }
            if !policy.is_limit() {
                return Err(Error::new(
                    Code::Configuration,
                    "a `[[policy]]` limits nothing: give `connections` or `hidden_columns`",
                ));
            }
        }
        Ok(())
    }
}

/// Files in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// An OpenID Connect provider, and how it knows us.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The provider's name for itself, below which its discovery document is.
    pub issuer: String,
    /// The application's id.
    pub client_id: String,
    /// Where the application's secret is kept.
    pub client_secret: SecretPlace,
}

/// Who has which role. By default the values `viewer`, `analyst` and `admin` of the `roles` claim give it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// Who may look.
    #[serde(default)]
    pub viewer: Names,
    /// Who may search.
    #[serde(default)]
    pub analyst: Names,
    /// Who may change.
    #[serde(default)]
    pub admin: Names,
}

/// Those who have a role.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Values of the `roles` claim; the role's own name unless others are given.
    pub claims: Option<Vec<String>>,
    /// Object ids of groups, of the `groups` claim.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Sign-in addresses, of the `preferred_username` claim.
    #[serde(default)]
    pub addresses: Vec<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// `configuration` when it cannot be read or says something unknown.
    pub fn read(path: &Path) -> Result<Self> {
        let doing = || format!("cannot use the configuration `{}`", path.display());
        let text = std::fs::read_to_string(path).or_error(Code::Configuration, doing())?;
        let config: Self = toml::from_str(&text).map_err(|error| {
            // Without the words of the file, which the library would quote: a person may have put a secret there.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Error::new(Code::Configuration, format!("{}: line {line} has an unknown word or value", doing()))
        })?;
        config.policies.check()?;
        if let Some(megabytes) = config.query_memory_mb.filter(|megabytes| *megabytes < limits::QUERY_MEMORY_MB_LEAST) {
            let least = limits::QUERY_MEMORY_MB_LEAST;
            return Err(Error::new(
                Code::Configuration,
                format!("{}: `query_memory_mb = {megabytes}` is too little, give at least {least}", doing()),
            ));
        }
        Ok(config)
    }
}

impl Roles {
    /// The highest role of somebody: by the `roles` claim if it gives any, else by groups and address.
    pub(crate) fn role(&self, claims: &[String], groups: &[String], address: &str) -> Option<Role> {
        let highest = |is_named: &dyn Fn(Role, &Names) -> bool| {
            Role::ALL.into_iter().rev().find(|role| is_named(*role, self.names(*role)))
        };
        let by_claim = highest(&|role, names| match &names.claims {
            Some(values) => claims.iter().any(|claim| values.contains(claim)),
            None => claims.iter().any(|claim| claim == role.as_str()),
        });
        by_claim.or_else(|| {
            highest(&|_, names| {
                let is_known = |known: &[String], given: &str| known.iter().any(|one| one.eq_ignore_ascii_case(given));
                groups.iter().any(|group| is_known(&names.groups, group)) || is_known(&names.addresses, address)
            })
        })
    }

    fn names(&self, role: Role) -> &Names {
        match role {
            Role::Viewer => &self.viewer,
            Role::Analyst => &self.analyst,
            Role::Admin => &self.admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(text: &str) -> Roles {
        toml::from_str(text).unwrap()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_highest_role_of_the_claim_counts_and_nobody_has_one_by_default() {
        let roles = roles("");
        assert_eq!(roles.role(&texts(&["viewer", "admin"]), &[], "a@x"), Some(Role::Admin));
        assert_eq!(roles.role(&texts(&["analyst"]), &[], "a@x"), Some(Role::Analyst));
        assert_eq!(roles.role(&texts(&["Admin", "administrator"]), &[], "a@x"), None);
        assert_eq!(roles.role(&[], &[], ""), None);
    }

    #[test]
    fn other_claims_groups_and_addresses_give_roles() {
        let roles = roles(
            "[viewer]\naddresses = ['Ann@Contoso.example']\n[admin]\nclaims = ['Waybill.Admin']\ngroups = ['0000-ABCD']",
        );
        assert_eq!(roles.role(&texts(&["Waybill.Admin"]), &[], ""), Some(Role::Admin));
        assert_eq!(roles.role(&texts(&["admin"]), &[], ""), None);
        assert_eq!(roles.role(&[], &texts(&["0000-abcd"]), "ann@contoso.example"), Some(Role::Admin));
        assert_eq!(roles.role(&[], &[], "ann@contoso.example"), Some(Role::Viewer));
        assert_eq!(roles.role(&texts(&["analyst"]), &texts(&["0000-abcd"]), ""), Some(Role::Analyst));
    }

    #[test]
    fn a_file_with_an_unknown_word_is_refused_and_not_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[sign_in]\nissuer = 'x'\nclient_id = 'y'\nclient_secret = 'hunter2'").unwrap();
        let error = Config::read(file.path()).unwrap_err();
        assert_eq!(error.code(), Code::Configuration);
        assert!(error.to_string().ends_with("`: line 4 has an unknown word or value"), "{error}");
    }

    fn policies(text: &str) -> Result<Policies> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path()).map(|config| config.policies)
    }

    #[test]
    fn a_query_of_too_little_memory_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |megabytes: u64| {
            std::fs::write(file.path(), format!("query_memory_mb = {megabytes}")).unwrap();
            Config::read(file.path()).map(|config| config.query_memory_mb)
        };
        let error = read(127).unwrap_err();
        assert!(error.code() == Code::Configuration && error.to_string().ends_with("give at least 128"), "{error}");
        assert_eq!(read(128).unwrap(), Some(128));
    }

    #[test]
    fn all_policies_that_concern_somebody_hold_together() {
        let policies = policies(
            "[[policy]]\nrole = 'analyst'\nhidden_columns = ['subject']\n[[policy]]\nwho = ['Ann@contoso.example']\n\
             connections = ['A', 'B']\n[[policy]]\nwho = ['ann@contoso.example', 'token:BI']\nconnections = ['B', 'C']",
        )
        .unwrap();
        let ann = policies.of("ann@contoso.example", Role::Analyst);
        assert_eq!(ann.connections, Some(texts(&["B"])));
        assert_eq!(ann.hidden_columns, texts(&["subject"]));
        assert_eq!(policies.of("token:BI", Role::Viewer).connections, Some(texts(&["B", "C"])));
        assert!(!policies.of("bob@contoso.example", Role::Admin).is_limit());
    }

    #[test]
    fn a_policy_that_would_do_nothing_is_refused() {
        for (text, why) in [
            ("[[policy]]\nrole = 'analyst'\nhidden_columns = ['subjekt']", "has no column `subjekt` to hide"),
            ("[[policy]]\nhidden_columns = ['subject']", "concerns nobody"),
            ("[[policy]]\nrole = 'analyst'", "limits nothing"),
            ("[[policy]]\nrole = 'analyst'\nhide = ['subject']", "unknown word"),
        ] {
            let error = policies(text).unwrap_err();
            assert!(error.code() == Code::Configuration && error.to_string().contains(why), "{text}: {error}");
        }
    }
}
