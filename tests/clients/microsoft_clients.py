"""Holds the simulated tenant to what Microsoft's own clients expect of the real one: `msal`, `msgraph-sdk` (with
`azure-identity`), and `O365`.

    microsoft_clients.py
"""

import asyncio
import base64
import datetime
import hashlib
import json
import os
import re
import shutil
import ssl
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import httpx
import jwt
import msal
from azure.identity import CertificateCredential, ClientSecretCredential
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_abstractions.method import Method
from kiota_abstractions.request_information import RequestInformation
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph import GraphRequestAdapter, GraphServiceClient
from msgraph.generated.groups.item.transitive_members.graph_user.graph_user_request_builder import GraphUserRequestBuilder
from msgraph.generated.models.file_attachment import FileAttachment
from msgraph.generated.models.group import Group
from msgraph.generated.models.item_attachment import ItemAttachment
from msgraph.generated.models.o_data_errors.o_data_error import ODataError
from msgraph.generated.models.user import User
from msgraph.generated.users.item.mail_folders.item.messages.messages_request_builder import MessagesRequestBuilder
from msgraph_core import GraphClientFactory
from O365 import Account, MSGraphProtocol
from O365.utils.token import MemoryTokenBackend

from support import CORPUS, run_checks, simulate

UsersQuery = GraphUserRequestBuilder.GraphUserRequestBuilderGetQueryParameters

GRAPH = "https://graph.microsoft.com/.default"
FEED = "https://manage.office.com/.default"

# Sales holds a person and the group Leads, which holds another one.
SALES, LEADS = "sales@corpus.example", "leads@corpus.example"
FIRST, NESTED = "first@corpus.example", "nested@corpus.example"


class Tenant:
    """What was announced, the certificate that the application registered, and what was sent."""

    def __init__(self, announcement, folder, key, certificate):
        self.announcement = announcement
        self.authority_file = str(folder / "authority.pem")
        self.key, self.certificate = key, certificate
        self.context = ssl.create_default_context(cafile=self.authority_file)
        truth = f"{announcement['login']}/_simulator/truth"
        with urllib.request.urlopen(truth, context=self.context) as answer:
            self.messages = json.load(answer)["messages"]

    def __getattr__(self, name):
        return self.announcement[name]

    @property
    def authority(self):
        return f"{self.login}/{self.tenant_id}"

    def application(self, credential):
        return msal.ConfidentialClientApplication(
            self.client_id,
            client_credential=credential,
            authority=self.authority,
            # Without this MSAL asks Microsoft itself whether it may trust another host.
            instance_discovery=False,
            verify=self.authority_file,
        )

    def pem(self):
        """The private key and the certificate as text."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key.decode(), self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def with_attachments(self):
        """The messages with attachments whose ids nobody shares, so that the client must find just this one."""
        ids = [message["internet_message_id"] for message in self.messages]
        return [each for each in self.messages if each["attachments"] and ids.count(each["internet_message_id"]) == 1]


tenant: Tenant


def make_certificate(name="waybill test"):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    return key, builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())


def digest(data):
    return hashlib.sha256(data).hexdigest()


def expected(message):
    """What a reader of this message's attachments must find."""
    return sorted((each["name"], each["kind"], each["sha256"]) for each in message["attachments"])


def one_of_each_kind():
    """Messages with files and with messages attached, one mailbox after the other."""
    messages = tenant.with_attachments()
    kinds = {each["kind"] for message in messages for each in message["attachments"]}
    assert kinds == {"file", "item"}, kinds
    return messages


# --- msal


