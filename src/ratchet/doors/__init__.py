"""Doors: readers of other tools' exports, which make interactions and feedback of them.

    what = prepare("export.jsonl", now=now)
    report = store_import(what, store)

A door is one module: the keys of a foreign format as constants, and a function that makes events of
a row. All else is shared: opening (`sources`), knowing the format (`recognition`), positions and
reasons (`rows`), storing (`importing`, by `ratchet.collect.ingest`), following (`following`), and
what other tools have in common: how turns are written (`turns`) and what a score means (`scores`).
`known` lists the doors; `ratchet.doors.door` says how one is written.
"""
