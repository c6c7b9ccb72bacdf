"""The stage deploy: the gate, promotion and rollback. Decides on recorded numbers."""
