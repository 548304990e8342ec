use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const CLIENT: &str = "0000aaaa-11bb-cccc-dd22-eeeeee333333";
const TENANT: &str = "93d9f3ab-f58f-4af2-9ab4-0d3b3a9ad2bb";
const NONCE: &str = "the nonce of this sign-in";
const NOW: i64 = 1_800_000_000;

/// A provider's key: to sign with, and as the provider publishes it.
struct Key {
    private: EncodingKey,
    public: Value,
}

impl Key {
    fn new(id: &str) -> Self {
        use rcgen::PublicKeyData as _;
        let pair = rcgen::KeyPair::generate().unwrap();
        let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let point = pair.der_bytes();
        let coordinate = |range: std::ops::Range<usize>| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&point[range])
        };
        let public = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
            "x": coordinate(1..33), "y": coordinate(33..65)});
        Self { private, public }
    }

    fn set(&self) -> JwkSet {
        serde_json::from_value(json!({"keys": [self.public]})).unwrap()
    }

    fn sign(&self, id: &str, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.to_owned());
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

fn issuer() -> Url {
    format!("https://login.microsoftonline.com/{TENANT}/v2.0").parse().unwrap()
}

fn good() -> Value {
    json!({"iss": issuer().as_str(), "aud": CLIENT, "tid": TENANT, "sub": "s", "oid": "o", "nonce": NONCE, "iat": NOW, "nbf": NOW,
        "exp": NOW + 3600, "preferred_username": "ann@contoso.example", "roles": ["admin"]})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn judge(token: &str, keys: &JwkSet) -> Result<Claims> {
    let issuer = issuer();
    let expected = Expected { issuer: &issuer, client_id: CLIENT, tenant: tenant_of(&issuer), nonce: NONCE };
    verify(token, keys, &expected, Time::from_timestamp(NOW, 0).unwrap())
}

fn assert_refused(token: &str, keys: &JwkSet, why: &str) {
    let error = judge(token, keys).expect_err(why);
    assert_eq!(error.code(), Code::NotSignedIn, "{why}");
    assert!(token.len() < 20 || !error.message().contains(token), "{error}");
}

#[test]
fn a_token_of_our_provider_for_us_and_for_this_sign_in_is_believed() {
    let key = Key::new("k");
    let claims = judge(&key.sign("k", &good()), &key.set()).unwrap();
    assert_eq!(claims.who(), "ann@contoso.example");
    assert_eq!(claims.roles, ["admin"]);
    // Clocks may differ by a few minutes.
    judge(&key.sign("k", &with("exp", json!(NOW - 200))), &key.set()).unwrap();
    judge(&key.sign("k", &with("nbf", json!(NOW + 200))), &key.set()).unwrap();
    judge(&key.sign("k", &without("nbf")), &key.set()).unwrap();
}

#[test]
fn a_token_with_anything_wrong_in_it_is_refused() {
    let key = Key::new("k");
    let cases = [
        ("another issuer", with("iss", json!("https://login.microsoftonline.com/other/v2.0"))),
        ("no issuer", without("iss")),
        ("another application", with("aud", json!("another"))),
        ("no audience", without("aud")),
        ("several audiences and nobody's", with("aud", json!([CLIENT, "another"]))),
        ("another party", with("azp", json!("another"))),
        ("expired", with("exp", json!(NOW - 301))),
        ("no end", without("exp")),
        ("not yet", with("nbf", json!(NOW + 301))),
        ("made in the future", with("iat", json!(NOW + 301))),
        ("another nonce", with("nonce", json!("another"))),
        ("no nonce", without("nonce")),
        ("an empty nonce", with("nonce", json!(""))),
        ("another tenant", with("tid", json!("00000000-0000-0000-0000-000000000000"))),
        ("no tenant", without("tid")),
        ("no subject", without("sub")),
        ("roles that are no list", with("roles", json!("admin"))),
    ];
    for (why, claims) in cases {
        assert_refused(&key.sign("k", &claims), &key.set(), why);
    }
}

#[test]
fn a_token_that_our_provider_did_not_sign_is_refused() {
    use base64::Engine as _;
    let encode = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let (key, stranger) = (Key::new("k"), Key::new("k"));
    assert_refused(&stranger.sign("k", &good()), &key.set(), "another key of the same name");
    assert_refused(&key.sign("another", &good()), &key.set(), "a key that nobody knows");

    let token = key.sign("k", &good());
    let parts: Vec<&str> = token.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], encode(&with("roles", json!(["admin", "more"]))), parts[2]);
    assert_refused(&forged, &key.set(), "changed claims");
    assert_refused(&format!("{}.{}.", parts[0], parts[1]), &key.set(), "no signature");

    for header in [json!({"alg": "none", "kid": "k"}), json!({"alg": "None"}), json!({"alg": "HS256", "kid": "k"})] {
        let unsigned = format!("{}.{}.", encode(&header), encode(&good()));
        assert_refused(&unsigned, &key.set(), "not signed");
    }
    // The public key as a shared secret: whoever reads the key could sign.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("k".to_owned());
    let secret = EncodingKey::from_secret(key.public["x"].as_str().unwrap().as_bytes());
    assert_refused(&jsonwebtoken::encode(&header, &good(), &secret).unwrap(), &key.set(), "a shared secret");

    let mut nameless = Header::new(Algorithm::ES256);
    nameless.kid = None;
    assert_refused(&jsonwebtoken::encode(&nameless, &good(), &key.private).unwrap(), &key.set(), "no key named");
    for text in ["", ".", "..", "a.b.c", "{}"] {
        assert_refused(text, &key.set(), "no token at all");
    }
}

#[test]
fn a_key_serves_only_what_it_is_published_for() {
    let mut key = Key::new("k");
    let token = key.sign("k", &good());
    key.public["use"] = json!("enc");
    assert_refused(&token, &key.set(), "a key for encryption");
    key.public["use"] = json!("sig");
    key.public["alg"] = json!("RS256");
    assert_refused(&token, &key.set(), "a key for another algorithm");
    key.public.as_object_mut().unwrap().remove("alg");
    judge(&token, &key.set()).unwrap();
}

#[test]
fn a_name_for_the_record_is_one_line_and_not_endless() {
    let key = Key::new("k");
    let long = format!("ann\r\n\u{1b}[2J{}", "x".repeat(500));
    let claims = judge(&key.sign("k", &with("preferred_username", json!(long))), &key.set()).unwrap();
    assert!(claims.who().starts_with("ann [2Jx") && claims.who().chars().count() == 200, "{}", claims.who());
    let claims = judge(&key.sign("k", &without("preferred_username")), &key.set()).unwrap();
    assert_eq!(claims.who(), "o");
}

#[test]
fn entras_issuer_names_its_tenant_and_others_none() {
    assert_eq!(tenant_of(&issuer()).unwrap().to_string(), TENANT);
    assert_eq!(tenant_of(&"https://accounts.example/".parse().unwrap()), None);
    assert!(is_same_issuer("https://accounts.example", &"https://accounts.example/".parse().unwrap()));
}
