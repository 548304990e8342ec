//! Every limit of the program in one place, each with its unit and its reason.
//!
//! May use: nothing of Waybill.

use std::time::Duration;

/// Requests at once on one mailbox. Microsoft's documented concurrency limit of the Outlook service per application
/// and mailbox: <https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits>.
pub const REQUESTS_PER_MAILBOX: usize = 4;

/// Graph requests at once over all mailboxes when a run begins; Microsoft's pages disagree on whether the limit of 4 is
/// per mailbox or per application, so the limiter starts moderate and lets refusals steer.
pub const GRAPH_REQUESTS_START: usize = 32;

/// Graph requests at once over all mailboxes, at most: beyond this the sockets cost more than they bring.
pub const GRAPH_REQUESTS_MAX: usize = 256;

/// Graph requests at once over all mailboxes, at least, however much the service refuses: below this a run would stall.
pub const GRAPH_REQUESTS_MIN: usize = 2;

/// Blobs read at once. Each holds a connection and one network chunk; 8 keep the feed's latency hidden.
pub const BLOBS_AT_ONCE: usize = 8;

/// Sends between decoding and resolving. About 1 KB each; deep enough to bridge a slow blob.
pub const SENDS_QUEUED: usize = 512;

/// Messages in work at once. Most wait for their mailbox's turn, which costs little.
pub const MESSAGES_AT_ONCE: usize = 256;

/// Finished messages between hashing and committing.
pub const FATES_QUEUED: usize = 512;

/// Rows after which a slice is committed: about 20 MB of Arrow data, and at most a minute of work at common rates.
pub const SLICE_ROWS: usize = 10_000;

/// Bytes of rows in memory after which a slice is committed: a message to a thousand people has rows of 100 KB and more.
pub const SLICE_BYTES: usize = 48 * 1024 * 1024;

/// Sends after which a slice is committed though few of them had attachments: their ids are remembered by it.
pub const SLICE_SENDS: usize = 25_000;

/// Records after which a slice is committed even when few of them were sends, so that a crash does not cost hours.
pub const SLICE_RECORDS: u64 = 5_000_000;

/// Time after which a slice is committed: what a crash costs at most.
pub const SLICE_TIME: Duration = Duration::from_secs(120);

/// Bytes of one audit record. Records of 1 MB exist in the field; one that is larger is quarantined, cut.
pub const RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of an unreadable record that are kept in quarantine.
pub const QUARANTINE_BYTES: usize = 256 * 1024;

/// Bytes of a JSON answer (a listing page, a message with its attachments) that are held at once.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Times that one request is sent before it counts as failed.
pub const ATTEMPTS: u32 = 6;

/// Times that one request waits for its turn when the service says "too many"; more than for faults, since waiting helps.
pub const THROTTLED_ATTEMPTS: u32 = 30;

/// The first pause between two attempts; doubles, with jitter.
pub const BACKOFF_START: Duration = Duration::from_millis(250);

/// The longest pause that Waybill chooses by itself.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The longest pause that a service may ask for; longer ones are cut to this and asked again.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Time to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Time without a single byte, after which a connection counts as broken. Graph renders large attachments for up to
/// 30 s before the first byte (microsoft-graph-docs#21183).
pub const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Pages of one listing. 7 days of the busiest tenant stay far below; a loop of the service does not run for ever.
pub const PAGES: usize = 100_000;

/// The feed's longest window: 24 hours.
pub const WINDOW_MAX: chrono::Duration = chrono::Duration::hours(24);

/// How far back the feed reaches; 5 minutes less than its 7 days, so that a listing never starts on the edge.
pub const FEED_MEMORY: chrono::Duration = chrono::Duration::minutes(7 * 24 * 60 - 5);

/// How long before it became available a record may have been made, when an export is asked for in place of the feed: one
/// was seen 53 hours late.
pub const CONTENT_LATE: chrono::Duration = chrono::Duration::days(3);

/// Time that one request to Graph takes, for an estimate only: 100 to 500 ms are usual.
pub const REQUEST_TIME: Duration = Duration::from_millis(300);

/// Bytes hashed in a second, for an estimate only: MD5 and SHA-256 in turn on one core.
pub const HASHED_BYTES_PER_SECOND: u64 = 500_000_000;

