"""`describe`: what is computed of a letter's content once and kept beside its row."""

from fubako.message import mime
from fubako.protocol.imap import render
from fubako.store.interface import BlobRef
from fubako.store.messages import Letter

STRUCTURE_OCTETS_MAX = 256 * 1024


def describe(
    content: bytes,
    blob: BlobRef,
    *,
    internaldate: int,
    zone: int = 0,
    flags: int = 0,
    keywords: str = "",
    trace_id: str = "",
    journey: str = "[]",
) -> Letter:
    """The row of a message. ENVELOPE and BODYSTRUCTURE are rendered here, never again."""
    root = mime.scan(content)
    structure = render.body_structure(root)
    if len(structure) > STRUCTURE_OCTETS_MAX:
        structure = render.body_structure(mime.Part(0, root.body, root.end, root.lines))
    return Letter(
        blob,
        root.body,
        render.envelope(root.fields),
        structure,
        internaldate,
        zone,
        flags,
        keywords,
        trace_id,
        journey,
    )
