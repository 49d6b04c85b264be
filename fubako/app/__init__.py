"""The composition root: a configuration becomes objects and listeners. The only room that names implementations.

Never holds a rule of its own: what is decided is decided below. Each name is loaded when it is first used, so that a command that
reads a few rows does not wait for a whole server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fubako.app.application import Application, check, preload
    from fubako.app.built import LateHttps, LateResolver, dresser, gate, load_access, load_tls, pool, resolver, routes
    from fubako.app.confined import Reach, confine_worker, reach
    from fubako.app.door import public_host_keys
    from fubako.app.listeners import Bound, bind, bind_paths, bind_ports, inherited
    from fubako.app.privileges import act_as_owner, become_user
    from fubako.app.process import connections_that_fit, end_with_parent, raise_files, run, tune
    from fubako.app.storage import (
        Store,
        StoreInUse,
        back_store,
        backup_store,
        claim,
        compact_store,
        look_back,
        mend,
        mend_modes,
        migrate_store,
        open_store,
        prepare,
        require_own,
        runs_as_root,
        verify_store,
    )

_HOMES = {
    "Application": "application",
    "Bound": "listeners",
    "Reach": "confined",
    "check": "application",
    "reach": "confined",
    "LateHttps": "built",
    "LateResolver": "built",
    "Store": "storage",
    "StoreInUse": "storage",
    "back_store": "storage",
    "backup_store": "storage",
    "look_back": "storage",
    "migrate_store": "storage",
    "act_as_owner": "privileges",
    "become_user": "privileges",
    "bind": "listeners",
    "bind_paths": "listeners",
    "bind_ports": "listeners",
    "connections_that_fit": "process",
    "inherited": "listeners",
    "mend_modes": "storage",
    "raise_files": "process",
    "require_own": "storage",
    "claim": "storage",
    "compact_store": "storage",
    "confine_worker": "confined",
    "dresser": "built",
    "end_with_parent": "process",
    "gate": "built",
    "load_access": "built",
    "load_tls": "built",
    "mend": "storage",
    "open_store": "storage",
    "preload": "application",
    "pool": "built",
    "prepare": "storage",
    "public_host_keys": "door",
    "resolver": "built",
    "routes": "built",
    "run": "process",
    "runs_as_root": "storage",
    "tune": "process",
    "verify_store": "storage",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


__all__ = [
    "Application",
    "Bound",
    "LateHttps",
    "LateResolver",
    "Reach",
    "Store",
    "StoreInUse",
    "act_as_owner",
    "back_store",
    "backup_store",
    "become_user",
    "bind",
    "bind_paths",
    "bind_ports",
    "check",
    "claim",
    "compact_store",
    "confine_worker",
    "connections_that_fit",
    "dresser",
    "end_with_parent",
    "gate",
    "inherited",
    "load_access",
    "load_tls",
    "look_back",
    "mend",
    "mend_modes",
    "migrate_store",
    "open_store",
    "pool",
    "preload",
    "prepare",
    "public_host_keys",
    "raise_files",
    "reach",
    "require_own",
    "resolver",
    "routes",
    "run",
    "runs_as_root",
    "tune",
    "verify_store",
]
