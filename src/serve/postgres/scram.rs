//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as the server's side of Postgres speaks it: the API token is the password, and only
//! what verifies it is kept.
//!
//! Channel binding is not offered: clients that want it say so, and are told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pgwire::api::auth::sasl::scram::gen_salted_password;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::{Code, Error, Result};

/// The least that RFC 7677 allows. The token is 256 random bits: there is nothing to guess, and so nothing to slow down.
const ITERATIONS: usize = 4096;

/// What verifies a token by SCRAM. Whoever reads it can neither say the token nor answer in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    salt: String,
    stored_key: String,
    server_key: String,
}

impl Verifier {
    /// That of a token.
    ///
    /// # Errors
    /// `internal` when the machine has no randomness to give.
    pub(crate) fn of(token: &str) -> Result<Self> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|error| Error::new(Code::Internal, format!("the machine gives no random bytes: {error}")))?;
        Ok(Self::salted(token, &salt))
    }

    fn salted(token: &str, salt: &[u8]) -> Self {
        let salted = gen_salted_password(token, salt, ITERATIONS);
        let stored = Sha256::digest(mac(&salted, b"Client Key"));
        Self {
            salt: STANDARD.encode(salt),
            stored_key: STANDARD.encode(stored),
            server_key: STANDARD.encode(mac(&salted, b"Server Key")),
        }
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// An exchange after the client's first message.
#[derive(Debug)]
pub(super) struct Exchange {
    verifier: Option<Verifier>,
    channel: String,
    client_first: String,
    server_first: String,
    nonce: String,
}

impl Exchange {
    /// Reads the client's first message; gives the answer to it. Without a verifier, for a name that nobody has, the
    /// exchange goes on and fails at its end, so that names cannot be told apart.
    pub(super) fn begin(first: &[u8], name: &str, verifier: Option<Verifier>, random: &str) -> Option<(Self, String)> {
        let first = std::str::from_utf8(first).ok()?;
        // `n,,` or `y,,`: the client does without channel binding. `p=…` wants it, and nobody speaks for somebody else.
        let bare = first.strip_prefix("n,,").or_else(|| first.strip_prefix("y,,"))?;
        let channel = first[..3].to_owned();
        let theirs = bare.split(',').find_map(|part| part.strip_prefix("r="))?;
        if theirs.is_empty() || theirs.len() > 256 {
            return None;
        }
        let nonce = format!("{theirs}{random}");
        // The same salt each time that somebody asks for a name, whether it exists or not.
        let salt = verifier.as_ref().map(|verifier| verifier.salt.clone());
        let salt = salt.unwrap_or_else(|| STANDARD.encode(&Sha256::digest(format!("no token is called {name}"))[..16]));
        let server_first = format!("r={nonce},s={salt},i={ITERATIONS}");
        let exchange =
            Self { verifier, channel, client_first: bare.to_owned(), server_first: server_first.clone(), nonce };
        Some((exchange, server_first))
    }

    /// Reads the client's last message; gives the server's, if the client has shown that it has the token.
    pub(super) fn end(&self, last: &[u8]) -> Option<String> {
        let verifier = self.verifier.as_ref()?;
        let last = std::str::from_utf8(last).ok()?;
        let (without_proof, proof) = last.rsplit_once(",p=")?;
        let expected = format!("c={},r={}", STANDARD.encode(&self.channel), self.nonce);
        if without_proof != expected {
            return None;
        }
        let said = format!("{},{},{without_proof}", self.client_first, self.server_first);
        let stored = STANDARD.decode(&verifier.stored_key).ok()?;
        let signature = mac(&stored, said.as_bytes());
        let proof: [u8; 32] = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let mut key = [0; 32];
        for ((byte, proven), signed) in key.iter_mut().zip(proof).zip(signature) {
            *byte = proven ^ signed;
        }
        if !bool::from(Sha256::digest(key).as_slice().ct_eq(&stored)) {
            return None;
        }
        let server_key = STANDARD.decode(&verifier.server_key).ok()?;
        Some(format!("v={}", STANDARD.encode(mac(&server_key, said.as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677 §3.
    #[test]
    fn the_exchange_of_the_standard_is_understood() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::salted("pencil", &salt);
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let (exchange, answer) =
            Exchange::begin(first, "user", Some(verifier), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(answer, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let without = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let last = format!("{without},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(exchange.end(last.as_bytes()).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let wrong = format!("{without},p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        for last in [wrong.as_str(), without, "", "c=biws,r=x,p=x", "c=eSws,r=x,p="] {
            assert_eq!(exchange.end(last.as_bytes()), None, "{last}");
        }
    }

    #[test]
    fn a_name_that_nobody_has_goes_through_the_motions_and_fails() {
        for first in [&b"n,,n=,r=abc"[..], b"y,,n=x,r=abc"] {
            let (exchange, answer) = Exchange::begin(first, "nobody", None, "def").unwrap();
            assert!(answer.starts_with("r=abcdef,s=") && answer.ends_with(",i=4096"), "{answer}");
            assert_eq!(exchange.end(b"c=biws,r=abcdef,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), None);
        }
        for strange in
            [&b""[..], b"p=tls-server-end-point,,n=,r=abc", b"n,,n=x", b"n,,r=", b"\xff\xff", b"n,a=x,n=,r=a"]
        {
            assert!(Exchange::begin(strange, "x", None, "def").is_none(), "{strange:?}");
        }
    }
}