/// Bytes of a file that are read at a time.
pub const FILE_PIECE_BYTES: usize = 256 * 1024;

/// Lines of a damaged CSV row after each of which a new row is looked for, before the whole row is given up.
pub const CSV_RETRIES: u32 = 100;

/// Bytes of one blob's unreadable records that are held until it was read to its end.
pub const UNREADABLE_BYTES: usize = 64 * 1024 * 1024;

/// How long a window that was read is listed again, with the same boundaries, because content may be listed later than
/// it was created. Microsoft promises no latency; anomalies of hours are normal.
pub const WINDOW_SETTLES: chrono::Duration = chrono::Duration::hours(12);

/// Age of a send up to which a missing message counts as "not there yet" and is owed.
pub const MESSAGE_AWAITED: chrono::Duration = chrono::Duration::hours(48);

/// Age of a send up to which a hash that failed is tried again by later runs.
pub const HASH_AWAITED: chrono::Duration = chrono::Duration::days(14);

/// Record ids that a checkpoint remembers, about 2 MB of it. They only save requests (the lake itself decides what is new),
/// so the oldest may go.
pub const SEEN_RECORDS: usize = 50_000;

/// Record ids that a run remembers of itself, so that it asks only once for what the feed repeats: 18 MB.
pub const RECORDS_REMEMBERED: usize = 900_000;

/// How long a record id is remembered: as long as the feed can repeat it.
pub const SEEN_TIME: chrono::Duration = chrono::Duration::days(8);

/// Reads of one attachment before it is owed to a later run.
pub const HASH_ATTEMPTS: u32 = 4;

/// Bytes that the store adds to a file's own without causing doubt: 200 to 300 were seen (microsoft-graph-docs#9796), and
/// Outlook keeps a file's icon beside it.
pub const STORE_OVERHEAD_BYTES: u64 = 8 * 1024;

/// Bytes that one attachment gathers before they go to the CPU pool: about 0.1 ms of work there, and less side by side.
/// What remains of it in the end, which is all of a small one, is hashed where it arrives.
pub const HASH_PIECE_BYTES: usize = 64 * 1024;

/// Attachments whose bytes flow at once, large ones counted by their weight.
pub const STREAMS_AT_ONCE: usize = 64;

/// Streams that an attachment of more than [`SMALL_BYTES`] counts for. On a fast network each of those holds up to 1 MB,
/// as the HTTP client reads up to 400 KB at a time and ahead of the hash; 32 of them keep the cores busy all the same.
pub const LARGE_STREAM_WEIGHT: u32 = 2;

/// Size up to which an attachment needs little memory while its bytes flow.
pub const SMALL_BYTES: u64 = 256 * 1024;

/// First bytes of an attachment from which its type is detected; enough for the formats inside ZIP and OLE containers.
pub const SNIFF_BYTES: usize = 8 * 1024;

/// Shards of a connection. Each reads the whole feed by itself and commits to the same table, so more of them spend more
/// on that than they win; and all of them at once stay below [`COMMIT_ATTEMPTS`].
pub const SHARDS_MAX: u32 = 32;

/// Event ids of the table that a run holds, at 16 bytes, before it forgets the days that it is no longer at: 32 MB. The days
/// of one commit are held whole.
pub const EVENTS_INDEXED: usize = 2_000_000;

/// Bytes of the tables' logs that a run keeps, so that it asks for each entry once; a version has about 3 KB.
pub const LOG_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of one entry of a log that are kept; a checkpoint of a few thousand files has more.
pub const LOG_ENTRY_BYTES: u64 = 2 * 1024 * 1024;

/// Entries of a log that are read at once: a checkpoint, and the twenty versions that come before the next one.
pub const LOG_ENTRIES_AT_ONCE: usize = 21;

/// Tries of one commit against other writers. Each loses only to a writer that made progress.
pub const COMMIT_ATTEMPTS: u32 = 50;

/// Bytes of a refusal's body that are looked at: an error document has a few hundred.
pub const REFUSAL_BYTES: usize = 64 * 1024;

/// Times that a listing begins anew because the service lost its place between two pages.
pub const LISTING_RESTARTS: u32 = 3;

/// Part of a token's life after which a new one is asked for while the old one still works, in percent.
pub const TOKEN_REFRESH_PERCENT: u32 = 80;

