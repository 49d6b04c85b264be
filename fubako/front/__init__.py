"""The process that speaks to strangers: an engine of `protocol` reads their octets, and typed events go to who owns the store.

Owns the frames between both, one connection's conversation, and the loop of the process. It has no file, no network of its own,
no key and no password: descriptors come to it, and none leaves it. Invariant: what it says is judged by its owner as a stranger's
octets are (`judge`, `protocol.smtp_order`), so that code which took it over can say no more than a stranger could.
"""
