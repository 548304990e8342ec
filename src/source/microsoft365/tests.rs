use uuid::Uuid;

use super::*;
use crate::secret::SecretPlace;

fn settings(cloud: Cloud, overrides: Overrides) -> Settings {
    Settings {
        application: Application { tenant_id: Uuid::from_u128(1), client_id: Uuid::from_u128(2) },
        credential: Credential::Secret(SecretPlace::Env("SECRET".into())),
        cloud,
        overrides,
        clock: Clock::System,
    }
}

fn addresses(endpoints: &Endpoints) -> [&str; 5] {
    [
        endpoints.token.as_str(),
        endpoints.graph.as_str(),
        endpoints.feed.as_str(),
        endpoints.graph_resource.as_str(),
        endpoints.feed_resource.as_str(),
    ]
}

#[test]
fn every_cloud_has_its_endpoints_and_its_word() {
    let endpoints = Endpoints::new(&settings(Cloud::GccHigh, Overrides::default())).unwrap();
    assert_eq!(
        addresses(&endpoints),
        [
            "https://login.microsoftonline.us/00000000-0000-0000-0000-000000000001/oauth2/v2.0/token",
            "https://graph.microsoft.us/v1.0",
            "https://manage.office365.us/api/v1.0/00000000-0000-0000-0000-000000000001/activity/feed",
            "https://graph.microsoft.us",
            "https://manage.office365.us",
        ]
    );
    for cloud in Cloud::ALL {
        assert_eq!(cloud.as_str().parse::<Cloud>().unwrap(), cloud);
        assert_eq!(serde_json::to_value(cloud).unwrap(), cloud.as_str());
        let known = Endpoints::new(&settings(cloud, Overrides::default()));
        assert_eq!(known.is_ok(), cloud != Cloud::China21Vianet);
    }
    assert_eq!("azure".parse::<Cloud>().unwrap_err().code(), Code::Usage);
}

#[test]
fn overrides_replace_the_roots_and_not_what_tokens_are_for() {
    let mut overrides = Overrides::default();
    overrides.set("login", "http://127.0.0.1:7/").unwrap();
    overrides.set("graph", "http://[::1]:7/some/proxy/v1.0/").unwrap();
    overrides.set("activity", "https://proxy.example/feed").unwrap();
    let endpoints = Endpoints::new(&settings(Cloud::Worldwide, overrides.clone())).unwrap();
    assert_eq!(
        addresses(&endpoints),
        [
            "http://127.0.0.1:7/00000000-0000-0000-0000-000000000001/oauth2/v2.0/token",
            "http://[::1]:7/some/proxy/v1.0",
            "https://proxy.example/feed/api/v1.0/00000000-0000-0000-0000-000000000001/activity/feed",
            "https://graph.microsoft.com",
            "https://manage.office.com",
        ]
    );
    for (name, url, code) in [
        ("mail", "https://x.example", Code::Usage),
        ("graph", "http://graph.example", Code::Configuration),
        ("graph", "ftp://127.0.0.1", Code::Configuration),
        ("graph", "https://user:secret@graph.example", Code::Configuration),
        ("graph", "graph.example", Code::Configuration),
    ] {
        let error = overrides.set(name, url).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.message().contains("secret"), "{error}");
    }
}

#[test]
fn credentials_and_overrides_are_kept_without_secrets() {
    let credential = Credential::Certificate(SecretPlace::File("/etc/waybill.pem".into()));
    let text = serde_json::to_string(&credential).unwrap();
    assert_eq!(text, r#"{"certificate":{"file":"/etc/waybill.pem"}}"#);
    assert_eq!(serde_json::from_str::<Credential>(&text).unwrap(), credential);
    assert_eq!(serde_json::to_string(&Credential::ManagedIdentity).unwrap(), r#""managed_identity""#);
    assert_eq!(
        serde_json::from_str::<Credential>(r#"{"workload_identity":{}}"#).unwrap(),
        Credential::WorkloadIdentity { token_file: None }
    );
    assert_eq!(serde_json::to_string(&Overrides::default()).unwrap(), "{}");
}

#[test]
fn names_are_encoded_whole_and_cannot_step_out_of_their_place() {
    let source = Microsoft365::new(settings(Cloud::Worldwide, Overrides::default())).unwrap();
    let url = source
        .tenant
        .graph_url(&["users", "a#EXT#@x.org", "messages", "AA/+=", "$value"], &[("$filter", "id eq '<a+b=c@x>'")]);
    assert_eq!(
        url.unwrap().as_str(),
        "https://graph.microsoft.com/v1.0/users/a%23EXT%23%40x.org/messages/AA%2F%2B%3D/$value?$filter=id%20eq%20%27%3Ca%2Bb%3Dc%40x%3E%27"
    );
    for name in ["..", ".", ""] {
        assert_eq!(
            source.tenant.graph_url(&["users", name, "messages"], &[]).unwrap_err().code(),
            Code::MailboxMissing
        );
    }
    assert_eq!(source.tenant.graph_link("https://evil.example/v1.0/users").unwrap_err().code(), Code::ServiceProtocol);
    assert!(source.tenant.graph_link("https://graph.microsoft.com/v1.0/users?$skiptoken=x").is_ok());
}