def assert_token(result, audience, by):
    assert "access_token" in result, result
    assert result["token_type"] == "Bearer" and result["expires_in"] > 0, result
    payload = result["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (claims["aud"], claims["tid"], claims["appidacr"]) == (audience, tenant.tenant_id, by), claims


def msal_gets_a_token_with_a_secret():
    application = tenant.application(tenant.client_secret)
    assert_token(application.acquire_token_for_client([GRAPH]), "https://graph.microsoft.com", "1")
    assert_token(application.acquire_token_for_client([FEED]), "https://manage.office.com", "1")


def msal_takes_the_second_token_from_its_cache():
    application = tenant.application(tenant.client_secret)
    first, second = (application.acquire_token_for_client([GRAPH]) for _ in range(2))
    assert (first["token_source"], second["token_source"]) == ("identity_provider", "cache"), (first, second)
    assert first["access_token"] == second["access_token"]


def msal_gets_a_token_with_a_certificate_by_its_sha256_thumbprint():
    key, certificate = tenant.pem()
    application = tenant.application({"private_key": key, "public_certificate": certificate})
    assert_token(application.acquire_token_for_client([GRAPH]), "https://graph.microsoft.com", "2")


def msal_gets_a_token_with_a_certificate_by_its_sha1_thumbprint():
    thumbprint = tenant.certificate.fingerprint(hashes.SHA1()).hex()
    application = tenant.application({"private_key": tenant.pem()[0], "thumbprint": thumbprint})
    assert_token(application.acquire_token_for_client([GRAPH]), "https://graph.microsoft.com", "2")


def assert_refused(credential, number, kind, scope=GRAPH):
    result = tenant.application(credential).acquire_token_for_client([scope])
    assert result.get("error") == kind and result["error_codes"] == [number], result
    assert result["error_description"].startswith(f"AADSTS{number}: "), result
    # What Microsoft's support asks for.
    assert result["trace_id"] and result["correlation_id"] and result["timestamp"], result


def begin_sign_in(application):
    """Begins as a web application does, and comes back from the provider's page as a browser does."""
    flow = application.initiate_auth_code_flow(["User.Read"], redirect_uri="https://console.example/callback")
    assert flow["auth_uri"].startswith(f"{tenant.authority}/oauth2/v2.0/authorize?"), flow
    return flow


def come_back(flow, choice):
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *arguments):
            return None

    opener = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=tenant.context))
    try:
        page = opener.open(f"{flow['auth_uri']}&{urllib.parse.urlencode({'simulate': choice})}").read().decode()
    except urllib.error.HTTPError as answer:
        assert answer.code == 302, answer.read()
        target = urllib.parse.urlsplit(answer.headers["location"])
        assert f"{target.scheme}://{target.netloc}{target.path}" == "https://console.example/callback", target
        return dict(urllib.parse.parse_qsl(target.query))
    # With `response_mode=form_post` the browser sends a form.
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))


def msal_signs_a_person_in():
    application = tenant.application(tenant.client_secret)
    user = tenant.users[0]
    flow = begin_sign_in(application)
    assert "code_challenge_method=S256" in flow["auth_uri"] and "nonce=" in flow["auth_uri"], flow
    result = application.acquire_token_by_auth_code_flow(flow, come_back(flow, f"{user}:analyst"))
    assert "id_token" in result, result
    claims = result["id_token_claims"]
    assert claims["iss"] == f"{tenant.login}/{tenant.tenant_id}/v2.0", claims
    assert (claims["aud"], claims["tid"], claims["ver"]) == (tenant.client_id, tenant.tenant_id, "2.0"), claims
    assert (claims["preferred_username"], claims["roles"]) == (user, ["analyst"]), claims
    assert claims["oid"] and claims["sub"] and claims["name"] and claims["nonce"], claims
    assert [account["username"] for account in application.get_accounts()] == [user]
    # The token is signed with a key that the provider publishes.
    with urllib.request.urlopen(f"{tenant.authority}/v2.0/.well-known/openid-configuration", context=tenant.context) as answer:
        document = json.load(answer)
    keys = jwt.PyJWKClient(document["jwks_uri"], ssl_context=tenant.context)
    key = keys.get_signing_key_from_jwt(result["id_token"])
    jwt.decode(
        result["id_token"], key, algorithms=document["id_token_signing_alg_values_supported"],
        audience=tenant.client_id, issuer=document["issuer"],
    )  # fmt: skip


def msal_is_told_that_a_person_declines():
    application = tenant.application(tenant.client_secret)
    flow = begin_sign_in(application)
    result = application.acquire_token_by_auth_code_flow(flow, come_back(flow, "cancel"))
    assert result["error"] == "access_denied" and "AADSTS65004" in result["error_description"], result


