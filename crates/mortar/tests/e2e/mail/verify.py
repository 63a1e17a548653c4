"""Checks that every message in the ledger is fetched back by IMAP with the digest of what was sent.

verify.py LEDGER
"""
import collections
import email.parser
import hashlib
import imaplib
import sys

acknowledged = collections.defaultdict(dict)
with open(sys.argv[1]) as ledger:
    for line in ledger:
        number, user, digest = line.split()
        acknowledged[user][number] = digest
lost, fetched = [], 0
for user, wanted in sorted(acknowledged.items()):
    session = imaplib.IMAP4("127.0.0.1", 143)
    session.login(user, "any")
    status, found = session.select("INBOX", readonly=True)
    assert status == "OK", (user, found)
    there = {}
    for first in range(1, int(found[0]) + 1, 50):
        status, data = session.fetch(f"{first}:{first + 49}", "(BODY.PEEK[HEADER.FIELDS (X-NUMBER)] BODY.PEEK[TEXT])")
        assert status == "OK", (user, first, data)
        parts = [part for part in data if isinstance(part, tuple)]
        for head, text in zip(parts[0::2], parts[1::2]):
            number = email.parser.BytesParser().parsebytes(head[1])["X-Number"]
            there[number] = hashlib.sha256(text[1]).hexdigest()
    session.logout()
    fetched += len(there)
    lost += [f"{user} {number}: {there.get(number)}" for number, digest in wanted.items() if there.get(number) != digest]
if lost:
    sys.exit("lost or damaged:\n" + "\n".join(lost))
print(f"{sum(len(wanted) for wanted in acknowledged.values())} acknowledged, {fetched} fetched, every digest as sent")
