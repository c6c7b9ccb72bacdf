"""Collect: what comes in, from files and from streams, checked row by row.

`messages` reads labelled messages and queue tables, `ingest` brings interactions and feedback to
the store, `dialogues` those of a log of whole dialogues; `values` says how values may be written
and `times` which times are believed. `sampling` keeps the messages apart that the gate tests on. A
bad row is set aside with its reason and never stops the good ones.
"""
