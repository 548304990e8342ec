//! The Management Activity API: subscriptions, listings of content, content blobs.
//!
//! <https://learn.microsoft.com/office/office-365-management-api/office-365-management-activity-api-reference>

pub(crate) mod timeline;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, Utc};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use uuid::Uuid;

use self::timeline::{LANES, Lane, Nanos, nanos};
use super::answer::{Reply, Request, feed_error, feed_unauthorized};
use super::entra::Audience;
use super::faults::{Action, named};
use super::ids::mix;
use super::{Simulator, Subscription};

/// Content types that exist; only the first one has content here.
const CONTENT_TYPES: [&str; 5] =
    ["Audit.Exchange", "Audit.AzureActiveDirectory", "Audit.SharePoint", "Audit.General", "DLP.All"];

/// How long content can be fetched after it became available.
const KEPT_DAYS: i64 = 7;

/// The real service accepts a start up to an hour older than documented (seen by Elastic's o365audit input).
const TOLERANCE_HOURS: i64 = 1;

/// After a start, the next one is refused for so long.
const START_PAUSE_MINUTES: i64 = 15;

/// Blobs up to this size are sent with their length, larger ones as they are written.
const WHOLE_BYTES_MAX: usize = 1 << 20;

/// How much of a larger blob is written at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The subscriptions of the tenant.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By content type, in the order of `CONTENT_TYPES`.
    status: [Status; CONTENT_TYPES.len()],
    last_start: Option<DateTime<Utc>>,
    /// When the subscription to `Audit.Exchange` was off: nothing is kept of those times.
    holes: Vec<(Nanos, Nanos)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Never,
    Enabled,
    Stopped,
}