def msal_is_told_that_a_code_was_used_or_is_for_another_challenge():
    application = tenant.application(tenant.client_secret)
    flow = begin_sign_in(application)
    answer = come_back(flow, f"{tenant.users[0]}:viewer")
    assert "id_token" in application.acquire_token_by_auth_code_flow(dict(flow), answer)
    again = application.acquire_token_by_auth_code_flow(dict(flow), answer)
    assert again["error_codes"] == [54005], again
    one, other = begin_sign_in(application), begin_sign_in(application)
    stolen = come_back(one, f"{tenant.users[0]}:admin") | {"state": other["state"]}
    result = application.acquire_token_by_auth_code_flow(other, stolen)
    assert result["error_codes"] == [50148], result


def msal_is_told_that_a_secret_is_wrong():
    assert_refused("wrong", 7000215, "invalid_client")


def msal_is_told_that_a_certificate_is_not_registered():
    other_key, other = make_certificate()
    key = other_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    stranger = {"private_key": key, "public_certificate": other.public_bytes(serialization.Encoding.PEM).decode()}
    assert_refused(stranger, 700027, "invalid_client")
    # The right certificate, but signed by another key.
    assert_refused({"private_key": key, "public_certificate": tenant.pem()[1]}, 50012, "invalid_client")


def msal_is_told_that_a_resource_is_unknown():
    assert_refused(tenant.client_secret, 500011, "invalid_resource", "https://nothing.example/.default")


def msal_is_told_that_a_tenant_is_unknown():
    stranger = "00000000-1111-2222-3333-444444444444"
    try:
        msal.ConfidentialClientApplication(
            tenant.client_id,
            client_credential=tenant.client_secret,
            authority=f"{tenant.login}/{stranger}",
            instance_discovery=False,
            verify=tenant.authority_file,
        ).acquire_token_for_client([GRAPH])
    except ValueError as error:
        assert "authority" in str(error).lower(), error
    else:
        raise AssertionError("a stranger's tenant gave an answer")


# --- msgraph-sdk


def graph(credential):
    """Microsoft's client; only where it connects to is not what it is by default."""
    provider = AzureIdentityAuthenticationProvider(credential, scopes=[GRAPH], allowed_hosts=["127.0.0.1"])
    client = GraphClientFactory.create_with_default_middleware(client=httpx.AsyncClient(verify=tenant.context))
    adapter = GraphRequestAdapter(provider, client=client)
    adapter.base_url = f"{tenant.graph}/v1.0"
    return GraphServiceClient(request_adapter=adapter)


def azure_options():
    return {
        "authority": tenant.login,
        "disable_instance_discovery": True,
        "connection_verify": tenant.authority_file,
    }


def with_graph(function, credential=None):
    async def call():
        secret = ClientSecretCredential(tenant.tenant_id, tenant.client_id, tenant.client_secret, **azure_options())
        return await function(graph(credential or secret))

    return asyncio.run(call())


def msgraph_lists_all_users():
    async def users(client):
        names, page = [], await client.users.get()
        while page:
            names += [user.user_principal_name for user in page.value]
            assert all(user.id and user.display_name for user in page.value)
            link = page.odata_next_link
            page = await client.users.with_url(link).get() if link else None
        return names

    assert sorted(with_graph(users)) == sorted(tenant.users)


def msgraph_signs_in_with_a_certificate():
    credential = CertificateCredential(
        tenant.tenant_id, tenant.client_id, certificate_data="".join(tenant.pem()).encode(), **azure_options()
    )

    async def user(client):
        return await client.users.by_user_id(NESTED).get()

    assert with_graph(user, credential).mail == NESTED


def msgraph_reads_a_group_and_all_its_members():
    async def members(client):
        groups = await client.groups.get()
        by_mail = {group.mail: group for group in groups.value}
        group = await client.groups.by_group_id(by_mail[SALES].id).get()
        assert group.mail == SALES and group.display_name == "Sales", group
        everybody = await client.groups.by_group_id(group.id).transitive_members.get()
        # A cast is an advanced query.
        configuration = RequestConfiguration(query_parameters=UsersQuery(count=True))
        configuration.headers.add("ConsistencyLevel", "eventual")
        people = await client.groups.by_group_id(group.id).transitive_members.graph_user.get(configuration)
        direct = await client.groups.by_group_id(group.id).members.get()
        return everybody.value, people.value, direct.value

    everybody, people, direct = with_graph(members)
    assert {each.mail for each in everybody if isinstance(each, User)} == {FIRST, NESTED}, everybody
    assert {each.mail for each in everybody if isinstance(each, Group)} == {LEADS}, everybody
    assert {each.mail for each in people} == {FIRST, NESTED}, people
    assert {each.mail for each in direct} == {FIRST, LEADS}, direct


