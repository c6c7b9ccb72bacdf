"""Pages for people: who may do what, the dashboard, and what people decide."""
