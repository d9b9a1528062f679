# SPDX-License-Identifier: Apache-2.0
"""Commands that measure chipfit against something else run alike: ``python -m benchmarks.NAME``.

Each prints tables and writes ``NAME.json`` and ``NAME.md`` to ``benchmarks/results``.
"""
