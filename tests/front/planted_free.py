"""The planted nursery without any confinement: what it tries is possible at all."""

import planted_front

if __name__ == "__main__":
    planted_front.free()