async def find(client, message, **parameters):
    """The sent message by its internet message id, as a program finds it that knows only the audit record."""
    quoted = message["internet_message_id"].replace("'", "''")
    query = MessagesRequestBuilder.MessagesRequestBuilderGetQueryParameters(
        filter=f"internetMessageId eq '{quoted}'", **parameters
    )
    # Who writes to himself has another copy in the inbox.
    sent = client.users.by_user_id(message["mailbox"]).mail_folders.by_mail_folder_id("sentitems")
    found = await sent.messages.get(RequestConfiguration(query_parameters=query))
    assert len(found.value) == 1, (message["internet_message_id"], found.value)
    return found.value[0]


def msgraph_finds_a_message_by_its_internet_message_id():
    async def compare(client):
        for message in one_of_each_kind():
            select = ["subject", "from", "toRecipients", "sentDateTime", "internetMessageId", "hasAttachments"]
            found = await find(client, message, select=select)
            assert found.subject == message["subject"] and found.body is None, found
            assert found.internet_message_id == message["internet_message_id"]
            assert found.from_.email_address.address == message["from"]
            assert [each.email_address.address for each in found.to_recipients] == message["to"]
            assert found.sent_date_time == datetime.datetime.fromisoformat(message["sent"].replace("Z", "+00:00"))

    with_graph(compare)


def msgraph_downloads_attachments_with_the_right_digests():
    async def compare(client):
        for message in one_of_each_kind():
            found = await find(client, message, select=["id"])
            all_attachments = client.users.by_user_id(message["mailbox"]).messages.by_message_id(found.id).attachments
            listed = (await all_attachments.get()).value
            seen = []
            for attachment in listed:
                one = all_attachments.by_attachment_id(attachment.id)
                kind = {FileAttachment: "file", ItemAttachment: "item"}[type(attachment)]
                data = await value(client, one)
                seen.append((attachment.name, kind, digest(data)))
                assert attachment.size >= len(data), "the store keeps more than the file"
                whole = await one.get()
                assert (whole.id, whole.name) == (attachment.id, attachment.name)
                if kind == "file":
                    # Lists carry the bytes of small files as well.
                    for content in (attachment.content_bytes, whole.content_bytes):
                        assert content == data
            assert sorted(seen) == expected(message), (seen, message)

    with_graph(compare)


async def value(client, attachment):
    """`$value`, for which the SDK has no method of its own."""
    template = attachment.url_template.split("{?")[0] + "/$value"
    request = RequestInformation(Method.GET, template, attachment.path_parameters)
    request.headers.try_add("Accept", "application/octet-stream")
    # No bytes are nothing to it.
    return await client.request_adapter.send_primitive_async(request, "bytes", {}) or b""


def msgraph_understands_the_errors():
    async def absent(client):
        mailbox = client.users.by_user_id(NESTED)
        seen = {}
        for what, call in {
            "user": client.users.by_user_id("nobody@corpus.example").get,
            "message": mailbox.messages.by_message_id("AAMkAGI2").get,
            "group": client.groups.by_group_id("00000000-1111-2222-3333-444444444444").get,
        }.items():
            try:
                await call()
            except ODataError as error:
                assert error.error.inner_error.request_id, error
                seen[what] = (error.response_status_code, error.error.code)
        return seen

    assert with_graph(absent) == {
        "user": (404, "Request_ResourceNotFound"),
        "message": (400, "ErrorInvalidIdMalformed"),
        "group": (404, "Request_ResourceNotFound"),
    }


# --- O365


def account(secret=None):
    class Protocol(MSGraphProtocol):
        _protocol_url = f"{tenant.graph}/"

    credentials = (tenant.client_id, secret or tenant.client_secret)
    made = Account(
        credentials,
        auth_flow_type="credentials",
        tenant_id=tenant.tenant_id,
        protocol=Protocol(),
        token_backend=MemoryTokenBackend(),
        verify_ssl=tenant.authority_file,
        requests_delay=0,
    )
    # It makes this client itself, but with no way to tell it another authority.
    made.con._msal_client = tenant.application(credentials[1])
    made.con._msal_client.token_cache = made.con.token_backend
    return made


def signed_in():
    made = account()
    assert made.authenticate(requested_scopes=[GRAPH])
    return made


