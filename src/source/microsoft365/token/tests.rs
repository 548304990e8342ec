use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::{RawForm, RawQuery};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use uuid::Uuid;

use super::*;
use crate::secret::SecretPlace;

/// The table of the protocol notes, 1.7.
#[test]
fn every_known_refusal_has_its_code() {
    let cases = [
        ("invalid_client", 7_000_215, Code::SecretRefused),
        ("invalid_client", 7_000_222, Code::SecretExpired),
        ("invalid_client", 7_000_218, Code::SecretRefused),
        ("invalid_client", 700_027, Code::SecretRefused),
        ("invalid_client", 50_012, Code::SecretRefused),
        ("invalid_grant", 500_133, Code::ClockSkew),
        ("invalid_client", 50_013, Code::ClockSkew),
        ("unauthorized_client", 700_016, Code::ApplicationMissing),
        ("unauthorized_client", 7_000_112, Code::ApplicationMissing),
        ("invalid_request", 90_002, Code::TenantUnknown),
        ("invalid_request", 900_023, Code::TenantUnknown),
        ("invalid_request", 90_038, Code::TenantUnknown),
        ("invalid_resource", 500_011, Code::ConsentMissing),
        ("invalid_grant", 65_001, Code::ConsentMissing),
        ("access_denied", 53_003, Code::PermissionMissing),
        ("invalid_scope", 70_011, Code::ServiceProtocol),
        ("invalid_request", 900_144, Code::ServiceProtocol),
        ("invalid_client", 1, Code::SecretRefused),
        ("unauthorized_client", 1, Code::ApplicationMissing),
    ];
    for (error, number, code) in cases {
        assert_eq!(refused(error, &format!("AADSTS{number}: Text.")).code(), code, "{number}");
    }
    assert_eq!(refused("invalid_client", "").code(), Code::SecretRefused);
    assert_eq!(refused("invalid_client", "AADSTS700027: The key was expired.").code(), Code::CertificateExpired);
}

#[test]
fn a_refusal_is_said_in_one_line_without_ids() {
    let old = "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1\r\nCorrelation ID: 2\r\nTimestamp: 3";
    let new = "AADSTS7000215: Invalid client secret provided. Trace ID: 1 Correlation ID: 2 Timestamp: 3";
    for description in [old, new] {
        assert_eq!(
            refused("invalid_client", description).message(),
            "Microsoft Entra does not accept the client secret: invalid_client AADSTS7000215: Invalid client secret provided."
        );
    }
}

fn tokens(url: &str, credential: Credential) -> Tokens {
    let settings = TokenSettings {
        application: Application { tenant_id: Uuid::from_u128(1), client_id: Uuid::from_u128(2) },
        credential: &credential,
        token_url: &Url::parse(&format!("{url}/token")).unwrap(),
        identity_url: &Url::parse(&format!("{url}/identity")).unwrap(),
        resource: "https://graph.microsoft.com".to_owned(),
    };
    Tokens::new(Http::new().unwrap(), Clock::System, settings)
}

async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test]
async fn a_workload_identity_sends_its_file_as_it_is_each_time_anew() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let answer = move |RawForm(form): RawForm| {
        locked(&log).push(String::from_utf8(form.to_vec()).unwrap());
        async {
            ([("content-type", "application/json")], r#"{"token_type":"Bearer","expires_in":3599,"access_token":"t"}"#)
        }
    };
    let url = serve(axum::Router::new().route("/token", post(answer))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one.two.three\n").unwrap();
    let tokens = tokens(&url, Credential::WorkloadIdentity { token_file: Some(file.path().to_owned()) });
    let first = tokens.get().await.unwrap();
    assert_eq!(format!("{:?}", first.headers()), r#"{"authorization": Sensitive}"#);
    std::fs::write(file.path(), "four.five.six").unwrap();
    assert!(tokens.reject(first.generation));
    assert_eq!(tokens.get().await.unwrap().generation, 2);
    let expected = |assertion: &str| {
        format!(
            "grant_type=client_credentials&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default&client_id=00000000-0000-0000-0000-000000000002\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
        )
    };
    assert_eq!(*locked(&seen), [expected("one.two.three"), expected("four.five.six")]);
}

#[tokio::test]
async fn a_managed_identity_asks_the_machine() {
    let answer = |RawQuery(query): RawQuery, headers: HeaderMap| async move {
        assert_eq!(headers["metadata"], "true");
        assert_eq!(
            query.unwrap(),
            "api-version=2018-02-01&resource=https%3A%2F%2Fgraph.microsoft.com&client_id=00000000-0000-0000-0000-000000000002"
        );
        // Numbers come in quotes.
        r#"{"access_token":"t","expires_in":"86399","token_type":"Bearer"}"#
    };
    let url = serve(axum::Router::new().route("/identity", get(answer))).await;
    assert_eq!(tokens(&url, Credential::ManagedIdentity).get().await.unwrap().generation, 1);
}

#[tokio::test]
async fn a_doubt_costs_one_token_and_a_failure_is_shared_by_those_who_waited() {
    let count = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&count);
    let answer = move || {
        let nth = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if nth < 2 {
                r#"{"token_type":"Bearer","access_token":"t"}"#.into_response()
            } else {
                let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: Expired."}"#;
                (axum::http::StatusCode::UNAUTHORIZED, body).into_response()
            }
        }
    };
    let url = serve(axum::Router::new().route("/token", post(answer))).await;
    let place = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(place.path(), "secret").unwrap();
    let tokens = tokens(&url, Credential::Secret(SecretPlace::File(place.path().to_owned())));
    let first = tokens.get().await.unwrap();
    assert!(tokens.doubt(first.generation));
    assert!(tokens.doubt(first.generation), "somebody else saw to it already");
    let second = tokens.get().await.unwrap();
    assert!(!tokens.doubt(second.generation), "a second new token would lack it too");
    assert!(tokens.reject(second.generation));
    let errors = futures::future::join_all((0..20).map(|_| tokens.get())).await;
    assert!(errors.into_iter().all(|error| error.unwrap_err().code() == Code::SecretExpired));
    assert_eq!(count.load(Ordering::SeqCst), 3);
}
