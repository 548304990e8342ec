"""Compares the digests in a lake with those that Python's `email` and `hashlib` make of the same e-mails.

    digests.py [DIRECTORY]      every .eml file below it is sent by a simulated tenant and read into a new lake

What an attachment is, as Exchange sees a MIME message: a part whose disposition is `attachment`, a part that is no text,
or text with a file name. A message in a message is one attachment, its bytes as they stand, and what is attached to it
stays inside of it. The status parts of a report are no attachments, unless they are named.
"""

import email
import hashlib
import re
import sys
import tempfile
from collections import Counter, defaultdict
from email.feedparser import headerRE
from email.message import Message
from pathlib import Path

from support import CORPUS, Lake, simulate, truth


def attachments(part, raw):
    """The bytes of every attachment of a parsed part; `raw` is the part as it stands in its file."""
    content_type = part.get_content_type()
    is_attached = part.get_content_disposition() == "attachment"
    is_named = part.get_filename() is not None
    if content_type in ("message/rfc822", "message/global"):
        yield body(raw)
    elif part.get_content_maintype() == "message":
        # A delivery status, or a piece of a message.
        if is_attached or is_named:
            yield decoded(part, body(raw))
    elif part.is_multipart():
        pieces, is_cut = split(body(raw), part.get_boundary())
        parts = part.get_payload()
        assert len(pieces) == len(parts), f"{len(pieces)} pieces of {len(parts)} parts"
        if is_cut and parts[-1].get_content_maintype() != "multipart":
            # There is no last boundary. Python gives it the last line end all the same.
            pieces[-1] = re.sub(rb"(?:\r\n|\r|\n)\Z", b"", pieces[-1])
        for inner, piece in zip(parts, pieces):
            yield from attachments(inner, piece)
    else:
        is_text, is_broken = (part.get_content_maintype() == kind for kind in ("text", "multipart"))
        if is_attached or (is_named and not is_broken) or not (is_text or is_broken):
            yield part.get_payload(decode=True)


def body(raw):
    """What comes after the headers: they end with an empty line, or before a line that cannot be one of them."""
    position = 0
    for line in raw.splitlines(keepends=True):
        if not headerRE.match(line.decode("ascii", "surrogateescape")):
            return raw[position + (len(line) if not line.strip(b"\r\n") else 0) :]
        position += len(line)
    return b""


def split(raw, boundary):
    """The parts of a multipart's body, and whether it ends before its last boundary."""
    # The line end before a boundary belongs to the boundary.
    separator = re.compile(rb"(?:\r\n|\r|\n|^)--" + re.escape(boundary.encode("latin-1")) + rb"(--)?[ \t]*(?=\r|\n|\Z)")
    line_end = re.compile(rb"\r\n|\r|\n|\Z")
    pieces, start, position = [], None, 0
    while found := separator.search(raw, position):
        # Boundaries in a row hold no part between them.
        if start is not None and found.start() >= start:
            pieces.append(raw[start : found.start()])
        if found.group(1):
            return pieces, False
        start = line_end.match(raw, found.end()).end()
        # The end of this line can be the one before the next boundary.
        position = found.end()
    return pieces + [raw[start:]], True


def decoded(part, payload):
    carrier = Message()
    carrier["Content-Transfer-Encoding"] = part.get("Content-Transfer-Encoding", "")
    carrier.set_payload(payload.decode("ascii", "surrogateescape"))
    return carrier.get_payload(decode=True)


def digests(path):
    """The digests of all attachments of an e-mail, as a multiset."""
    raw = path.read_bytes()
    return Counter(
        (hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest(), len(data))
        for data in attachments(email.message_from_bytes(raw), raw)
    )


def compare(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix.lower() == ".eml")
    with simulate("--corpus", directory, "--shift-dates", "now") as tenant, tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake", tenant)
        lake.add(tenant)
        lake.run()
        rows = lake.sql("SELECT internet_message_id, file_name, sha256, md5, file_size_bytes, hash_status FROM file_events")
        messages = truth(tenant)
    # Only the ids are taken from the simulator, which makes them up where a file has none.
    id_of_file = {Path(message["file"]): message["internet_message_id"] for message in messages}
    assert sorted(id_of_file) == files, "not every file became a message"
    # Files that share one id cannot be told apart by it: their attachments are compared together.
    expected, found, files_of_id = defaultdict(Counter), defaultdict(Counter), defaultdict(list)
    for path in files:
        try:
            expected[id_of_file[path]] += digests(path)
        except Exception as error:
            raise RuntimeError(f"cannot read {path}") from error
        files_of_id[id_of_file[path]].append(str(path.relative_to(directory)))
    for row in rows:
        found[row["internet_message_id"]][row["sha256"], row["md5"], row["file_size_bytes"]] += 1
    differences = 0
    for message_id in sorted(set(expected) | set(found)):
        missing, surplus = expected[message_id] - found[message_id], found[message_id] - expected[message_id]
        if missing or surplus:
            differences += 1
            print(f"FAILED: {message_id} {files_of_id[message_id]}")
            print(f"  only Python has {dict(missing)}\n  only the lake has {dict(surplus)}")
    total = sum(sum(counter.values()) for counter in expected.values())
    print(f"{len(files)} e-mails, {len(expected)} message ids, {total} attachments, {len(rows)} rows, {differences} differences")
    return differences == 0 and total == len(rows)


if __name__ == "__main__":
    sys.exit(0 if compare(Path(sys.argv[1]) if len(sys.argv) > 1 else CORPUS) else 1)
