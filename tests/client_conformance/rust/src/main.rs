//! An adapter for Rust, on generated stubs: a language for which there is no client.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::{Duration, Instant};

use prost::Message;
use prost_types::FieldMask;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request};

use google::rpc::{BadRequest, ErrorInfo, RetryInfo, Status};
use userprofile::v1::batch_get_users_response::result::Outcome;
use userprofile::v1::user_profile_service_client::UserProfileServiceClient;
use userprofile::v1::{BatchGetUsersRequest, GetUserRequest, User};

include!(concat!(env!("OUT_DIR"), "/protos.rs"));

const BATCH_SIZE: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Case {
    GetUser { username: String, fields: Option<Vec<String>>, timeout_ms: Option<u64> },
    GetUsers { usernames: Vec<String>, fields: Option<Vec<String>>, timeout_ms: Option<u64> },
}

type Stub = UserProfileServiceClient<Channel>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).ok_or("usage: conformance HOST:PORT")?;
    let mut stub = Stub::connect(format!("http://{target}")).await?;
    for line in stdin().lock().lines() {
        let case: Case = serde_json::from_str(&line?).unwrap_or_else(|error| {
            eprintln!("error: not a request: {error}");
            std::process::exit(2)
        });
        let (Case::GetUser { timeout_ms, .. } | Case::GetUsers { timeout_ms, .. }) = case;
        let (began, timeout) = (Instant::now(), timeout_of(timeout_ms));
        let response = respond(&mut stub, case)
            .await
            .unwrap_or_else(|status| call_error(status, began.elapsed() >= timeout));
        writeln!(stdout(), "{response}")?;
        stdout().flush()?;
    }
    Ok(())
}

async fn respond(stub: &mut Stub, case: Case) -> Result<Value, tonic::Status> {
    match case {
        Case::GetUser { username, fields, timeout_ms } => {
            let request = GetUserRequest { username, read_mask: mask(fields) };
            let response = stub.get_user(with_timeout(request, timeout_ms)).await?.into_inner();
            Ok(json!({ "user": user(response.user.unwrap_or_default()) }))
        }
        Case::GetUsers { usernames, fields, timeout_ms } => {
            let mut results = Vec::new();
            for batch in usernames.chunks(BATCH_SIZE) {
                let request =
                    BatchGetUsersRequest { usernames: batch.to_vec(), read_mask: mask(fields.clone()) };
                let response = stub.batch_get_users(with_timeout(request, timeout_ms)).await?;
                results.extend(response.into_inner().results.into_iter().map(|result| {
                    match result.outcome {
                        Some(Outcome::User(found)) => {
                            json!({ "username": result.username, "user": user(found) })
                        }
                        Some(Outcome::Error(status)) => {
                            let error = error(Code::from_i32(status.code), &status);
                            json!({ "username": result.username, "error": error })
                        }
                        None => json!({ "username": result.username }),
                    }
                }));
            }
            Ok(json!({ "results": results }))
        }
    }
}

/// An empty mask would request all fields.
fn mask(fields: Option<Vec<String>>) -> Option<FieldMask> {
    let paths = |fields| [vec!["username".to_owned()], fields].concat();
    fields.map(|fields| FieldMask { paths: paths(fields) })
}

fn with_timeout<T>(message: T, timeout_ms: Option<u64>) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout_of(timeout_ms));
    request
}

fn timeout_of(timeout_ms: Option<u64>) -> Duration {
    Duration::from_millis(timeout_ms.unwrap_or(5000))
}

fn user(user: User) -> Value {
    let mut set = json!({ "username": user.username });
    for (name, value) in [
        ("email", json!(user.email)),
        ("full_name", json!(user.full_name)),
        ("disabled", json!(user.disabled)),
    ] {
        if !value.is_null() {
            set[name] = value;
        }
    }
    set
}

fn call_error(status: tonic::Status, late: bool) -> Value {
    // When a call's time is up, tonic counts that, and the server's reset of its stream, as a cancellation.
    let code = if late && status.code() == Code::Cancelled { Code::DeadlineExceeded } else { status.code() };
    json!({ "error": error(code, &Status::decode(status.details()).unwrap_or_default()) })
}

fn error(code: Code, status: &Status) -> Value {
    let mut found = json!({ "code": name(code) });
    for detail in &status.details {
        if let Ok(info) = detail.to_msg::<ErrorInfo>() {
            found["reason"] = json!(info.reason);
        } else if let Ok(BadRequest { field_violations }) = detail.to_msg() {
            found["field"] = json!(field_violations.first().map(|violation| &violation.field));
        } else if detail.to_msg::<RetryInfo>().is_ok() {
            found["retryable"] = json!(true);
        }
    }
    found
}

/// The contract's name of a code: `NotFound` is NOT_FOUND.
fn name(code: Code) -> String {
    let words = format!("{code:?}");
    let breaks = words.char_indices().skip(1).filter(|(_, letter)| letter.is_uppercase());
    let mut name = words.clone();
    for (index, _) in breaks.collect::<Vec<_>>().into_iter().rev() {
        name.insert(index, '_');
    }
    name.to_uppercase()
}
