-- The table EmailEvents of Microsoft Defender's advanced hunting, 39 columns as on 2024-01-16:
-- https://learn.microsoft.com/defender-xdr/advanced-hunting-emailevents-table
-- One row per message and recipient, as there, of messages that have an attachment; groups are not expanded.
-- Named without quotes, the view has its columns in lower case, so that nothing in a query needs quotes.
CREATE VIEW "EmailEvents" AS
SELECT
    observed_at AS "Timestamp",
    CAST(NULL AS VARCHAR) AS "NetworkMessageId",
    internet_message_id AS "InternetMessageId",
    sender AS "SenderMailFromAddress",
    from_address AS "SenderFromAddress",
    CAST(NULL AS VARCHAR) AS "SenderDisplayName",
    CAST(NULL AS VARCHAR) AS "SenderObjectId",
    domain_of(sender) AS "SenderMailFromDomain",
    domain_of(from_address) AS "SenderFromDomain",
    CAST(NULL AS VARCHAR) AS "SenderIPv4",
    CAST(NULL AS VARCHAR) AS "SenderIPv6",
    unnest(CASE WHEN cardinality(recipients) > 0 THEN recipients ELSE make_array(CAST(NULL AS VARCHAR)) END) AS "RecipientEmailAddress",
    CAST(NULL AS VARCHAR) AS "RecipientObjectId",
    subject AS "Subject",
    CAST(NULL AS BIGINT) AS "EmailClusterId",
    CASE WHEN cardinality(recipient_domains) = 0 OR sender IS NULL THEN CAST(NULL AS VARCHAR)
         WHEN cardinality(array_remove_all(recipient_domains, domain_of(sender))) = 0 THEN 'Intra-org' ELSE 'Outbound' END AS "EmailDirection",
    CAST(NULL AS VARCHAR) AS "DeliveryAction",
    CAST(NULL AS VARCHAR) AS "DeliveryLocation",
    CAST(NULL AS VARCHAR) AS "ThreatTypes",
    CAST(NULL AS VARCHAR) AS "ThreatNames",
    CAST(NULL AS VARCHAR) AS "DetectionMethods",
    CAST(NULL AS VARCHAR) AS "ConfidenceLevel",
    CAST(NULL AS INT) AS "BulkComplaintLevel",
    CAST(NULL AS VARCHAR) AS "EmailAction",
    CAST(NULL AS VARCHAR) AS "EmailActionPolicy",
    CAST(NULL AS VARCHAR) AS "EmailActionPolicyGuid",
    CAST(NULL AS VARCHAR) AS "AuthenticationDetails",
    CAST(count(*) AS INT) AS "AttachmentCount",
    CAST(NULL AS INT) AS "UrlCount",
    CAST(NULL AS VARCHAR) AS "EmailLanguage",
    CAST(NULL AS VARCHAR) AS "Connectors",
    CAST(NULL AS VARCHAR) AS "OrgLevelAction",
    CAST(NULL AS VARCHAR) AS "OrgLevelPolicy",
    CAST(NULL AS VARCHAR) AS "UserLevelAction",
    CAST(NULL AS VARCHAR) AS "UserLevelPolicy",
    min(event_id) AS "ReportId",
    CAST(NULL AS VARCHAR) AS "AdditionalFields",
    CAST(NULL AS VARCHAR) AS "LatestDeliveryLocation",
    CAST(NULL AS VARCHAR) AS "LatestDeliveryAction"
FROM file_events
GROUP BY observed_at, internet_message_id, sender, from_address, mailbox, recipients, recipient_domains, subject,
    CASE WHEN internet_message_id IS NULL THEN event_id END;

COMMENT ON VIEW "EmailEvents" IS 'Messages with attachments in the columns of Microsoft Defender: one row per message and recipient.';
COMMENT ON COLUMN "EmailEvents"."Timestamp" IS 'When the message was sent, UTC.';
COMMENT ON COLUMN "EmailEvents"."NetworkMessageId" IS 'Always null: Defender''s own id of the message, which neither the audit log nor Graph tells.';
COMMENT ON COLUMN "EmailEvents"."InternetMessageId" IS 'Message-ID header with its angle brackets.';
COMMENT ON COLUMN "EmailEvents"."SenderMailFromAddress" IS 'Address of the account that sent the message, in lower case.';
COMMENT ON COLUMN "EmailEvents"."SenderFromAddress" IS 'Address that the message shows as its author, in lower case.';
COMMENT ON COLUMN "EmailEvents"."SenderDisplayName" IS 'Always null: the directory is not asked.';
COMMENT ON COLUMN "EmailEvents"."SenderObjectId" IS 'Always null: the directory is not asked.';
COMMENT ON COLUMN "EmailEvents"."SenderMailFromDomain" IS 'Domain of the account that sent the message.';
COMMENT ON COLUMN "EmailEvents"."SenderFromDomain" IS 'Domain of the address that the message shows as its author.';
COMMENT ON COLUMN "EmailEvents"."SenderIPv4" IS 'Always null: it is the address of a mail server, which is not recorded.';
COMMENT ON COLUMN "EmailEvents"."SenderIPv6" IS 'Always null: it is the address of a mail server, which is not recorded.';
COMMENT ON COLUMN "EmailEvents"."RecipientEmailAddress" IS 'One of the recipients (to, cc or bcc) in lower case; null when none is known.';
COMMENT ON COLUMN "EmailEvents"."RecipientObjectId" IS 'Always null: the directory is not asked.';
COMMENT ON COLUMN "EmailEvents"."Subject" IS 'Subject of the message.';
COMMENT ON COLUMN "EmailEvents"."EmailClusterId" IS 'Always null: messages are not clustered.';
COMMENT ON COLUMN "EmailEvents"."EmailDirection" IS '`Intra-org` when all recipients have the sender''s domain, `Outbound` otherwise; null when it is unknown.';
COMMENT ON COLUMN "EmailEvents"."DeliveryAction" IS 'Always null: what became of the message after it was sent is not recorded.';
COMMENT ON COLUMN "EmailEvents"."DeliveryLocation" IS 'Always null: what became of the message after it was sent is not recorded.';
COMMENT ON COLUMN "EmailEvents"."ThreatTypes" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."ThreatNames" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."DetectionMethods" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."ConfidenceLevel" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."BulkComplaintLevel" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."EmailAction" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."EmailActionPolicy" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."EmailActionPolicyGuid" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."AuthenticationDetails" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."AttachmentCount" IS 'Number of attachments of the message that are in the lake.';
COMMENT ON COLUMN "EmailEvents"."UrlCount" IS 'Always null: bodies are not read.';
COMMENT ON COLUMN "EmailEvents"."EmailLanguage" IS 'Always null: bodies are not read.';
COMMENT ON COLUMN "EmailEvents"."Connectors" IS 'Always null: the mail flow is not recorded.';
COMMENT ON COLUMN "EmailEvents"."OrgLevelAction" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."OrgLevelPolicy" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."UserLevelAction" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."UserLevelPolicy" IS 'Always null: Waybill does not judge messages.';
COMMENT ON COLUMN "EmailEvents"."ReportId" IS 'Id of one of the file events of the message.';
COMMENT ON COLUMN "EmailEvents"."AdditionalFields" IS 'Always null: there are none.';
COMMENT ON COLUMN "EmailEvents"."LatestDeliveryLocation" IS 'Always null: what became of the message after it was sent is not recorded.';
COMMENT ON COLUMN "EmailEvents"."LatestDeliveryAction" IS 'Always null: what became of the message after it was sent is not recorded.';
