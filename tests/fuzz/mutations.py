# SPDX-License-Identifier: Apache-2.0
"""Damaging files: truncation, flipped bits, insertions, deletions, swapped and wild offsets.

``CHIPFIT_FUZZ=2000`` tries that many files per reader instead of the quick number.
"""

import os
from contextlib import suppress

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from chipfit.errors import ChipfitError

WILD = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0")


def examples(quick):
    """Return the settings of a fuzzer that tries ``quick`` files, always the same ones."""
    return settings(
        max_examples=int(os.environ.get("CHIPFIT_FUZZ", quick)), derandomize=True, deadline=None,
        database=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@st.composite
def damaged(draw, data):
    """Draw a damaged copy of ``data``."""
    found = bytearray(data)
    place = st.integers(0, max(len(found) - 1, 0))
    for _ in range(draw(st.integers(1, 3))):
        if not found:
            break
        where = min(draw(place), len(found) - 1)
        match draw(st.integers(0, 6)):
            case 0:
                del found[where:]
            case 1:
                found[where] ^= 1 << draw(st.integers(0, 7))
            case 2:
                found[where:where] = draw(st.binary(min_size=1, max_size=17))
            case 3:
                del found[where : where + draw(st.integers(1, 60))]
            case 4:  # two aligned words, which often are offsets
                a, b = where // 4 * 4, min(draw(place), len(found) - 1) // 4 * 4
                found[a : a + 4], found[b : b + 4] = found[b : b + 4], found[a : a + 4]
            case 5:
                found[where // 4 * 4 : where // 4 * 4 + 4] = draw(st.sampled_from(WILD))
            case 6:  # values that readers of text trip over
                word = draw(
                    st.sampled_from([b"null", b"nan", b"-1", b"1e999", b"[]", b"{}", b'""'])
                )
                found[where : where + len(word)] = word
    return bytes(found)


def survives(read):
    """Run a reader; it may succeed, or raise one of chipfit's errors that says something.

    Whatever else it raises fails the test.
    """
    with suppress(ChipfitError):
        try:
            read()
        except ChipfitError as error:
            if not error.message.strip():
                raise AssertionError("an error without a message") from error
            raise
