"""A policy as files that other programs run without our code: `vla export`, see docs/export.md.

`graphs` says what is computed, `formats` how it is written and run, `folder` what lies beside it.
"""
