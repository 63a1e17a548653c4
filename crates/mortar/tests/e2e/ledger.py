"""A maildir-like writer: every name that it prints to the ledger was written, fsynced and renamed into place.

ledger.py SPOOL LEDGER COUNT STOP: until COUNT messages are written or the file STOP exists.
"""
import hashlib
import os
import sys

spool, ledger, count, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
for folder in ("tmp", "new"):
    os.makedirs(f"{spool}/{folder}", exist_ok=True)
log = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for number in range(count):
    if os.path.exists(stop):
        break
    body = (f"Message {number}\n" * 300).encode()
    name = f"{os.getpid()}.{number}"
    fd = os.open(f"{spool}/tmp/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, body)
    os.fsync(fd)
    os.close(fd)
    os.rename(f"{spool}/tmp/{name}", f"{spool}/new/{name}")
    directory = os.open(f"{spool}/new", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.write(log, f"{hashlib.sha256(body).hexdigest()}  {spool}/new/{name}\n".encode())