/// Life of a token whose answer does not tell it; the feed's guide suggests a new one every 45 minutes.
pub const TOKEN_LIFE: Duration = Duration::from_secs(45 * 60);

/// Difference between this machine's clock and the service's from which it is blamed for a refusal; Entra tolerates as much.
pub const CLOCK_SKEW: chrono::Duration = chrono::Duration::minutes(5);

/// Age of a send from which a message that is in no folder is looked for among the recoverable items.
pub const MESSAGE_SETTLES: chrono::Duration = chrono::Duration::minutes(5);

/// Messages of one internet message id per page; more than a few are copies, which come on further pages.
pub const MESSAGES_PER_PAGE: usize = 25;

/// Entries of a directory page: the largest that the service gives.
pub const DIRECTORY_PAGE: usize = 999;

/// Entries of a scope that are looked up one by one; for more of them, reading the directory whole costs less.
pub const SINGLE_LOOKUPS: usize = 20;

/// Findings about a scope that are kept in full; the rest is counted. Nobody mends more of them at once, and each run
/// logs and reports them.
pub const SCOPE_FINDINGS: usize = 1_000;

/// People or entries that one finding names.
pub const NAMES_LISTED: usize = 10;

/// Mailboxes whose limiter is remembered before idle ones are forgotten. About 200 bytes each.
pub const MAILBOXES_REMEMBERED: usize = 10_000;

/// Memory of an export's query, in megabytes, where nothing else is said.
pub const EXPORT_MEMORY_MB: u64 = 1024;

/// How long memory that was freed is kept before it goes back to the system. A tenth of the allocator's own time: it costs a
/// run nothing that can be measured, and its peak is a tenth lower.
pub const FREED_MEMORY_KEPT: Duration = Duration::from_millis(100);

/// The same where queries are answered, so that the next one has it.
pub const QUERY_FREED_MEMORY_KEPT: Duration = Duration::from_secs(30);

/// The least memory of one query, in megabytes: a sort reserves ten of them for each core.
pub const QUERY_MEMORY_MB_LEAST: u64 = 128;

/// Reads of one blob whose body breaks off, before it is owed to a later run.
pub const BLOB_READS: u32 = 3;

/// Times that pages of one listing may come again: an empty page was seen to name itself as the next one.
pub const PAGE_REPEATS: usize = 100;

/// How long audit content of Exchange takes at least, as a rule, before it becomes available (60 to 90 minutes).
pub const FEED_LATENCY: chrono::Duration = chrono::Duration::hours(1);

/// Age of a file that nothing names, from which it may be deleted. Younger ones may belong to a commit under way.
pub const VACUUM_AFTER_MIN: chrono::Duration = chrono::Duration::hours(1);

/// How long fresh consent may take to be in force everywhere; Microsoft's own figure.
pub const CONSENT_SPREADS: chrono::Duration = chrono::Duration::hours(1);

/// How long the first content of a new subscription may take:
/// <https://learn.microsoft.com/office/office-365-management-api/troubleshooting-the-office-365-management-activity-api>.
pub const CONTENT_AWAITED: chrono::Duration = chrono::Duration::hours(12);

/// Age of the newest audit content from which silence is suspicious: a weekend in a small office is no fault.
pub const CONTENT_SILENT: chrono::Duration = chrono::Duration::hours(48);

/// Connections to the server at once. A browser takes about six; each costs some 50 KB.
pub const SERVE_CONNECTIONS: usize = 512;

/// Time for TLS and for a request's headers to arrive, and for a connection without a request: whoever sends a byte a
/// minute holds a place for nothing.
pub const SERVE_HEADER_TIME: Duration = Duration::from_secs(15);

/// Bytes of a request's headers; cookies and addresses need a few thousand.
pub const SERVE_HEADER_BYTES: usize = 64 * 1024;

/// Time for one request, its upload included.
pub const SERVE_REQUEST_TIME: Duration = Duration::from_secs(120);

/// Time for the requests under way to end when the server is stopped.
pub const SERVE_STOP_TIME: Duration = Duration::from_secs(10);

/// Bytes of a request's body: a form has a few hundred.
pub const SERVE_BODY_BYTES: usize = 1024 * 1024;

