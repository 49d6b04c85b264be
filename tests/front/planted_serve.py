"""`fubako serve` with a planted nursery: planted_serve.py MODULE serve …"""

import sys
from pathlib import Path

import fubako.cli.serve as serving
from fubako.cli import main

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    serving.BIRTHS = sys.argv.pop(1)
    main()
