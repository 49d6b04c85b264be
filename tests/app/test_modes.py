"""What is made is its owner's alone, whatever the umask; what was made before is mended; no link is followed.

Left out: file systems without modes, access lists (ACL) and what a user makes by his shell's redirection.
"""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from server import FUBAKO, free_offset, without

import fubako
from fubako import modes
from fubako.app.process import RESERVED_FILES, connections_that_fit

NOBODY = 65534
PUBLIC = {"ca.pem"}


def readable_by_others(root: Path) -> list[Path]:
    return [
        path
        for path in (root, *root.rglob("*"))
        if path.lstat().st_mode & 0o077 and not path.is_symlink() and not path.is_socket() and path.name not in PUBLIC
    ]


def test_nothing_of_a_quickstart_is_readable_by_others(tmp_path):
    root = tmp_path / "above" / "d"
    done = subprocess.run(
        [FUBAKO, "up", str(root), "--once", "--offset", str(free_offset())],
        capture_output=True, text=True, timeout=120, check=False, umask=0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (root / "store" / "mail.sqlite").exists()
    assert readable_by_others(tmp_path / "above") == []
    config = ("--config", str(root / "fubako.toml"))
    for words in (["backup", str(tmp_path / "b")], ["export", str(tmp_path / "e"), "--format", "mbox"]):
        subprocess.run([FUBAKO, "store", *words, *config], check=True, timeout=60, umask=0, capture_output=True)
        assert list(Path(words[1]).rglob("*")) and readable_by_others(Path(words[1])) == []


def test_an_old_store_is_mended_and_links_are_left_alone(tmp_path):
    store, outside = tmp_path / "store", tmp_path / "outside"
    (store / "segments").mkdir(parents=True)
    outside.write_text("others may read this")
    outside.chmod(0o644)
    for path in (store, store / "segments"):
        path.chmod(0o755)
    for name in ("mail.sqlite", "mail.sqlite-wal", "segments/1.segment"):
        (store / name).write_bytes(b"")
        (store / name).chmod(0o664)
    (store / "link").symlink_to(outside)
    os.link(outside, store / "second-name")
    os.mkfifo(store / "pipe", 0o644)
    changed, foreign = modes.mend(store)
    assert (changed, foreign) == (5, [])
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644
    assert {stat.S_IMODE((store / n).stat().st_mode) for n in ("mail.sqlite", "segments/1.segment")} == {0o600}
    assert modes.mend(store)[0] == 0


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o600, False), (0o400, False), (0o604, True), (0o620, True), (0o640, False)]
)
def test_a_secret_that_others_can_read_is_refused(tmp_path, mode, refused):
    """The group of the file is one of this process'."""
    path = tmp_path / "key"
    path.write_text("")
    path.chmod(mode)
    if refused:
        with pytest.raises(modes.Exposed, match="chmod 600"):
            modes.refuse_exposed(path)
    else:
        modes.refuse_exposed(path)


def test_config_check_refuses_a_key_that_others_can_read(tmp_path):
    (tmp_path / "c.pem").write_text("")
    (tmp_path / "c.key").write_text("")
    (tmp_path / "c.key").chmod(0o644)
    (tmp_path / "fubako.toml").write_text(
        'hostname = "h.test"\ndirectory = "store"\n[tls]\ncertificates = [{ chain = "c.pem", key = "c.key" }]\n'
    )
    done = subprocess.run(
        [FUBAKO, "config", "check", "--config", str(tmp_path / "fubako.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "tls.certificates" in done.stderr and "c.key can be read" in done.stderr


@pytest.mark.parametrize("planted", ["mail.sqlite", "mail.sqlite.lock", "segments", "search", "run"])
def test_root_follows_no_link_in_the_store_of_another_user(tmp_path, planted):
    """A command of root's on a store of nobody's. Left out: a link planted while the
    command runs; it acts as nobody then."""
    if os.getuid() != 0:
        without("only root could be misled")
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    store, target = tmp_path / "store", tmp_path / "of-root"
    store.mkdir()
    target.mkdir(mode=0o700)
    (store / planted).symlink_to(target / "made" if "." in planted else target)
    for path in (store, store / planted):
        os.lchown(path, NOBODY, NOBODY)
    (tmp_path / "fubako.toml").write_text('hostname = "h.test"\ndirectory = "store"\n')
    done = subprocess.run(
        [FUBAKO, "domain", "add", "a.test", "--config", str(tmp_path / "fubako.toml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or done.stderr.startswith("fubako: "), done.stderr
    assert list(target.iterdir()) == []
    assert target.stat().st_uid == 0


def test_connections_leave_descriptors_to_the_store():
    assert connections_that_fit(20_000, 1024) == 1024 - RESERVED_FILES
    assert connections_that_fit(100, 1024) == 100
    assert connections_that_fit(20_000, 64) == 32


def test_the_limit_of_files_is_raised_to_the_hard_one():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 500));"
        "from fubako.app.process import raise_files; print(raise_files(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "500 (500, 500)"


WRITING = set("wxa+")


def unnamed_modes(tree: ast.AST) -> list[int]:
    """Lines that make a folder or a file and leave its mode to the environment."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        words = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        how = words[-1] if words and len(words[-1]) <= 3 else ""
        written = name == "open" and WRITING & set(how) and not any(one.arg == "opener" for one in call.keywords)
        made = name == "open" and "O_CREAT" in ast.unparse(call) and "modes.FILE" not in ast.unparse(call)
        if written or made or name in ("mkdir", "makedirs", "write_text", "write_bytes", "copyfile", "copy2", "umask"):
            found.append(call.lineno)
    return found


def test_every_folder_and_file_is_made_where_modes_are_owned():
    """Left out: what libraries make (SQLite is given its file), and descriptors from tempfile, which are private by themselves."""
    root = Path(fubako.__file__).parent
    exempt = {root / "modes.py", root / "app" / "listeners.py", root / "net" / "become.py"}
    found = [
        f"{path.relative_to(root)}:{line}"
        for path in sorted(root.rglob("*.py"))
        if path not in exempt
        for line in unnamed_modes(ast.parse(path.read_text()))
    ]
    assert found == []
