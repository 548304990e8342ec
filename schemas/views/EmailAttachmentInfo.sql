-- The table EmailAttachmentInfo of Microsoft Defender's advanced hunting, 15 columns as on 2023-12-29:
-- https://learn.microsoft.com/defender-xdr/advanced-hunting-emailattachmentinfo-table
-- One row per attachment and recipient, as there; groups among the recipients are not expanded.
-- Named without quotes, the view has its columns in lower case, so that nothing in a query needs quotes.
CREATE VIEW "EmailAttachmentInfo" AS
SELECT
    observed_at AS "Timestamp",
    CAST(NULL AS VARCHAR) AS "NetworkMessageId",
    from_address AS "SenderFromAddress",
    CAST(NULL AS VARCHAR) AS "SenderDisplayName",
    CAST(NULL AS VARCHAR) AS "SenderObjectId",
    unnest(CASE WHEN cardinality(recipients) > 0 THEN recipients ELSE make_array(CAST(NULL AS VARCHAR)) END) AS "RecipientEmailAddress",
    CAST(NULL AS VARCHAR) AS "RecipientObjectId",
    file_name AS "FileName",
    file_extension AS "FileType",
    sha256 AS "SHA256",
    file_size_bytes AS "FileSize",
    CAST(NULL AS VARCHAR) AS "ThreatTypes",
    CAST(NULL AS VARCHAR) AS "ThreatNames",
    CAST(NULL AS VARCHAR) AS "DetectionMethods",
    event_id AS "ReportId"
FROM file_events;

COMMENT ON VIEW "EmailAttachmentInfo" IS 'Attachments in the columns of Microsoft Defender: one row per attachment and recipient.';
COMMENT ON COLUMN "EmailAttachmentInfo"."Timestamp" IS 'When the message was sent, UTC.';
COMMENT ON COLUMN "EmailAttachmentInfo"."NetworkMessageId" IS 'Always null: Defender''s own id of the message, which neither the audit log nor Graph tells.';
COMMENT ON COLUMN "EmailAttachmentInfo"."SenderFromAddress" IS 'Address that the message shows as its author, in lower case.';
COMMENT ON COLUMN "EmailAttachmentInfo"."SenderDisplayName" IS 'Always null: the directory is not asked.';
COMMENT ON COLUMN "EmailAttachmentInfo"."SenderObjectId" IS 'Always null: the directory is not asked.';
COMMENT ON COLUMN "EmailAttachmentInfo"."RecipientEmailAddress" IS 'One of the recipients (to, cc or bcc) in lower case; null when none is known.';
COMMENT ON COLUMN "EmailAttachmentInfo"."RecipientObjectId" IS 'Always null: the directory is not asked.';
COMMENT ON COLUMN "EmailAttachmentInfo"."FileName" IS 'Base name of the attachment with its extension.';
COMMENT ON COLUMN "EmailAttachmentInfo"."FileType" IS 'Extension of the file in lower case without the dot.';
COMMENT ON COLUMN "EmailAttachmentInfo"."SHA256" IS 'SHA-256 of the file''s bytes, lower-case hexadecimal; null when there is no hash.';
COMMENT ON COLUMN "EmailAttachmentInfo"."FileSize" IS 'Size of the file in bytes.';
COMMENT ON COLUMN "EmailAttachmentInfo"."ThreatTypes" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailAttachmentInfo"."ThreatNames" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailAttachmentInfo"."DetectionMethods" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailAttachmentInfo"."ReportId" IS 'Id of the file event: the same for all recipients of the attachment.';
