"""Four rooms: layouts, play, and what guidance does to the best actions, by value iteration."""

import pytest
import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.guidance import (
    FourRooms,
    Guidance,
    MisleadingReward,
    Potential,
    Progress,
    make_layouts,
)
from critical_periods.guidance.four_rooms import GOAL, KEY, WALL

GAMMA, LAYOUTS = 0.99, make_layouts(7, 8)


def test_layouts_are_four_rooms_that_differ_and_can_be_solved():
    cells = LAYOUTS.cells.flatten(1)
    for what in (KEY, GOAL):
        assert ((cells == what).sum(1) == 1).all()
    keyed = torch.cat([cells, LAYOUTS.start[:, None]], 1)
    assert len(keyed.unique(dim=0)) == len(keyed)
    number = torch.arange(len(cells))
    assert (cells[number, LAYOUTS.start] == 0).all()
    first = LAYOUTS.remaining[number, LAYOUTS.start]
    assert first.min() >= 3 and first.max() < 40
    # Without the key no way leads to the goal: a search in phase 0 alone never meets it.
    reached = torch.nn.functional.one_hot(LAYOUTS.start, 49).bool()
    for _ in range(49):
        for action in range(4):
            after = LAYOUTS.successor[:, :49, action]
            after = torch.where(after < 49, after, torch.arange(49))
            reached = reached | torch.zeros_like(reached).scatter_reduce(
                1, after, reached, "amax", include_self=True
            )
    assert not (reached & (cells == GOAL)).any() and not (reached & (cells == WALL)).any()
    assert (LAYOUTS.cells[:, ::6] == WALL).all()


def values(rewards: Tensor) -> Tensor:
    """Q [L, S, 4] by value iteration in float64."""
    successor, terminal = LAYOUTS.successor, LAYOUTS.terminal
    q = torch.zeros_like(rewards)
    for _ in range(4000):
        v = torch.where(terminal, 0.0, q.amax(2))
        new = rewards + GAMMA * v.gather(1, successor.flatten(1)).view_as(q)
        if (new - q).abs().max() < 1e-13:
            break
        q = new
    return q


def rewards_of(guidance: Guidance | None) -> Tensor:
    before, after = (
        Progress(remaining.double(), subgoals.double())
        for remaining, subgoals in (
            (LAYOUTS.remaining[:, :, None], torch.arange(147)[:, None] // 49),
            (
                LAYOUTS.remaining.gather(1, LAYOUTS.successor.flatten(1)).view(-1, 147, 4),
                LAYOUTS.successor // 49,
            ),
        )
    )
    terminal = LAYOUTS.terminal.gather(1, LAYOUTS.successor.flatten(1)).view(-1, 147, 4)
    sparse = terminal.double()
    return sparse if guidance is None else sparse + guidance.reward(before, after, GAMMA)


def test_a_potential_keeps_the_order_of_actions_and_other_rewards_do_not():
    """Ng, Harada & Russell 1999: Q with shaping is Q less the potential, for every action."""
    alive = (LAYOUTS.remaining > 0) & (LAYOUTS.remaining < 1000)
    plain = values(rewards_of(None))
    shaped = values(rewards_of(Potential(weight=0.3)))
    potential = -0.3 * LAYOUTS.remaining.double()[:, :, None]
    assert (shaped + potential - plain)[alive].abs().max() < 1e-9
    gaps = plain[..., None] - plain[..., None, :]
    other = shaped[..., None] - shaped[..., None, :]
    assert (gaps - other)[alive].abs().max() < 1e-9
    best = plain >= plain.amax(2, keepdim=True) - 1e-9

    def best_of(q: Tensor) -> Tensor:
        return (q >= q.amax(2, keepdim=True) - 1e-9)[alive]

    assert torch.equal(best_of(shaped), best[alive])
    misled = values(rewards_of(MisleadingReward(weight=0.1)))
    assert (best_of(misled) != best[alive]).any(1).double().mean() > 0.4


def test_an_expert_solves_every_unseen_layout_in_the_shortest_time():
    rooms = FourRooms(layouts=6, val_layouts=2)
    cells = torch.cat([rooms.tables(split).cells for split in ("train", "val")])
    assert torch.equal(cells, LAYOUTS.cells)
    play = rooms.episodes("val", torch.arange(2), "cpu")
    wanted, total = play.progress().remaining, torch.zeros(2)
    for step in range(1, 40):
        before = play.progress()
        result = play.step(play.best_actions().argmax(1))
        total += result.reward
        assert torch.equal(result.terminated, wanted <= step)
        assert (play.progress().subgoals >= before.subgoals).all()
    assert torch.equal(total, torch.ones(2)) and (play.progress().subgoals == 2).all()


def test_an_agent_sees_the_grid_around_it_and_what_it_carries():
    rooms = FourRooms(layouts=4, val_layouts=1)
    play = rooms.episodes("train", torch.arange(4), "cpu")
    for action in (0, 1, 2, 3, 1, 1, 2, 2, 0, 3):
        seen = play.observe()
        for one in range(4):
            place, phase = int(play.state[one]) % 49, int(play.state[one]) // 49
            row, column = divmod(place, 7)
            for down in range(-4, 5):
                for right in range(-4, 5):
                    r, c = row + down, column + right
                    inside = 0 <= r < 7 and 0 <= c < 7
                    cell = int(rooms.tables("train").cells[one, r, c]) if inside else WALL
                    wanted = [cell == WALL, cell == 2 and phase < 2, cell == KEY and not phase]
                    if (down, right) == (0, 0):
                        wanted[2] = phase > 0
                    shown = seen[one, :, down + 4, right + 4].bool().tolist()
                    assert shown == [*wanted, cell == GOAL]
        play.step(torch.full((4,), action))


def test_episodes_are_cut_off_and_begin_again_on_training_layouts():
    rooms = FourRooms(layouts=9, val_layouts=1, limit=2)
    play = rooms.episodes("train", torch.zeros(500, dtype=torch.long), "cpu")
    actions = torch.zeros(500, dtype=torch.long)
    assert not play.step(actions).truncated.any()
    assert play.step(actions).truncated.all()
    ended = torch.arange(500) % 2 == 0
    state = play.state
    play.restart(ended)
    assert (play.layout[~ended] == 0).all() and len(play.layout[ended].unique()) == 9
    assert torch.equal(play.state[~ended], state[~ended])
    assert torch.equal(play.state[ended], rooms.tables("train").start[play.layout[ended]])
    assert (play.steps == torch.where(ended, 0, 2)).all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FourRooms(size=6), "size=6 of FourRooms must be odd"),
        (lambda: FourRooms(limit=0), "limit=0 of FourRooms must be at least 1"),
        (lambda: make_layouts(5, 500), "size=5 has not 500 layouts that differ"),
        (lambda: Potential(weight=-1), "weight=-1 of Potential must be 0 or"),
    ],
)
def test_what_cannot_be_is_refused(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()
