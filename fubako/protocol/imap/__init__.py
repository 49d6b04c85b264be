"""IMAP4rev1 and IMAP4rev2 on the wire: lines and literals are cut before they are parsed, commands are typed values.

Sources: RFC 3501, RFC 9051, RFC 7162 (CONDSTORE, QRESYNC), RFC 4731, RFC 5182, RFC 5258, RFC 6855, RFC 3516.
"""
