-- OCSF class 4009, Email Activity, version 1.5.0 (the first with files in an email): https://schema.ocsf.io/1.5.0/classes/email_activity
-- One event per attachment, so that an event never changes because another attachment of its message does, and a look-up by hash
-- costs no more than one in file_events; events of one message share email.message_uid.
CREATE VIEW ocsf_email_activity AS
SELECT
    CAST(1 AS INT) AS activity_id,
    'Send' AS activity_name,
    CAST(4 AS INT) AS category_uid,
    'Network Activity' AS category_name,
    CAST(4009 AS INT) AS class_uid,
    'Email Activity' AS class_name,
    CAST(400901 AS BIGINT) AS type_uid,
    'Email Activity: Send' AS type_name,
    CAST(1 AS INT) AS severity_id,
    'Informational' AS severity,
    CAST(observed_at AS BIGINT) / 1000 AS time,
    observed_at AS time_dt,
    named_struct(
        'version', '1.5.0', 'profiles', make_array('datetime'), 'uid', event_id, 'correlation_uid', internet_message_id,
        'tenant_uid', tenant_id, 'logged_time', CAST(inserted_at AS BIGINT) / 1000, 'logged_time_dt', inserted_at,
        'product', named_struct('name', 'Waybill', 'vendor_name', 'Waybill')) AS metadata,
    CAST(CASE WHEN cardinality(recipient_domains) = 0 OR sender IS NULL THEN 0
         WHEN cardinality(array_remove_all(recipient_domains, domain_of(sender))) = 0 THEN 3 ELSE 2 END AS INT) AS direction_id,
    named_struct(
        'from', coalesce(from_address, sender, mailbox), 'to', CASE WHEN cardinality(to_recipients) > 0 THEN to_recipients ELSE recipients END,
        'cc', cc_recipients, 'smtp_from', sender, 'smtp_to', recipients, 'subject', subject,
        'message_uid', internet_message_id,
        'files', make_array(named_struct(
            'name', coalesce(file_name, ''), 'type_id', CAST(1 AS INT), 'type', 'Regular File',
            'mime_type', mime_type, 'size', file_size_bytes,
            'uid', attachment_id, 'hashes', CASE WHEN sha256 IS NOT NULL THEN make_array(
            named_struct('algorithm', 'MD5', 'algorithm_id', CAST(1 AS INT), 'value', md5),
            named_struct('algorithm', 'SHA-256', 'algorithm_id', CAST(3 AS INT), 'value', sha256)) END))) AS email
FROM file_events;

COMMENT ON VIEW ocsf_email_activity IS 'Sends as events of OCSF 1.5.0, class 4009 Email Activity: one event per attachment.';
COMMENT ON COLUMN ocsf_email_activity.activity_id IS '1: Send.';
COMMENT ON COLUMN ocsf_email_activity.activity_name IS 'Always `Send`.';
COMMENT ON COLUMN ocsf_email_activity.category_uid IS '4: Network Activity.';
COMMENT ON COLUMN ocsf_email_activity.category_name IS 'Always `Network Activity`.';
COMMENT ON COLUMN ocsf_email_activity.class_uid IS '4009: Email Activity.';
COMMENT ON COLUMN ocsf_email_activity.class_name IS 'Always `Email Activity`.';
COMMENT ON COLUMN ocsf_email_activity.type_uid IS '400901: Email Activity: Send.';
COMMENT ON COLUMN ocsf_email_activity.type_name IS 'Always `Email Activity: Send`.';
COMMENT ON COLUMN ocsf_email_activity.severity_id IS '1: Informational; an event that is seen, not judged. The view `events` judges.';
COMMENT ON COLUMN ocsf_email_activity.severity IS 'Always `Informational`.';
COMMENT ON COLUMN ocsf_email_activity.time IS 'When the message was sent, milliseconds since 1970.';
COMMENT ON COLUMN ocsf_email_activity.time_dt IS 'The same as a timestamp, UTC; filter on it to read less.';
COMMENT ON COLUMN ocsf_email_activity.metadata IS 'The version 1.5.0 of OCSF, the event id as `uid`, the Message-ID as `correlation_uid`, when it became searchable.';
COMMENT ON COLUMN ocsf_email_activity.direction_id IS '2 outbound, 3 internal (all recipients have the sender''s domain), 0 unknown.';
COMMENT ON COLUMN ocsf_email_activity.email IS 'The message: from, to, cc, smtp_from (the sender), smtp_to (all recipients, bcc included), subject, message_uid and files, of which this event has one.';
