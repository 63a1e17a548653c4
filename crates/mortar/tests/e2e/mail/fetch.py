"""Fetches messages by IMAP until the file STOP exists; every one must be what its sender sent.

fetch.py STOP USER...
"""
import email.parser
import hashlib
import imaplib
import os
import random
import sys
import time

stop, users = sys.argv[1], sys.argv[2:]
sessions = {}
for user in users:
    sessions[user] = imaplib.IMAP4("127.0.0.1", 143)
    sessions[user].login(user, "any")
fetched, longest = 0, 0.0
while not os.path.exists(stop):
    user = random.choice(users)
    session, began = sessions[user], time.monotonic()
    status, found = session.select("INBOX")
    assert status == "OK", (user, status, found)
    there = int(found[0])
    if there == 0:
        time.sleep(0.1)
        continue
    number = random.randint(1, there)
    status, data = session.fetch(str(number), "(BODY.PEEK[HEADER] BODY.PEEK[TEXT])")
    assert status == "OK", (user, number, status, data)
    head = email.parser.BytesParser().parsebytes(data[0][1], headersonly=True)
    assert hashlib.sha256(data[1][1]).hexdigest() == head["X-Sha256"], f"{user}: message {number} is not what was sent"
    fetched += 1
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.01)
for session in sessions.values():
    session.logout()
print(f"fetched {fetched} messages meanwhile, longest fetch {longest * 1000:.0f} ms")