impl Subscriptions {
    pub(crate) fn new(subscription: Subscription) -> Self {
        let mut status = [Status::Never; CONTENT_TYPES.len()];
        let mut holes = Vec::new();
        match subscription {
            Subscription::StartedLongAgo => status[0] = Status::Enabled,
            Subscription::Off => holes.push((Nanos::MIN, Nanos::MAX)),
        }
        Self { state: Mutex::new(State { status, last_start: None, holes }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a request whose path goes on with `segments` after `/api/v1.0/{tenant}/activity/feed`.
pub(crate) fn answer(simulator: &Arc<Simulator>, request: &Request, tenant: &str, segments: &[&str]) -> Reply {
    if let Some(refusal) = refusal(simulator, request, tenant) {
        return refusal;
    }
    let method = request.method.as_str();
    let reply = match (method, segments) {
        ("POST", ["subscriptions", "start"]) => start(simulator, request),
        ("POST", ["subscriptions", "stop"]) => stop(simulator, request),
        ("GET", ["subscriptions", "list"]) => subscriptions(simulator),
        ("GET", ["subscriptions", "content"]) => content(simulator, request, tenant),
        ("GET", ["subscriptions", "notifications"]) => Reply::json(200, &json!([])),
        ("GET", ["audit", id]) => blob(simulator, request, id),
        ("GET", ["resources", "dlpSensitiveTypes"]) => Reply::json(200, &json!([])),
        _ => Reply::json(404, &json!({"Message": "No HTTP resource was found that matches the request URI."})),
    };
    reply
        .custom("cache-control", "no-cache")
        .custom("pragma", "no-cache")
        .custom("expires", "-1")
        .custom("server", "Microsoft-IIS/10.0")
        .custom("x-aspnet-version", "4.0.30319")
        .custom("x-powered-by", "ASP.NET")
}

/// Why a request is not answered at all: token, tenant, permission.
fn refusal(simulator: &Simulator, request: &Request, tenant: &str) -> Option<Reply> {
    let Ok(token) = simulator.tokens.check(request, Audience::Feed) else { return Some(feed_unauthorized()) };
    if Uuid::parse_str(tenant).is_err() {
        return Some(named(request, "AF20013", None, None));
    }
    if !tenant.eq_ignore_ascii_case(&simulator.tenant.id) {
        let message = format!(
            "The tenant ID passed in the URL ({tenant}) does not match the tenant ID passed in the access token ({}).",
            simulator.tenant.id
        );
        return Some(named(request, "AF20010", Some(&message), None));
    }
    let held = if token.is_bare() { "" } else { "ActivityFeed.ReadDlp" };
    let message = format!("The permission set ({held}) sent in the request does not include the expected permission.");
    (!token.has("ActivityFeed.Read")).then(|| named(request, "AF10001", Some(&message), None))
}

/// The place of the asked content type, or the error that it is missing or unknown.
fn content_type(request: &Request) -> Result<usize, Reply> {
    let Some(name) = request.query("contentType") else {
        return Err(named(request, "AF20001", None, None));
    };
    CONTENT_TYPES
        .iter()
        .position(|known| known.eq_ignore_ascii_case(name))
        .ok_or_else(|| named(request, "AF20020", Some(&format!("The content type {name} is not valid.")), None))
}

fn start(simulator: &Simulator, request: &Request) -> Reply {
    let index = match content_type(request) {
        Ok(index) => index,
        Err(reply) => return reply,
    };
    let mut state = simulator.subscriptions.state();
    let pause = Duration::minutes(START_PAUSE_MINUTES);
    if let Some(left) = state.last_start.map(|last| last + pause - request.now).filter(|left| *left > Duration::zero())
    {
        let message = format!(
            "Too many frequent subscription start requests. Please retry again after {}m {}s.",
            left.num_minutes(),
            left.num_seconds() % 60
        );
        return named(request, "429", Some(&message), None);
    }
    state.last_start = Some(request.now);
    if state.status[index] == Status::Enabled {
        return named(request, "AF20024", None, None);
    }
    if index == 0
        && let Some((_, until)) = state.holes.last_mut()
    {
        *until = nanos(request.now);
    }
    state.status[index] = Status::Enabled;
    Reply::json(200, &json!({"contentType": CONTENT_TYPES[index], "status": "enabled", "webhook": null}))
}

fn stop(simulator: &Simulator, request: &Request) -> Reply {
    let index = match content_type(request) {
        Ok(index) => index,
        Err(reply) => return reply,
    };
    let mut state = simulator.subscriptions.state();
    if state.status[index] != Status::Enabled {
        return named(request, "AF20022", None, None);
    }
    state.status[index] = Status::Stopped;
    if index == 0 {
        state.holes.push((nanos(request.now), Nanos::MAX));
    }
    Reply::new(200, "", Bytes::new())
}

fn subscriptions(simulator: &Simulator) -> Reply {
    let state = simulator.subscriptions.state();
    let list: Vec<Value> = CONTENT_TYPES
        .iter()
        .zip(state.status)
        .filter_map(|(content_type, status)| {
            let status = match status {
                Status::Never => return None,
                Status::Enabled => "enabled",
                Status::Stopped => "disabled",
            };
            Some(json!({"contentType": content_type, "status": status, "webhook": null}))
        })
        .collect();
    Reply::json(200, &Value::Array(list))
}

/// The state of the subscription to `Audit.Exchange`: an error if it is off, else the times that it was off.
fn holes(simulator: &Simulator, request: &Request, index: usize) -> Result<Vec<(Nanos, Nanos)>, Reply> {
    let state = simulator.subscriptions.state();
    match state.status[index] {
        Status::Enabled => Ok(state.holes.clone()),
        Status::Stopped => Err(named(request, "AF20023", None, None)),
        Status::Never => {
            let message = format!("No subscription found for the content type {}.", CONTENT_TYPES[index]);
            Err(named(request, "AF20022", Some(&message), None))
        }
    }
}

/// Times as the service understands them: a day, minutes, seconds, with or without `Z`.
fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim().trim_end_matches(['Z', 'z']);
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Some(time.and_utc());
        }
    }
    Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc())
}

