-- File events under the names of Code42's (Mimecast Incydr's) file event model v2: the terms of its API and its exports.
-- https://developer.code42.com/api/#tag/File-Events (PyPI incydr 2.12.5); the names that a mail event can fill.
-- One row per attachment. Names are flat and need quotes ("file.hash.md5"): every tool shows a column, and a filter on it is one
-- on a column of the lake.
CREATE VIEW code42_file_events AS
SELECT
    observed_at AS "@timestamp",
    event_id AS "event.id",
    event_action AS "event.action",
    inserted_at AS "event.inserted",
    inserted_at AS "event.ingested",
    'Office365' AS "event.observer",
    'EMAILED' AS "event.vector",
    connection_name AS "event.detectorDisplayName",
    coalesce(mailbox, sender) AS "user.email",
    'Email' AS "source.category",
    sender AS "source.email.sender",
    from_address AS "source.email.from",
    'Email' AS "destination.category",
    recipients AS "destination.email.recipients",
    subject AS "destination.email.subject",
    file_name AS "file.name",
    file_category AS "file.category",
    file_size_bytes AS "file.sizeInBytes",
    mime_type AS "file.mimeType",
    mime_type_by_bytes AS "file.mimeTypeByBytes",
    mime_type_by_extension AS "file.mimeTypeByExtension",
    md5 AS "file.hash.md5",
    sha256 AS "file.hash.sha256",
    hash_error AS "file.hash.md5Error",
    hash_error AS "file.hash.sha256Error",
    attachment_id AS "file.id",
    source_url AS "file.url",
    risk_score AS "risk.score",
    risk_severity AS "risk.severity",
    risk_indicators AS "risk.indicators.name",
    risk_indicator_ids AS "risk.indicators.id",
    risk_indicator_weights AS "risk.indicators.weight",
    trusted AS "risk.trusted",
    trust_reason AS "risk.trustReason",
    untrusted_domains AS "risk.untrustedValues.domains"
FROM events;

COMMENT ON VIEW code42_file_events IS 'File events under the names of Code42''s model v2: one row per attachment; quote the dotted names.';
COMMENT ON COLUMN code42_file_events."@timestamp" IS 'When the message was sent, UTC.';
COMMENT ON COLUMN code42_file_events."event.id" IS 'Id of the file event.';
COMMENT ON COLUMN code42_file_events."event.action" IS 'Always `file-emailed`.';
COMMENT ON COLUMN code42_file_events."event.inserted" IS 'When the event, or its latest upgrade, became searchable, UTC.';
COMMENT ON COLUMN code42_file_events."event.ingested" IS 'The same as `event.inserted`.';
COMMENT ON COLUMN code42_file_events."event.observer" IS 'The data source: `Office365`.';
COMMENT ON COLUMN code42_file_events."event.vector" IS 'The way of movement: `EMAILED`.';
COMMENT ON COLUMN code42_file_events."event.detectorDisplayName" IS 'Display name of the connection.';
COMMENT ON COLUMN code42_file_events."user.email" IS 'User principal name of the mailbox''s owner, in lower case; the sender where that is not known.';
COMMENT ON COLUMN code42_file_events."source.category" IS 'Always `Email`.';
COMMENT ON COLUMN code42_file_events."source.email.sender" IS 'Address of the account that really sent the message, in lower case.';
COMMENT ON COLUMN code42_file_events."source.email.from" IS 'Address that the message shows as its author, in lower case.';
COMMENT ON COLUMN code42_file_events."destination.category" IS 'Always `Email`.';
COMMENT ON COLUMN code42_file_events."destination.email.recipients" IS 'All recipients (to, cc and bcc) in lower case.';
COMMENT ON COLUMN code42_file_events."destination.email.subject" IS 'Subject of the message.';
COMMENT ON COLUMN code42_file_events."file.name" IS 'Name of the file with its extension.';
COMMENT ON COLUMN code42_file_events."file.category" IS 'Kind of file.';
COMMENT ON COLUMN code42_file_events."file.sizeInBytes" IS 'Size of the file in bytes.';
COMMENT ON COLUMN code42_file_events."file.mimeType" IS 'Most likely content type.';
COMMENT ON COLUMN code42_file_events."file.mimeTypeByBytes" IS 'Content type that the bytes show.';
COMMENT ON COLUMN code42_file_events."file.mimeTypeByExtension" IS 'Content type that the extension claims.';
COMMENT ON COLUMN code42_file_events."file.hash.md5" IS 'MD5 of the file''s bytes, lower-case hexadecimal.';
COMMENT ON COLUMN code42_file_events."file.hash.sha256" IS 'SHA-256 of the file''s bytes, lower-case hexadecimal.';
COMMENT ON COLUMN code42_file_events."file.hash.md5Error" IS 'Why there is no hash.';
COMMENT ON COLUMN code42_file_events."file.hash.sha256Error" IS 'Why there is no hash.';
COMMENT ON COLUMN code42_file_events."file.id" IS 'Id of the attachment in Microsoft Graph.';
COMMENT ON COLUMN code42_file_events."file.url" IS 'Where the file of a reference attachment is stored.';
COMMENT ON COLUMN code42_file_events."risk.score" IS 'Sum of the weights of the risk indicators; 0 for a trusted event.';
COMMENT ON COLUMN code42_file_events."risk.severity" IS '`CRITICAL`, `HIGH`, `MODERATE`, `LOW` or `NO_RISK_INDICATED`.';
COMMENT ON COLUMN code42_file_events."risk.indicators.name" IS 'Names of the risk indicators that hold.';
COMMENT ON COLUMN code42_file_events."risk.indicators.id" IS 'Ids of the risk indicators, in the same order.';
COMMENT ON COLUMN code42_file_events."risk.indicators.weight" IS 'Weights of the risk indicators, in the same order.';
COMMENT ON COLUMN code42_file_events."risk.trusted" IS 'Whether each recipient domain was trusted when it was sent.';
COMMENT ON COLUMN code42_file_events."risk.trustReason" IS '`Trusted email recipient` when trusted.';
COMMENT ON COLUMN code42_file_events."risk.untrustedValues.domains" IS 'Recipient domains that were not trusted.';
