//! Values that must not be shown, and where they come from.
//!
//! A secret is named by the place that holds it (an environment variable or a file), so that the lake, the job files
//! and the command line carry only the name. May use: `error`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// A value without `Display` and serialisation, whose `Debug` shows nothing.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; call it where the value leaves for the service that it belongs to, and nowhere else.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is kept; this, not the secret, is what the lake remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlace {
    /// An environment variable.
    Env(String),
    /// A file; one line break at its end is not part of the secret.
    File(PathBuf),
}

impl SecretPlace {
    /// Reads the secret anew, so that a rotated one is found without a restart.
    ///
    /// # Errors
    /// `configuration` when the variable is not set, or the file cannot be read, or either is empty.
    pub fn read(&self) -> Result<Secret<String>> {
        let value = match self {
            Self::Env(name) => std::env::var(name).map_err(|_| {
                Error::new(Code::Configuration, format!("the environment variable `{name}` is not set"))
            })?,
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                Error::new(Code::Configuration, format!("cannot read the secret file `{}`: {error}", path.display()))
            })?,
        };
        let value = value.strip_suffix('\n').map_or(value.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if value.is_empty() {
            return Err(Error::new(Code::Configuration, format!("{self} is empty")));
        }
        Ok(Secret::new(value.to_owned()))
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable `{name}`"),
            Self::File(path) => write!(f, "the file `{}`", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn a_secret_file_may_end_with_one_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a b \r\n").unwrap();
        let place = SecretPlace::File(file.path().to_owned());
        assert_eq!(place.read().unwrap().expose(), "a b ");
        std::fs::write(file.path(), "\n").unwrap();
        assert_eq!(place.read().unwrap_err().code(), Code::Configuration);
    }
}
