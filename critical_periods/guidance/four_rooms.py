"""Four rooms, a key and a locked door: an environment in tables, for many agents at once."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import FIXED_SEED, Stream, uniform
from critical_periods.data.batch_stage import buffers
from critical_periods.guidance.environment import Environment, Episodes, Progress, Step

FLOOR, WALL, DOOR, KEY, GOAL = range(5)
"""What is in a cell."""
_PHASES = 3  # without the key, with it, and after the door has been opened
# Clockwise from the north-west: where each room's first cell is, in units of the middle.
_ROOMS = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0]])
_UNREACHABLE = 1 << 14


class Layouts(NamedTuple):
    """Rooms as tables; a state is ``phase * size² + row * size + column``.

    Attributes:
        cells: what is where, int64 [L, size, size].
        start: the first state of an episode, [L].
        successor: the state that each of four actions leads to, int64 [L, S, 4].
        terminal: whether a state is at the goal, [L, S].
        remaining: steps of the shortest way to the goal, int64 [L, S].
    """

    cells: Tensor
    start: Tensor
    successor: Tensor
    terminal: Tensor
    remaining: Tensor


class FourRooms(Environment):
    """A grid of four rooms in a ring, a key in one of them, and the goal in one that is locked.

    Each neighbouring pair of rooms shares a doorway at a place drawn at random. Of the goal's room
    one doorway is a wall and the other a door, which opens to an agent that has been at the key.
    The actions are steps to the north, east, south and west, and a step into a wall is none.
    Reaching the goal ends the episode with the reward 1; nothing else is rewarded. An episode is
    cut off after ``limit`` steps.

    The agent sees the whole grid around itself, [4, 2 size - 5, 2 size - 5]: walls, the door until
    it is open, the key (in the middle once it is carried), and the goal.

    All layouts differ, so that those of validation are none that was trained on. Their measured
    samples are one state each, drawn from all that are not at the goal.

    Args:
        size: rows and columns with the walls, odd.
        layouts: that are trained on.
        val_layouts: that are validated on.
        limit: steps of an episode.

    Raises:
        UserError: a setting is out of range, or there are not so many layouts.

    Example:
        >>> rooms = FourRooms(size=7, layouts=20, val_layouts=5)
        >>> rooms.samples("val", torch.arange(5), "cpu").shape
        torch.Size([5, 4, 9, 9])
    """

    actions = 4
    has_goal = True

    def __init__(
        self, size: int = 7, layouts: int = 2048, val_layouts: int = 256, limit: int = 64
    ) -> None:
        if size < 5 or size % 2 == 0:
            raise UserError(f"size={size} of FourRooms must be odd and at least 5.")
        for name, value in (("layouts", layouts), ("val_layouts", val_layouts), ("limit", limit)):
            if value < 1:
                raise UserError(f"{name}={value} of FourRooms must be at least 1.")
        self.size, self.limit = size, limit
        self.sizes = {"train": layouts, "val": val_layouts}
        self._tables: dict[tuple[str, str], Layouts] = {}

    def tables(self, split: str, device: torch.device | str = "cpu") -> Layouts:
        """The layouts of ``train`` or ``val``."""
        key = split, str(device)
        if key not in self._tables:
            sizes, place = [*self.sizes.values()], [*self.sizes].index(split)
            parts = (each.split(sizes)[place] for each in make_layouts(self.size, sum(sizes)))
            self._tables[key] = Layouts(*(part.to(device) for part in parts))
        return self._tables[key]

    def episodes(self, split: str, numbers: Tensor, device: torch.device | str) -> "RoomEpisodes":
        """The layouts with these numbers, each at its start."""
        return RoomEpisodes(self, self.tables(split, device), numbers.to(device))

    def samples(self, split: str, numbers: Tensor, device: torch.device | str) -> Tensor:
        """A view of each of these layouts, from a state drawn from all that are not at the goal."""
        episodes, tables = self.episodes(split, numbers, device), self.tables(split, device)
        remaining = tables.remaining[episodes.layout]
        can_be = (remaining > 0) & (remaining < _UNREACHABLE)
        draw = uniform(numbers, 1, Stream.ROOM_STATES, FIXED_SEED, split == "val")[:, 0].to(device)
        place = (draw * can_be.sum(1)).long()
        episodes.state = (can_be.cumsum(1) > place[:, None]).long().argmax(1)
        return episodes.observe()

    def contents(self) -> Iterator[Any]:
        """The layouts and the limit."""
        yield f"FourRooms {self.limit}".encode()
        for split in self.sizes:
            yield from buffers([self.tables(split).cells, self.tables(split).start])


class RoomEpisodes(Episodes):
    """Agents in rooms: their layouts, states and steps so far, all [B]."""

    def __init__(self, rooms: FourRooms, tables: Layouts, layout: Tensor) -> None:
        self.rooms, self.tables, self.layout = rooms, tables, layout
        self.state = tables.start[layout]
        self.steps = torch.zeros_like(layout)
        size, radius = rooms.size, rooms.size - 3
        self._maps = F.pad(tables.cells, [radius] * 4, value=WALL).flatten(1)
        around = torch.arange(2 * radius + 1, device=layout.device)
        self._window = (around[:, None] * (size + 2 * radius) + around).flatten()

    def observe(self) -> Tensor:
        """The grid around each agent, [B, 4, 2 size - 5, 2 size - 5]."""
        size, side = self.rooms.size, 2 * self.rooms.size - 5
        phase, place = self.state // size**2, self.state % size**2
        corner = place // size * (size + side - 1) + place % size
        at = corner[:, None] + self._window
        seen = self._maps[self.layout].gather(1, at)
        phase = phase[:, None]
        key = (seen == KEY) & (phase == 0)
        key[:, side**2 // 2] = (phase > 0)[:, 0]
        planes = (seen == WALL, (seen == DOOR) & (phase < 2), key, seen == GOAL)
        return torch.stack(planes, 1).float().view(-1, 4, side, side)

    def step(self, actions: Tensor) -> Step:
        """Moves each agent; 1 where it reaches the goal."""
        before = self.tables.terminal[self.layout, self.state]
        self.state = self.tables.successor[self.layout, self.state, actions]
        self.steps = self.steps + 1
        terminated = self.tables.terminal[self.layout, self.state]
        truncated = (self.steps >= self.rooms.limit) & ~terminated
        return Step((terminated & ~before).float(), terminated, truncated, terminated)

    def restart(self, ended: Tensor) -> None:
        """Another layout of the same split, drawn at random, where one has ended."""
        count = len(self.tables.start)
        drawn = torch.randint(count, self.layout.shape, device=self.layout.device)
        self.layout = torch.where(ended, drawn, self.layout)
        self.state = torch.where(ended, self.tables.start[self.layout], self.state)
        self.steps = self.steps.masked_fill(ended, 0)

    def progress(self) -> Progress:
        """Steps to the goal by way of key and door, and which of the two are reached."""
        remaining = self.tables.remaining[self.layout, self.state]
        return Progress(remaining.float(), (self.state // self.rooms.size**2).float())

    def best_actions(self) -> Tensor:
        """Equal probabilities for the actions that begin a shortest way."""
        after = self.tables.successor[self.layout, self.state]
        remaining = self.tables.remaining[self.layout[:, None], after]
        best = (remaining == remaining.amin(1, keepdim=True)).float()
        return best / best.sum(1, keepdim=True)


@lru_cache(maxsize=4)
def make_layouts(size: int, count: int) -> Layouts:
    """So many layouts of a size, all different, the same in every run.

    Raises:
        UserError: there are not so many.

    Example:
        >>> rooms = make_layouts(5, 1)
        >>> ["".join(".#DKG"[cell] for cell in row) for row in rooms.cells[0]]
        ['#####', '#...#', '###.#', '#GDK#', '#####']
        >>> int(rooms.remaining[0, rooms.start[0]])
        6
    """
    middle = size // 2
    width = middle - 1
    # Four doorways, the goal's room and side, three rooms and places for goal, key and start.
    ranges = torch.tensor([width] * 4 + [4, 2, width**2, 3, width**2, 3, width**2])
    draws = uniform(torch.arange(4 * count + 1000), len(ranges), Stream.ROOM_LAYOUT, FIXED_SEED)
    choices = (draws * ranges).long()
    choices = choices[(choices[:, 7:9] != choices[:, 9:]).any(1)]
    # The first of those that are alike.
    _, which = choices.unique(dim=0, return_inverse=True)
    first = torch.full((int(which.max()) + 1,), len(which))
    first = first.scatter_reduce(0, which, torch.arange(len(which)), "amin").sort().values
    if len(first) < count:
        raise UserError(
            f"FourRooms of size={size} has not {count} layouts that differ; choose a larger size, "
            "or fewer layouts and val_layouts."
        )
    doorways, (room, side, goal, key_room, key, start_room, start) = (
        choices[first[:count]].split([4, 7], 1)[0],
        choices[first[:count]][:, 4:].unbind(1),
    )

    def place(room: Tensor, cell: Tensor) -> Tensor:
        row, column = (_ROOMS[room % 4] * middle + 1).unbind(1)
        return (row + cell // width) * size + column + cell % width

    cells = torch.full((count, size, size), FLOOR)
    for line in (0, middle, size - 1):
        cells[:, line] = cells[:, :, line] = WALL
    flat, number = cells.view(count, -1), torch.arange(count)
    for wall in range(4):
        # From room `wall` clockwise to the next.
        along = doorways[:, wall] + 1 + middle * (wall in (1, 2))
        at = along * size + middle if wall % 2 == 0 else middle * size + along
        # The goal's room has the doorway before it and the one of its own number.
        is_before, is_own = (room - 1) % 4 == wall, room == wall
        kind = torch.where(is_before == (side == 0), DOOR, WALL)
        flat[number, at] = torch.where(is_before | is_own, kind, FLOOR)
    flat[number, place(room, goal)] = GOAL
    flat[number, place(room + 1 + key_room, key)] = KEY
    return _with_tables(cells, place(room + 1 + start_room, start))


def _with_tables(cells: Tensor, start: Tensor) -> Layouts:
    """Where each action leads from each state, and how far from the goal that is."""
    count, size, _ = cells.shape
    flat = cells.flatten(1)
    here = torch.arange(size**2)
    after = []
    for phase in range(_PHASES):
        for move in (-size, 1, size, -1):
            there = (here + move).clamp(0, size**2 - 1)
            what = flat[:, there]
            is_shut = (what == WALL) | ((what == DOOR) & (phase == 0))
            later = torch.where((what == KEY) & (phase == 0), 1, phase)
            later = torch.where((what == DOOR) & (phase > 0), 2, later)
            moved = later * size**2 + there
            after.append(torch.where(is_shut, phase * size**2 + here, moved))
    successor = torch.stack(after, 1).view(count, _PHASES, 4, -1).transpose(2, 3).flatten(1, 2)
    terminal = (flat == GOAL).repeat(1, _PHASES)
    remaining = torch.where(terminal, 0, _UNREACHABLE)
    while True:
        ahead = remaining.gather(1, successor.flatten(1)).view_as(successor).amin(2)
        closer = torch.where(terminal, 0, (ahead + 1).clamp(max=_UNREACHABLE))
        if torch.equal(closer, remaining):
            return Layouts(cells, start, successor, terminal, remaining)
        remaining = closer
