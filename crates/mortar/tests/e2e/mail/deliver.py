"""Delivers COUNT messages by LMTP to the users in turn, at RATE a second at most.

deliver.py SOCKET LEDGER COUNT RATE USER...
A line `NUMBER USER SHA256` goes to the ledger for every message that the server acknowledged. As a mail transport
would, it keeps a message that was not acknowledged and tries again.
"""
import hashlib
import os
import random
import smtplib
import sys
import time

socket_path, ledger_path, count, rate, users = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]
PATIENCE_SECONDS = 90


def body(number):
    chance = random.Random(number)
    lines = (f"{number} {chance.getrandbits(256):064x}" for _ in range(chance.randint(5, 300)))
    return "".join(f"{line}\r\n" for line in lines).encode()


def message(number, user, text, digest):
    head = f"From: <sender@example.org>\r\nTo: <{user}@example.org>\r\nSubject: {number}\r\n"
    head += f"Message-ID: <{number}.e2e@example.org>\r\nX-Number: {number}\r\nX-Sha256: {digest}\r\n\r\n"
    return head.encode() + text


def connect(old):
    if old is not None:
        old.close()
    session = smtplib.LMTP(socket_path, timeout=PATIENCE_SECONDS)
    session.ehlo_or_helo_if_needed()
    return session


ledger = os.open(ledger_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
session, retries, longest, start = connect(None), 0, 0.0, time.monotonic()
for number in range(count):
    time.sleep(max(0.0, start + number / rate - time.monotonic()))
    user, text, began = users[number % len(users)], body(number), time.monotonic()
    digest = hashlib.sha256(text).hexdigest()
    while True:
        try:
            session.sendmail("sender@example.org", [user], message(number, user, text, digest))
            break
        except (smtplib.SMTPException, OSError) as error:
            retries += 1
            print(f"message {number}: {error!r}", flush=True)
            if time.monotonic() - began > PATIENCE_SECONDS:
                sys.exit(f"message {number} cannot be delivered")
            time.sleep(0.2)
            try:
                session = connect(session)
            except (smtplib.SMTPException, OSError) as error:
                print(f"connect: {error!r}", flush=True)
    longest = max(longest, time.monotonic() - began)
    os.write(ledger, f"{number} {user} {digest}\n".encode())
session.quit()
took = time.monotonic() - start
print(f"delivered {count} messages in {took:.1f} s, {retries} retries, longest delivery {longest * 1000:.0f} ms")
