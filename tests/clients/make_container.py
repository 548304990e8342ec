"""Makes what a lake lives in: a bucket on an S3 server, or a container on the emulator of Azure Storage.

    make_container.py s3|azure ENDPOINT NAME
"""

import base64
import hashlib
import hmac
import sys
import urllib.request
from email.utils import formatdate

# The emulator's account, which is the same everywhere.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def azure(endpoint, name):
    """https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    canonical = "\n".join(f"{header}:{value}" for header, value in sorted(headers.items()))
    # The method, eleven headers that are not there, and what is signed.
    text = "PUT" + "\n" * 12 + f"{canonical}\n{resource}"
    signature = hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    return urllib.request.Request(f"{endpoint}/{ACCOUNT}/{name}?restype=container", method="PUT", headers=headers)


def s3(endpoint, name):
    return urllib.request.Request(f"{endpoint}/{name}", method="PUT")


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    urllib.request.urlopen({"s3": s3, "azure": azure}[kind](*arguments)).close()
