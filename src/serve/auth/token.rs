//! API tokens: how programs ask.
//!
//! `serve/tokens.json` in the lake holds the hash of each token, never the token. Tokens are 256 random bits, so a plain
//! SHA-256 is enough: there is nothing to guess, and so nothing to slow down. The document is read for every request that
//! brings a token: one that was taken back is good for nothing from that moment on, on every server of the lake.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{Role, random_text};
use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::{Action, Change};
use crate::lake::{Lake, Versioned};
use crate::limits;
use crate::secret::Secret;

/// How every token begins, so that scanners for leaked secrets can find one.
const PREFIX: &str = "wb_";

/// A token as the lake knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// What it is for; unique, whatever its case.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The SHA-256 of the token, hex.
    pub sha256: String,
    /// When it was made.
    pub created: Time,
    /// Who made it.
    pub created_by: String,
    /// From when on it is not good any more.
    pub expires: Time,
}

impl ApiToken {
    /// Whether this is its name, whatever the case.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name.to_lowercase() == name.trim().to_lowercase()
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Document {
    /// Counts the changes.
    revision: i64,
    tokens: Vec<ApiToken>,
}

/// The tokens of a lake.
pub struct Tokens<'a> {
    lake: &'a Lake,
}

impl<'a> Tokens<'a> {
    /// Those of a lake.
    pub fn of(lake: &'a Lake) -> Self {
        Self { lake }
    }

    /// Every token, by name.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn list(&self) -> Result<Vec<ApiToken>> {
        let mut tokens = self.read().await?.0.tokens;
        tokens.sort_by_key(|token| token.name.to_lowercase());
        Ok(tokens)
    }

    /// Makes a token, and gives it: nobody can see it again. Begins the lake when there is none.
    ///
    /// # Errors
    /// `usage` when the name is taken or the life too long; `lake-unavailable`, `lake-not-writable`, `lake-damaged`, and
    /// `connection-conflict` when somebody else changes tokens at the same moment.
    pub async fn add(&self, name: &str, role: Role, by: &str, now: Time, expires: Time) -> Result<Secret<String>> {
        let name = crate::connection::display_name(name)?;
        if expires <= now || expires - now > limits::TOKEN_LIFE_MAX {
            let days = limits::TOKEN_LIFE_MAX.num_days();
            return Err(Error::new(Code::Usage, format!("an API token expires in the future, within {days} days")));
        }
        self.lake.create().await?;
        let (mut document, version) = self.read().await?;
        if document.tokens.iter().any(|token| token.is_called(&name)) {
            return Err(Error::new(Code::Usage, format!("there is an API token `{name}` already")));
        }
        let text = Secret::new(format!("{PREFIX}{}", random_text()?.expose()));
        let detail = format!("API token `{name}` with the role `{role}`");
        let sha256 = hash(text.expose());
        document.tokens.push(ApiToken { name, role, sha256, created: now, created_by: by.to_owned(), expires });
        self.write(document, version.as_ref(), Action::TokenAdded, by, now, detail).await?;
        Ok(text)
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// `usage` when there is none of that name; else like [`Self::add`].
    pub async fn remove(&self, name: &str, by: &str, now: Time) -> Result<ApiToken> {
        let (mut document, version) = self.read().await?;
        let index = document.tokens.iter().position(|token| token.is_called(name));
        let index = index.ok_or_else(|| Error::new(Code::Usage, format!("there is no API token `{name}`")))?;
        let removed = document.tokens.remove(index);
        let detail = format!("API token `{}` with the role `{}`", removed.name, removed.role);
        self.write(document, version.as_ref(), Action::TokenRemoved, by, now, detail).await?;
        Ok(removed)
    }

    /// The token that somebody presents, unless it is unknown or has expired.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub(crate) async fn find(&self, presented: &str, now: Time) -> Result<Option<ApiToken>> {
        // What cannot be a token costs no request to the storage.
        if presented.len() != PREFIX.len() + 43 || !presented.starts_with(PREFIX) {
            return Ok(None);
        }
        let presented = hash(presented);
        let tokens = self.read().await?.0.tokens;
        let is_same = |token: &ApiToken| bool::from(token.sha256.as_bytes().ct_eq(presented.as_bytes()));
        Ok(tokens.into_iter().find(|token| is_same(token) && now < token.expires))
    }

    async fn read(&self) -> Result<(Document, Option<Versioned>)> {
        let Some(version) = self.lake.tokens().await? else { return Ok((Document::default(), None)) };
        let document = serde_json::from_slice(&version.bytes)
            .or_error(Code::LakeDamaged, "the lake's document of API tokens cannot be read")?;
        Ok((document, Some(version)))
    }

    async fn write(
        &self,
        mut document: Document,
        over: Option<&Versioned>,
        action: Action,
        by: &str,
        now: Time,
        detail: String,
    ) -> Result<()> {
        document.revision += 1;
        let bytes = serde_json::to_vec_pretty(&document).or_error(Code::Internal, "cannot write the API tokens")?;
        self.lake.put_tokens(bytes, over).await?;
        let change = Change {
            change_id: Uuid::new_v4().to_string(),
            changed_at: now,
            actor: by.to_owned(),
            action,
            connection_id: None,
            connection_name: None,
            status: None,
            status_before: None,
            code: None,
            detail: Some(detail),
            run_id: None,
        };
        self.lake.record(&[change], "tokens", document.revision).await
    }
}

fn hash(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a text cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_opens_until_it_expires_or_is_taken_back_and_is_kept_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let (tokens, now) = (Tokens::of(&lake), Time::UNIX_EPOCH);
        let expires = now + chrono::Duration::days(1);
        let text = tokens.add(" CI ", Role::Viewer, "local:ann", now, expires).await.unwrap();
        assert!(text.expose().starts_with("wb_") && text.expose().len() == 46, "{}", text.expose());
        let found = tokens.find(text.expose(), now).await.unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.role, found.created_by.as_str()), ("CI", Role::Viewer, "local:ann"));
        assert_eq!(tokens.find(text.expose(), expires).await.unwrap(), None);
        assert_eq!(tokens.find(&text.expose().to_lowercase(), now).await.unwrap(), None);
        assert_eq!(tokens.add("ci", Role::Admin, "x", now, expires).await.unwrap_err().code(), Code::Usage);
        let kept = lake.tokens().await.unwrap().unwrap().bytes;
        assert!(!String::from_utf8_lossy(&kept).contains(text.expose()));
        assert_eq!(tokens.remove("ci", "local:ann", now).await.unwrap(), found);
        assert_eq!(tokens.find(text.expose(), now).await.unwrap(), None);
        assert_eq!(tokens.remove("CI", "local:ann", now).await.unwrap_err().code(), Code::Usage);
    }
}