/// Bytes of an upload: a list of a million people.
pub const SERVE_UPLOAD_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a body that is too large that are taken and thrown away, so that its sender hears the refusal.
pub const SERVE_DISCARD_BYTES: usize = 256 * 1024 * 1024;

/// Fields of a form.
pub const SERVE_FORM_FIELDS: usize = 100;

/// People who are signed in at once; those who were idle longest are signed out. Under 1 KB each.
pub const SESSIONS: usize = 10_000;

/// Time without a request after which a session ends.
pub const SESSION_IDLE: chrono::Duration = chrono::Duration::hours(1);

/// Time after which a session ends however busy it is, so that a role that was taken away is gone within a day's work.
pub const SESSION_LIFE: chrono::Duration = chrono::Duration::hours(12);

/// Sign-ins that were begun and not finished; the oldest are forgotten. Under 1 KB each.
pub const SIGN_INS: usize = 10_000;

/// Time to sign in at the provider, a second factor included.
pub const SIGN_IN_LIFE: chrono::Duration = chrono::Duration::minutes(10);

/// Times that a request to the sign-in provider is sent: a person waits for it.
pub const SIGN_IN_ATTEMPTS: u32 = 3;

/// Age from which the provider's keys are fetched anew: providers change them every few weeks, and announce it.
pub const PROVIDER_KEYS_LIFE: chrono::Duration = chrono::Duration::hours(24);

/// Pause between two fetches of the provider's keys because a token names an unknown one.
pub const PROVIDER_KEYS_PAUSE: chrono::Duration = chrono::Duration::minutes(5);

/// Longest life of an API token: what nobody renews is nobody's.
pub const TOKEN_LIFE_MAX: chrono::Duration = chrono::Duration::days(400);

/// How long an administrator may take on the consent page before the console forgets that it asked.
pub const CONSENT_ANSWERED: chrono::Duration = chrono::Duration::minutes(10);

/// Requests for consent that the console remembers; more than a few administrators at once are an attack.
pub const CONSENTS_PENDING: usize = 100;

/// By how much `waybill schedule` delays a job's start at most, unless its file says otherwise: enough that the jobs of
/// one minute, and the machines of one hour, do not sign in at the same instant.
pub const JITTER: chrono::Duration = chrono::Duration::minutes(1);

/// The longest jitter that a job file may ask for; longer ones mean another cron expression.
pub const JITTER_MAX: chrono::Duration = chrono::Duration::days(1);

/// Missed fires of a job that are counted; beyond it the number says nothing, and counting takes time.
pub const FIRES_COUNTED: usize = 10_000;

/// By how much a clock may be set back before a schedule begins anew; less is waited out, so that no fire comes twice.
pub const CLOCK_SET_BACK: chrono::Duration = chrono::Duration::hours(1);

/// The longest sleep of `waybill schedule`: job files are reread and a clock that jumped is noticed after it.
pub const SCHEDULE_TICK: Duration = Duration::from_secs(15);

/// Time without a tick after which the health page of `waybill schedule` says that its loop is stuck.
pub const SCHEDULE_STUCK: Duration = Duration::from_secs(120);

/// Bytes of one statement: the longest that tools write have some hundred thousand, for lists of hashes.
pub const STATEMENT_BYTES: usize = 1024 * 1024;

/// Queries at work at once, over all who ask; each may take its part of the machine's memory.
pub const QUERIES_AT_ONCE: usize = 8;

/// How long a person who stopped a query waits for it to end.
pub const QUERY_STOP_AWAITED: Duration = Duration::from_secs(2);

/// How long a query waits for one of the places before it is told to come back.
pub const QUERY_PLACE_AWAITED: Duration = Duration::from_secs(10);

/// Time that the engine works on one query of somebody who asks a server.
pub const QUERY_TIME: Duration = Duration::from_secs(300);

/// Rows of one answer over a wire of SQL; whoever needs more exports them.
pub const QUERY_ROWS: u64 = 10_000_000;

/// Rows that a query groups before it judges whether grouping them early makes them fewer. DataFusion's own number is
/// 100,000, for each core: with files of 10,000 rows most of a lake's quarter.
pub const QUERY_PROBED_ROWS: usize = 20_000;

/// How often a table's log is listed although its next version is not there: the log of a table that nobody asked for a
/// month may have been tidied past it.
pub const LOG_LISTED_EVERY: Duration = Duration::from_secs(60 * 60);

