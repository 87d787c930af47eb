"""Writes and reads JSON, and takes it apart by regular expressions: strings, lists and dictionaries of all sizes."""

import hashlib
import json
import re

RECORDS = 40000

records = {f"k{i * 7919 % 100003}": {"id": i, "list": list(range(i % 23)), "text": "x" * (i % 200)} for i in range(RECORDS)}
text = json.dumps(records, sort_keys=True)
assert json.loads(text) == records
print(hashlib.sha256(text.encode()).hexdigest(), len(re.findall(r'"id": (\d+)5,', text)))
words = sorted(re.findall(r"[a-z0-9]+", text), key=lambda word: (len(word), word))
print(len(words), hashlib.sha256(" ".join(words).encode()).hexdigest())
