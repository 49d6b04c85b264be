"""How much of a message is read as structure. What lies beyond a limit stays in the message and is shown as opaque octets: nothing
is refused or lost because of these, and they hold for inner parts, inner messages and known users as for strangers.
"""

HEADER_OCTETS_MAX = 1024 * 1024  # of one header (of the message or of a part) whose fields are read
HEADERS_OCTETS_MAX = 1024 * 1024  # of the headers of all parts of a message together
DEPTH_MAX = 50  # parts within parts
PARTS_MAX = 2000  # in the whole message
DELIMITER_LINES_MAX = 100_000  # lines that begin with `--` and are looked at together
FALSE_DELIMITERS_MAX = 1000  # of one boundary behind those, lines that only begin like its delimiter
BOUNDARY_OCTETS_MAX = 1024  # RFC 2046 §5.1.1 allows 70
PARAMETERS_MAX = 100  # of one field
PARAMETERS_OF_MESSAGE_MAX = 5000  # of the fields of all parts together; behind that, of one field:
PARAMETERS_BEHIND_MAX = 4
PARAMETER_FIELD_OCTETS_MAX = 64 * 1024  # of a Content-Type or Content-Disposition
ADDRESSES_MAX = 1000  # of one field
ADDRESS_FIELD_OCTETS_MAX = 256 * 1024
TOKENS_MAX = 20_000  # words and signs of one list of addresses
ENCODED_WORDS_OCTETS_MAX = 1024 * 1024  # of one field in which encoded words are read
DATE_OCTETS_MAX = 200  # of a Date field
