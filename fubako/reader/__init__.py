"""The terminal reader (Textual), with mutt's keys: the list with each letter's seal, the letter, its journey, the certificate
screen, and the road's state always in view.

It reads and writes through `client` alone; a stranger's text reaches the terminal only through `message.display.clean`.
"""
