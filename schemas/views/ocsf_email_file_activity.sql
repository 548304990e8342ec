-- OCSF class 4011, Email File Activity, version 1.1.0, which Amazon Security Lake validates: https://schema.ocsf.io/1.1.0/classes/email_file_activity
-- The class is deprecated since OCSF 1.3.0 in favour of 4009. One event per attachment.
CREATE VIEW ocsf_email_file_activity AS
SELECT
    CAST(1 AS INT) AS activity_id,
    'Send' AS activity_name,
    CAST(4 AS INT) AS category_uid,
    'Network Activity' AS category_name,
    CAST(4011 AS INT) AS class_uid,
    'Email File Activity' AS class_name,
    CAST(401101 AS BIGINT) AS type_uid,
    'Email File Activity: Send' AS type_name,
    CAST(1 AS INT) AS severity_id,
    'Informational' AS severity,
    CAST(observed_at AS BIGINT) / 1000 AS time,
    observed_at AS time_dt,
    named_struct(
        'version', '1.1.0', 'profiles', make_array('datetime'), 'uid', event_id, 'correlation_uid', internet_message_id,
        'tenant_uid', tenant_id, 'logged_time', CAST(inserted_at AS BIGINT) / 1000, 'logged_time_dt', inserted_at,
        'product', named_struct('name', 'Waybill', 'vendor_name', 'Waybill')) AS metadata,
    coalesce(internet_message_id, event_id) AS email_uid,
    named_struct(
            'name', coalesce(file_name, ''), 'type_id', CAST(1 AS INT), 'type', 'Regular File',
            'mime_type', mime_type, 'size', file_size_bytes,
            'uid', attachment_id, 'hashes', CASE WHEN sha256 IS NOT NULL THEN make_array(
            named_struct('algorithm', 'MD5', 'algorithm_id', CAST(1 AS INT), 'value', md5),
            named_struct('algorithm', 'SHA-256', 'algorithm_id', CAST(3 AS INT), 'value', sha256)) END) AS file
FROM file_events;

COMMENT ON VIEW ocsf_email_file_activity IS 'Attachments as events of OCSF 1.1.0, class 4011 Email File Activity: one event per attachment.';
COMMENT ON COLUMN ocsf_email_file_activity.activity_id IS '1: Send.';
COMMENT ON COLUMN ocsf_email_file_activity.activity_name IS 'Always `Send`.';
COMMENT ON COLUMN ocsf_email_file_activity.category_uid IS '4: Network Activity.';
COMMENT ON COLUMN ocsf_email_file_activity.category_name IS 'Always `Network Activity`.';
COMMENT ON COLUMN ocsf_email_file_activity.class_uid IS '4011: Email File Activity.';
COMMENT ON COLUMN ocsf_email_file_activity.class_name IS 'Always `Email File Activity`.';
COMMENT ON COLUMN ocsf_email_file_activity.type_uid IS '401101: Email File Activity: Send.';
COMMENT ON COLUMN ocsf_email_file_activity.type_name IS 'Always `Email File Activity: Send`.';
COMMENT ON COLUMN ocsf_email_file_activity.severity_id IS '1: Informational; an event that is seen, not judged. The view `events` judges.';
COMMENT ON COLUMN ocsf_email_file_activity.severity IS 'Always `Informational`.';
COMMENT ON COLUMN ocsf_email_file_activity.time IS 'When the message was sent, milliseconds since 1970.';
COMMENT ON COLUMN ocsf_email_file_activity.time_dt IS 'The same as a timestamp, UTC; filter on it to read less.';
COMMENT ON COLUMN ocsf_email_file_activity.metadata IS 'The version 1.1.0 of OCSF, the event id as `uid`, the Message-ID as `correlation_uid`, when it became searchable.';
COMMENT ON COLUMN ocsf_email_file_activity.email_uid IS 'Message-ID of the message; the event id where it is unknown.';
COMMENT ON COLUMN ocsf_email_file_activity.file IS 'The file: name, size, mime_type and hashes (algorithm_id 1 is MD5, 3 is SHA-256).';