/// Files that a query, or a merge, reads at once from a storage across a network, where each of its few requests for a file is waited for.
pub const FAR_FILES_AT_ONCE: usize = 16;

/// Files whose event ids a commit reads at once: of a large one some 10 MB are held meanwhile.
pub const FILES_INDEXED_AT_ONCE: usize = 4;

/// Bytes of Parquet footers and page indexes that are kept between queries: about 100 KB for a file of 100,000 rows.
pub const QUERY_CACHE_BYTES: usize = 256 * 1024 * 1024;

/// Bytes on disk that queries spill to, together.
pub const QUERY_SPILL_BYTES: u64 = 20 * 1024 * 1024 * 1024;

/// How often the record of searches is written: what is lost at most when a server is killed, and 8,640 commits a day.
pub const SEARCHES_WRITTEN_EVERY: Duration = Duration::from_secs(10);

/// Searches that wait to be recorded before nobody is answered any more. About 1 KB each.
pub const SEARCHES_WAITING: usize = 10_000;

/// Bytes of a search's text that are recorded.
pub const SEARCH_TEXT_KEPT_BYTES: usize = 64 * 1024;

/// Bytes of the address of a search in the console: a list of some hundred hashes, and what browsers and proxies take.
pub const CONSOLE_ADDRESS_BYTES: usize = 32 * 1024;

/// Groups within groups that the console's builder shows side by side; deeper ones nobody can read.
pub const CONSOLE_GROUP_DEPTH: usize = 5;

/// Filters that the console's builder shows; each is a row with every field to choose from.
pub const CONSOLE_FILTERS: usize = 100;

/// Bars of the console's histogram; more are thinner than a line.
pub const CONSOLE_BARS: i64 = 100;

/// Events on a page of the console.
pub const CONSOLE_PAGE_ROWS: usize = 100;

/// Lines of each table that say who had a file.
pub const CONSOLE_HOLDERS: usize = 200;

/// Bytes at the end of a data file in which its footer is expected, and of a small one its page index: one request instead of two.
pub const FOOTER_BYTES: usize = 64 * 1024;

/// Bytes of bloom filters that are kept between queries: four for each row and looked-up column, so 30 million rows.
pub const BLOOMS_BYTES: usize = 128 * 1024 * 1024;

/// Bytes of bloom filters that one look-up reads in order to keep them. So the first one in a large lake stays quick, and the
/// sixteenth finds [`BLOOMS_BYTES`] of them.
pub const BLOOMS_READ_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes of a bloom filter that are read in the time of one block of it: a request more, on this machine or to a storage.
pub const BLOOM_BLOCK_COST_BYTES: u64 = 8 * 1024;

/// Files whose bloom filters are asked at once.
pub const BLOOMS_AT_ONCE: usize = 32;

/// Filters of one search, as the replaced product has it: "criteria in one query".
pub const SEARCH_FILTERS: usize = 1024;

/// Values of one search over all its filters: a list of hashes from an incident; their SQL stays below
/// [`STATEMENT_BYTES`].
pub const SEARCH_VALUES: usize = 10_000;

/// Values with wildcards of one search: each is a pattern that is tried on every row.
pub const SEARCH_PATTERNS: usize = 1_000;

/// Letters of one value: a subject has at most 998, and a line of a header no more (RFC 5322 §2.1.1).
pub const SEARCH_VALUE_LETTERS: usize = 2_048;

/// Groups of a search within groups. The parser of SQL stops at 50 levels, of which a group takes up to three.
pub const SEARCH_DEPTH: usize = 10;

/// Levels of a statement's tree: a chain of operators has one for each. Planning takes a few KB of stack for a level.
pub const STATEMENT_DEPTH: usize = 1_000;

/// Bytes of a thread's stack, reserved and not taken: enough to plan [`STATEMENT_DEPTH`] levels in a build without
/// optimisation, where frames are large.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of the rules of risk: the default ones have 4 KB, and a trusted domain takes 70.
pub const RISK_RULES_BYTES: usize = 1024 * 1024;

/// Indicators of risk; each is evaluated for every event that is asked about.
pub const RISK_INDICATORS: usize = 200;

/// Points of one indicator; so that no sum overflows.
pub const RISK_WEIGHT: i64 = 1000;