/// The window that a listing asks for, or the error that says why it is none.
fn window(request: &Request) -> Result<(DateTime<Utc>, DateTime<Utc>), Reply> {
    let wrong = |code: &str, start: &str, end: &str| {
        let message = format!(
            "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24 hours apart, \
             with the start time no more than 7 days in the past. StartTime:{{{start}}}, EndTime:{{{end}}}"
        );
        named(request, code, Some(&message), None)
    };
    let (start, end) = match (request.query("startTime"), request.query("endTime")) {
        (None, None) => return Ok((request.now - Duration::hours(24), request.now)),
        (start, end) => (start.unwrap_or_default(), end.unwrap_or_default()),
    };
    let (Some(from), Some(until)) = (parse_time(start), parse_time(end)) else {
        return Err(wrong("AF20030", start, end));
    };
    let oldest = request.now - Duration::days(KEPT_DAYS) - Duration::hours(TOLERANCE_HOURS);
    if from >= until || from < oldest {
        return Err(wrong("AF20055", start, end));
    }
    if until - from > Duration::hours(24) {
        if request.actions.contains(&Action::PartialLongWindow) {
            return Ok((from, from + Duration::hours(24)));
        }
        return Err(wrong("AF20030", start, end));
    }
    Ok((from, until))
}

/// Where a listing goes on: the time up to which it lists, and the next place of each lane.
struct Cursor {
    now: Nanos,
    places: [u64; LANES.len()],
}

impl Cursor {
    fn token(&self) -> String {
        let places: Vec<String> = self.places.iter().map(|place| format!("{place:x}")).collect();
        format!("{:x}-{}", self.now, places.join("-"))
    }

    fn parse(token: &str) -> Option<Self> {
        let mut pieces = token.split('-');
        let now = Nanos::from_str_radix(pieces.next()?, 16).ok()?;
        let mut places = [0; LANES.len()];
        for place in &mut places {
            *place = u64::from_str_radix(pieces.next()?, 16).ok()?;
        }
        pieces.next().is_none().then_some(Self { now, places })
    }
}

fn content(simulator: &Simulator, request: &Request, tenant: &str) -> Reply {
    let answer = || -> Result<Reply, Reply> {
        let index = content_type(request)?;
        let holes = holes(simulator, request, index)?;
        let (from, until) = window(request)?;
        let timeline = &simulator.timeline;
        let mut cursor = match request.query("nextPage") {
            Some(token) => Cursor::parse(token).ok_or_else(|| named(request, "AF20031", None, None))?,
            None => {
                let start = nanos(from);
                Cursor { now: nanos(request.now), places: LANES.map(|lane| timeline.place_at(lane, start)) }
            }
        };
        // Only `Audit.Exchange` has content.
        let until_nanos = if index == 0 { nanos(until).min(cursor.now) } else { Nanos::MIN };
        let ends = LANES.map(|lane| timeline.place_at(lane, until_nanos));
        let mut items = Vec::new();
        // A page can be empty and still have a next one.
        let page_blobs = if request.actions.contains(&Action::EmptyPage) { 0 } else { simulator.page_blobs };
        let mut next = LANES.map(|_| None);
        let mut is_stale = [true; LANES.len()];
        let mut has_more = page_blobs == 0;
        loop {
            for (number, lane) in LANES.into_iter().enumerate().filter(|(number, _)| is_stale[*number]) {
                next[number] = timeline.next_blob(lane, cursor.places[number], ends[number], cursor.now, &holes);
            }
            is_stale = [false; LANES.len()];
            // Listings are in the order in which blobs became available.
            let earliest = next.into_iter().flatten().min_by_key(|blob| blob.times.1);
            let Some(blob) = earliest else { break };
            if items.len() == page_blobs {
                has_more = true;
                break;
            }
            items.push(item(request, tenant, blob.lane, blob.times));
            cursor.places[blob.lane as usize] = blob.next;
            is_stale[blob.lane as usize] = true;
        }
        let mut reply = Reply::json(200, &Value::Array(items));
        if has_more {
            // The path says v1 here, as in the reference; start and end are repeated and no publisher is.
            reply = reply.custom("nextpageuri", &format!(
                "{}/api/v1/{tenant}/activity/feed/subscriptions/content?contentType={}&startTime={}&endTime={}&nextPage={}",
                request.base,
                CONTENT_TYPES[index],
                from.format("%Y-%m-%dT%H:%M:%S%.fZ"),
                until.format("%Y-%m-%dT%H:%M:%S%.fZ"),
                cursor.token(),
            ));
        }
        Ok(reply)
    };
    answer().unwrap_or_else(|error| error)
}

