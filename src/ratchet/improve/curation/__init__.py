"""Training sets from what users showed to be good.

| step | module |
|---|---|
| what is good: corrections, well-rated answers, judges' and experts' | `selection`, `evidence` |
| liked or not (KTO), better and worse (DPO) | `preferences` |
| duplicates, evaluation sets, trust, length, balance | `pool` and what it calls |
| conversations, redaction, split, card, files | `dataset` |
"""
