"""Every cell of the table that says what becomes of a message. Leaves out how its rows come about: test_undecided.py."""

import itertools

import pytest

from fubako.policy.disposition import Action, Form, Policy, Proof, Seal, decide

# a: accept, j: junk, d: defer, r: refuse; three letters: without a seal, with a trusted one, with one that is undecided
WANTED = """
               aligned missing undecided
reject         aaa     rad     dad
quarantine     aaa     jad     dad
nothing        aaa     aaa     aaa
absent         aaa     aaa     aaa
temporary      aaa     dad     dad
permanent      aaa     aaa     aaa
"""
ACTIONS = {"a": Action.ACCEPT, "j": Action.JUNK, "d": Action.DEFER, "r": Action.REFUSE}
SEALS = [Seal.NONE, Seal.TRUSTED, Seal.UNDECIDED]


def cells():
    lines = [line.split() for line in WANTED.strip().splitlines()]
    for line in lines[1:]:
        for proof, letters in zip(lines[0], line[1:], strict=True):
            for seal, letter in zip(SEALS, letters, strict=True):
                yield (Policy(line[0]), Proof(proof), seal), ACTIONS[letter]


@pytest.mark.parametrize(("cell", "action"), list(cells()))
@pytest.mark.parametrize("form", list(Form))
def test_a_cell(form, cell, action):
    match form:
        case Form.USABLE:
            wanted = action
        case Form.MALFORMED | Form.NONE:
            wanted = Action.JUNK if action is Action.ACCEPT else action
        case _:
            wanted = Action.REFUSE
    assert decide(form, *cell) is wanted


def test_the_table_is_total():
    cells_of_table = {cell for cell, _ in cells()}
    assert cells_of_table == set(itertools.product(Policy, Proof, Seal))
    for cell in itertools.product(Form, Policy, Proof, Seal):
        assert decide(*cell) in Action


@pytest.mark.parametrize(("policy", "proof", "seal"), list(itertools.product(Policy, Proof, Seal)))
@pytest.mark.parametrize("form", [Form.NONE, Form.SEVERAL, Form.MALFORMED, Form.UNREADABLE])
def test_no_form_is_better_off_than_a_plain_forged_author(form, policy, proof, seal):
    assert decide(form, policy, proof, seal) >= decide(Form.USABLE, policy, proof, seal)


def test_what_is_undecided_never_makes_it_better_or_refuses_for_good():
    for policy, seal in itertools.product(Policy, Seal):
        undecided = decide(Form.USABLE, policy, Proof.UNDECIDED, seal)
        assert undecided is not Action.REFUSE
        if decide(Form.USABLE, policy, Proof.MISSING, seal) is Action.REFUSE:
            assert undecided is Action.DEFER
    for proof in Proof:
        assert decide(Form.USABLE, Policy.TEMPORARY, proof, Seal.NONE) is not Action.REFUSE
