"""The golden set: examples with right answers that the gate asks, grown from traffic."""
