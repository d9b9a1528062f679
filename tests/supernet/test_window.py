import itertools
import math

from chipfit.supernet.window import Window


def test_all_moves_converge_in_logarithmic_time():
    for size in range(2, 33):
        moves = math.ceil(math.log2(size)) + 3
        for start in itertools.product((False, True), repeat=min(6, moves)):
            for rest in (False, True):
                window, count = Window.whole(size), 0
                wins = itertools.chain(start, itertools.repeat(rest))
                while not window.settled:
                    before, window, count = window, window.moved(next(wins)), count + 1
                    assert 0 <= window.lo <= window.hi < size
                    assert window.step == before.step // 2
                assert count <= moves, (size, start, rest)
        # A side that wins every time ends at its end of the grid.
        for up in (False, True):
            window = Window.whole(size)
            while not window.settled:
                window = window.moved(up)
            assert window.lo == (size - 1 if up else 0)


def test_a_late_change_of_mind_reaches_widths_outside_of_the_window():
    assert Window(8, 15, 4, 16).moved(False) == Window(4, 11, 2, 16)
    assert Window(0, 7, 4, 16).moved(True) == Window(4, 11, 2, 16)
