"""The nursery of `serve`: it makes what `scan` makes, and processes that do TLS."""

from fubako.net import tls_process
from fubako.net.tls_frames import TlsLimits
from fubako.scan import births

if __name__ == "__main__":
    births.main({TlsLimits: tls_process.serve}, new_code=True)
