"""The composition root: a configuration becomes objects and listeners. The only room that names implementations.

Never holds a rule of its own: what is decided is decided below.
"""

from fubako.app.application import Application
from fubako.app.built import dresser, load_access, load_tls, resolver, routes
from fubako.app.listeners import Bound, bind
from fubako.app.process import end_with_parent, run, tune
from fubako.app.storage import (
    Store,
    StoreInUse,
    backup_store,
    claim,
    compact_store,
    mend,
    open_store,
    prepare,
    verify_store,
)

__all__ = [
    "Application",
    "Bound",
    "Store",
    "StoreInUse",
    "backup_store",
    "bind",
    "claim",
    "compact_store",
    "dresser",
    "end_with_parent",
    "load_access",
    "load_tls",
    "mend",
    "open_store",
    "prepare",
    "resolver",
    "routes",
    "run",
    "tune",
    "verify_store",
]
