"""What tests of logins share: a house with alice in it, other rules for its logins, and a whole SASL exchange."""

import asyncio

from peer import House

from fubako.accounts.backends import Chain
from fubako.accounts.identity import Identity, Scene
from fubako.accounts.login import LoginRules
from fubako.protocol.sasl import Binding, Proofs, client
from fubako.telemetry import Telemetry

ALICE, BOB = "alice@here.test", "bob@here.test"


def inside(tmp_path, test):
    async def run():
        async with House(tmp_path) as house:
            house.logins = house.app.resources.logins
            return await test(house)

    return asyncio.run(run())


def follow(house, *checkers, **more) -> None:
    chain = Chain(checkers, house.app.env.clock.monotonic, Telemetry(quiet=True)) if checkers else None
    house.logins.follow(LoginRules(chain=chain, **more))


async def prove(house, name, user, password, scene=Scene(), authzid="") -> Identity:  # noqa: B008  # frozen
    given = Proofs(user, password, authzid=authzid, service="imap", host=house.logins._offer.hostname)
    _, dialogue = client([name], given, "nonce", Binding(scene.bindings), allowed=(name,))
    exchange = house.logins.exchange(name, scene)
    first = next(dialogue)
    step = await exchange.step(dialogue.send(exchange.first.octets) if exchange.first.server_first else first)
    while not isinstance(step, Identity):
        step = await exchange.step(dialogue.send(step))
    return step
