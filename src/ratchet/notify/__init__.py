"""People are told: alerts, reminders and reports by Slack, e-mail, webhooks and through Apprise.

| module | what |
|---|---|
| `policy` | who is told of what, from the file of `RATCHET_ALERTS` |
| `runbooks` | the catalogue of what people are told of, and what to do about each |
| `muting` | what people are not told of for a while |
| `outgoing` | which messages are due; each is put into the store's outbox once |
| `messages` | what a message says |
| `slack`, `mail`, `webhook`, `others` | a channel each |
| `sending` | takes messages from the outbox, and keeps what came of each |

`ratchet.analyze.monitoring.alerts` lists who raises and words alerts. What an alert says quotes
names that others chose: each channel sends it as text, in which nothing is markup, a link in
disguise or a call to everybody. Addresses, passwords and keys stand in variables, never in the
policy, and are neither logged nor stored.
"""