/// The blob's availability is that of its last record.
fn item(request: &Request, tenant: &str, lane: Lane, times: (Nanos, Nanos)) -> Value {
    let id = content_id(lane, times);
    let created = DateTime::from_timestamp_nanos(times.1);
    let format = "%Y-%m-%dT%H:%M:%S%.3fZ";
    json!({
        "contentUri": format!("{}/api/v1.0/{tenant}/activity/feed/audit/{id}", request.base),
        "contentId": id,
        "contentType": CONTENT_TYPES[0],
        "contentCreated": created.format(format).to_string(),
        "contentExpiration": (created + Duration::days(KEPT_DAYS)).format(format).to_string(),
    })
}

const ID_TIME: &str = "%Y%m%d%H%M%S%9f";

/// Storage regions are numbered; ours number the lanes.
const FIRST_REGION: usize = 36;

/// `t1$t2$table$Type$region`, as seen since 2020.
fn content_id(lane: Lane, (first, last): (Nanos, Nanos)) -> String {
    let time = |nanos| DateTime::from_timestamp_nanos(nanos).format(ID_TIME);
    format!("{}${}$audit_exchange$Audit_Exchange$emea{:04}", time(first), time(last), FIRST_REGION + lane as usize)
}

fn parse_content_id(id: &str) -> Option<(Lane, Nanos, Nanos)> {
    let mut pieces = id.split('$');
    let mut time = || {
        let text = pieces.next()?;
        // The fraction of a second has no separator, which chrono cannot read.
        let (seconds, fraction) = (text.get(..14)?, text.get(14..23)?);
        let seconds = NaiveDateTime::parse_from_str(seconds, "%Y%m%d%H%M%S").ok()?.and_utc();
        Some(nanos(seconds) + fraction.parse::<i64>().ok()?)
    };
    let (first, last) = (time()?, time()?);
    let region = pieces.nth(2)?.strip_prefix("emea")?.parse::<usize>().ok()?;
    let lane = LANES.get(region.checked_sub(FIRST_REGION)?)?;
    (pieces.next().is_none() && first <= last).then_some((*lane, first, last))
}

fn blob(simulator: &Arc<Simulator>, request: &Request, id: &str) -> Reply {
    let Some(blob) = parse_content_id(id) else {
        return named(request, "AF20052", Some(&format!("Blob key {id} in the url is invalid.")), None);
    };
    if let Err(error) = holes(simulator, request, 0) {
        return error;
    }
    let created = DateTime::from_timestamp_nanos(blob.2);
    if created + Duration::days(KEPT_DAYS) < request.now {
        return named(request, "AF20051", None, None);
    }
    let places = simulator.timeline.places(blob, nanos(request.now));
    if places.is_empty() {
        return feed_error(404, "AF20050", &format!("The specified content ({id}) does not exist."));
    }
    const CONTENT_TYPE: &str = "application/json; charset=utf-8";
    if request.actions.iter().any(changes_records) {
        return Reply::new(200, CONTENT_TYPE, changed(simulator, request, blob.0, &places));
    }
    let mut writer = Writer {
        simulator: Arc::clone(simulator),
        lane: blob.0,
        places: places.into_iter(),
        is_first: true,
        is_done: false,
    };
    let mut body = Vec::with_capacity(CHUNK_BYTES);
    while body.len() < WHOLE_BYTES_MAX && writer.write(&mut body) {}
    if writer.is_done {
        return Reply::new(200, CONTENT_TYPE, body);
    }
    let rest = stream::iter(std::iter::from_fn(move || {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + 4096);
        while chunk.len() < CHUNK_BYTES && writer.write(&mut chunk) {}
        (!chunk.is_empty()).then(|| Bytes::from(chunk))
    }));
    Reply::stream(CONTENT_TYPE, stream::iter([Bytes::from(body)]).chain(rest).boxed())
}