/// Days that the history of a destination looks back at most: two years.
pub const RISK_HISTORY_DAYS: u32 = 731;

/// Saved searches of a lake; they are read as one document, of which each takes 1 to 10 KB.
pub const SAVED_SEARCHES: usize = 1_000;

/// Letters of the notes of a saved search.
pub const SAVED_SEARCH_NOTES_LETTERS: usize = 2_000;

/// Columns of a saved search; there are fewer terms than that.
pub const SAVED_SEARCH_COLUMNS: usize = 200;

/// Events of one page of the API, as the replaced product has it. About 25 MB of JSON.
pub const API_PAGE_EVENTS: usize = 10_000;

/// The last page that can be asked for by its number; whoever wants more events takes tokens, which cost the same for every
/// page.
pub const API_PAGES: usize = 100_000;

/// Groups of one answer of the API, unless the request says how many.
pub const API_GROUPS_USUALLY: usize = 1_000;

/// Groups of one answer of the API at most, as the replaced product has it.
pub const API_GROUPS: usize = 10_000;

/// Seconds after which a client asks again that was told that too many queries are at work.
pub const API_RETRY_AFTER_SECONDS: u64 = 5;

/// How long the total of a search counts for its later pages, as long as page tokens of the replaced product live: to count
/// anew for every page would cost more than the pages.
pub const API_TOTAL_KEPT: chrono::Duration = chrono::Duration::minutes(15);

/// Totals that are kept.
pub const API_TOTALS: usize = 1_000;

/// Seconds after which a client of the API asks for its bearer token again, as with the replaced product.
pub const API_TOKEN_SECONDS: u64 = 900;

/// Bytes of one message of Flight SQL on its way in: a statement, or a row of values.
pub const FLIGHT_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Requests of one connection of Flight SQL that are served at once.
pub const FLIGHT_REQUESTS_PER_CONNECTION: usize = 64;

/// How often a silent connection of Flight SQL is asked whether it is still there, and how long it may take to answer.
pub const FLIGHT_KEEPALIVE: Duration = Duration::from_secs(20);

/// Connections of the Postgres wire protocol; a BI tool holds some open for each of its users. An idle one takes about 1 MB.
pub const POSTGRES_CONNECTIONS: usize = 200;

/// How long a listener waits that could not accept a connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether a client of the Postgres protocol, who has sent something more, is still there.
pub const POSTGRES_WATCHED_EVERY: Duration = Duration::from_secs(1);

/// Parameters of one statement: as many as the Postgres protocol can count.
pub const STATEMENT_PARAMETERS: usize = 65_535;

/// Rows of a table for a person whose widths are found together; later ones follow in blocks of as many. Keeps the memory
/// of a table of any length below a hundred MB.
pub const TABLE_ROWS: usize = 10_000;

/// Bytes of cells after which a block of a table ends before it has [`TABLE_ROWS`].
pub const TABLE_BYTES: usize = 16 * 1024 * 1024;

/// Batches of an answer (8,192 rows each) that wait to be written while the next ones are computed.
pub const BATCHES_AHEAD: usize = 2;

/// Rows of a row group in a Parquet file that somebody asked for; what of it is not written yet is in memory.
pub const PARQUET_GROUP_ROWS: usize = 100_000;

/// How long a query works before somebody at a terminal is told how far it is: shorter ones need no flicker.
pub const QUERY_SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Bytes of a file of statements. Each statement in it has [`STATEMENT_BYTES`] at most.
pub const SCRIPT_BYTES: u64 = 64 * 1024 * 1024;

/// Files of statements that include each other, one within another; a file that includes itself ends here.
pub const SCRIPT_DEPTH: usize = 16;

/// Statements that the shell's history remembers.
pub const SHELL_HISTORY: usize = 5_000;

/// Bytes of the history file that are read at the start of a shell; [`SHELL_HISTORY`] statements of people are below it.
pub const SHELL_HISTORY_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes of rows that are gathered before the system writes them.
pub const FILE_BUFFER_BYTES: usize = 256 * 1024;

/// Megabytes of one exported file, at most: it is held in memory and put at once.
pub const EXPORT_FILE_MB: u64 = 1024;

/// Rows of an exported file after which its size is looked at: below a megabyte of the widest view.
pub const EXPORT_ROWS_CHECKED: usize = 512;