def o365_is_refused_with_a_wrong_secret():
    assert not account("wrong").authenticate(requested_scopes=[GRAPH])


def o365_lists_users_and_groups():
    made = signed_in()
    users = made.directory().get_users(limit=None)
    assert {user.mail for user in users} == set(tenant.users)
    groups = {group.mail: group for group in made.groups().list_groups()}
    assert set(groups) == {SALES, LEADS}
    group = made.groups().get_group_by_id(groups[SALES].object_id)
    assert made.groups().get_group_by_mail(SALES).object_id == group.object_id
    people = {member.mail for member in group.get_group_members(recursive=True) if "user" in member.type}
    assert people == {FIRST, NESTED}, people


def o365_downloads_attachments_with_the_right_digests():
    made = signed_in()
    for message in one_of_each_kind():
        folder = made.mailbox(resource=message["mailbox"]).sent_folder()
        query = folder.q().equals("internetMessageId", message["internet_message_id"])
        found = list(folder.get_messages(query=query, download_attachments=True))
        assert len(found) == 1, (message["internet_message_id"], found)
        assert (found[0].subject, found[0].sender.address) == (message["subject"], message["from"])
        seen = []
        for attachment in found[0].attachments:
            if attachment.attachment_type == "file":
                data = base64.b64decode(attachment.content)
            else:
                data = found[0].attachments.get_mime_content(attachment)
                # It is a message to this library as well.
                assert found[0].attachments.get_eml_as_object(attachment).subject == attachment.name
            seen.append((attachment.name, attachment.attachment_type, digest(data)))
        # It fetches attachments only where the message says that it has some, which inline ones do not count for.
        if found[0].has_attachments:
            assert sorted(seen) == expected(message), (seen, message)


def o365_reads_on_through_all_pages():
    made = signed_in()
    senders = [message["mailbox"] for message in tenant.messages]
    busiest = max(set(senders), key=senders.count)
    folder = made.mailbox(resource=busiest).sent_folder()
    found = list(folder.get_messages(limit=None, batch=5))
    assert len(found) == senders.count(busiest) > 5, (len(found), senders.count(busiest))
    assert len({message.object_id for message in found}) == len(found)


CHECKS = [
    msal_gets_a_token_with_a_secret,
    msal_takes_the_second_token_from_its_cache,
    msal_gets_a_token_with_a_certificate_by_its_sha256_thumbprint,
    msal_gets_a_token_with_a_certificate_by_its_sha1_thumbprint,
    msal_signs_a_person_in,
    msal_is_told_that_a_person_declines,
    msal_is_told_that_a_code_was_used_or_is_for_another_challenge,
    msal_is_told_that_a_secret_is_wrong,
    msal_is_told_that_a_certificate_is_not_registered,
    msal_is_told_that_a_resource_is_unknown,
    msal_is_told_that_a_tenant_is_unknown,
    msgraph_lists_all_users,
    msgraph_signs_in_with_a_certificate,
    msgraph_reads_a_group_and_all_its_members,
    msgraph_finds_a_message_by_its_internet_message_id,
    msgraph_downloads_attachments_with_the_right_digests,
    msgraph_understands_the_errors,
    o365_is_refused_with_a_wrong_secret,
    o365_lists_users_and_groups,
    o365_downloads_attachments_with_the_right_digests,
    o365_reads_on_through_all_pages,
]


if __name__ == "__main__":
    # `requests` lets these go before the file that a program names.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(CORPUS, folder / "corpus")
        (folder / "corpus" / "_groups.json").write_text(
            json.dumps({
                "users": [{"mail": FIRST, "displayName": "First"}, {"mail": NESTED, "displayName": "Nested"}],
                "groups": [
                    {"mail": SALES, "displayName": "Sales", "members": [FIRST, LEADS]},
                    {"mail": LEADS, "displayName": "Leads", "members": [NESTED]},
                ],
            })
        )
        key, certificate = make_certificate()
        (folder / "client.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        arguments = ["--corpus", folder / "corpus", "--shift-dates", "now", "--tls"]
        arguments += ["--ca-file", folder / "authority.pem", "--client-certificate", folder / "client.pem"]
        with simulate(*arguments) as announcement:
            tenant = Tenant(announcement, folder, key, certificate)
            run_checks(CHECKS)
