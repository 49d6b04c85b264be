"""Long work on what strangers wrote: decoding for search, hashing of large bodies, reading of reports, in processes of their own.

Owns the pool, its workers and the nursery that makes them. A worker has no file, no network and no secret; it gets octets and a
question, and gives an answer. Invariant: whatever octets do to a worker, who asked gets `JobFailed` within a named time, and no
more processor time and memory goes than the limits say. Knows nothing of the store. This file imports nothing,
because workers come here too.
"""
