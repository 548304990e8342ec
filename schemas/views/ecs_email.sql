-- Elastic Common Schema 8.17: event, email, related and ecs: https://www.elastic.co/guide/en/ecs/8.17/ecs-email.html
-- One document per attachment: event.id is that of the file event, and email.attachments has one element. As NDJSON the rows are
-- documents that Elasticsearch takes as they are.
CREATE VIEW ecs_email AS
SELECT
    observed_at AS "@timestamp",
    named_struct('version', '8.17.0') AS ecs,
    named_struct(
        'kind', 'event', 'category', make_array('email', 'file'), 'type', make_array('info'), 'action', event_action,
        'module', 'waybill',
        'dataset', 'waybill.file_events', 'id', event_id, 'created', inserted_at, 'ingested', inserted_at) AS event,
    named_struct(
        'from', named_struct('address', CASE WHEN from_address IS NOT NULL THEN make_array(from_address) END), 'sender', named_struct('address', sender),
        'to', named_struct('address', to_recipients), 'cc', named_struct('address', cc_recipients),
        'bcc', named_struct('address', bcc_recipients), 'subject', subject, 'message_id', btrim(internet_message_id, '<>'),
        'direction', CASE WHEN cardinality(recipient_domains) = 0 OR sender IS NULL THEN 'unknown'
            WHEN cardinality(array_remove_all(recipient_domains, domain_of(sender))) = 0 THEN 'internal' ELSE 'outbound' END,
        'origination_timestamp', observed_at,
        'attachments', make_array(named_struct('file', named_struct(
            'name', file_name, 'extension', file_extension, 'mime_type', mime_type, 'size', file_size_bytes,
            'hash', named_struct('md5', md5, 'sha256', sha256))))) AS email,
    named_struct(
        'hash', CASE WHEN md5 IS NOT NULL AND sha256 IS NOT NULL THEN make_array(md5, sha256)
            WHEN sha256 IS NOT NULL THEN make_array(sha256) WHEN md5 IS NOT NULL THEN make_array(md5) END,
        'user', CASE WHEN sender IS NULL THEN recipients ELSE array_distinct(array_concat(make_array(sender), recipients)) END) AS related
FROM file_events;

COMMENT ON VIEW ecs_email IS 'Sends as documents of the Elastic Common Schema: one document per attachment.';
COMMENT ON COLUMN ecs_email."@timestamp" IS 'When the message was sent, UTC.';
COMMENT ON COLUMN ecs_email.ecs IS 'The version of the schema.';
COMMENT ON COLUMN ecs_email.event IS 'kind, category, type, action, module, dataset, id (of the file event), created and ingested (when it became searchable).';
COMMENT ON COLUMN ecs_email.email IS 'from, sender, to, cc, bcc, subject, message_id (without angle brackets), direction, origination_timestamp and attachments, of which this document has one.';
COMMENT ON COLUMN ecs_email.related IS 'All hashes and all addresses of the event, to look them up in one field.';