/// Writes a blob's records one after the other.
struct Writer {
    simulator: Arc<Simulator>,
    lane: Lane,
    places: std::vec::IntoIter<u64>,
    is_first: bool,
    is_done: bool,
}

impl Writer {
    /// Appends the next piece of the array; false after its end.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        if self.is_done {
            return false;
        }
        match self.places.next() {
            Some(place) => {
                out.push(if self.is_first { b'[' } else { b',' });
                self.is_first = false;
                self.simulator.timeline.write(self.lane, place, &self.simulator.tenant, out);
            }
            None => {
                out.push(b']');
                self.is_done = true;
            }
        }
        true
    }
}

fn changes_records(action: &Action) -> bool {
    matches!(
        action,
        Action::MalformedRecord | Action::RecordWithoutId | Action::Duplicates | Action::Shuffle | Action::BigRecord(_)
    )
}

/// The blob with what the faults do to its records.
fn changed(simulator: &Simulator, request: &Request, lane: Lane, places: &[u64]) -> Vec<u8> {
    let mut records: Vec<Vec<u8>> = places
        .iter()
        .map(|place| {
            let mut record = Vec::new();
            simulator.timeline.write(lane, *place, &simulator.tenant, &mut record);
            record
        })
        .collect();
    for action in &request.actions {
        match action {
            // Valid JSON that is no record, beside the good ones.
            Action::MalformedRecord => {
                records.push(br#"{"Id":42,"CreationTime":"not a time","Operation":["Send"],"Item":"none"}"#.to_vec())
            }
            Action::RecordWithoutId => {
                let mut record: Value =
                    records.first().and_then(|record| serde_json::from_slice(record).ok()).unwrap_or_default();
                if let Some(fields) = record.as_object_mut() {
                    fields.remove("Id");
                }
                records.push(record.to_string().into_bytes());
            }
            Action::Duplicates => {
                let repeated: Vec<Vec<u8>> = records.iter().step_by(2).cloned().collect();
                records.extend(repeated);
            }
            Action::Shuffle => {
                let mut keyed: Vec<(u64, Vec<u8>)> = records
                    .drain(..)
                    .enumerate()
                    .map(|(index, record)| (mix(simulator.tenant.seed ^ 0x0005_4aff, index as u64), record))
                    .collect();
                keyed.sort();
                records.extend(keyed.into_iter().map(|(_, record)| record));
            }
            Action::BigRecord(bytes) => {
                let record = json!({"Id": Uuid::new_v4().to_string(), "CreationTime": "2026-01-01T00:00:00", "Operation": "Set-Mailbox",
                    "RecordType": 1, "Workload": "Exchange", "UserId": "admin", "Parameters": [{"Name": "Notes", "Value": "x".repeat(*bytes)}]});
                records.push(record.to_string().into_bytes());
            }
            _ => {}
        }
    }
    let mut body = vec![b'['];
    body.extend(records.join(&b','));
    body.push(b']');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_id_gives_its_range_back() {
        let times = (1_790_000_000_123_456_789, 1_790_000_100_000_000_001);
        let id = content_id(Lane::Repeated, times);
        assert_eq!(parse_content_id(&id), Some((Lane::Repeated, times.0, times.1)));
        for wrong in ["", "x$y", "492638008028$492638008028$f28ab78ad40140608012736e373933ebspo2015043022$4a81$04"] {
            assert_eq!(parse_content_id(wrong), None);
        }
    }

    #[test]
    fn times_come_with_and_without_their_parts() {
        for text in [
            "2026-11-02",
            "2026-11-02T00:00",
            "2026-11-02T00:00:00",
            "2026-11-02T00:00:00Z",
            "2026-11-02T00:00:00.000Z",
        ] {
            assert_eq!(
                parse_time(text).map(|time| time.to_rfc3339()).as_deref(),
                Some("2026-11-02T00:00:00+00:00"),
                "{text}"
            );
        }
        assert_eq!(parse_time("yesterday"), None);
    }
}
