"""`trace`: where a letter is, and how each leg of its way was protected."""

from fubako.delivery.journey import hop_from_dict, lines, outgoing, trace

__all__ = ["hop_from_dict", "lines", "outgoing", "trace"]
