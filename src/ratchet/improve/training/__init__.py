"""Training of LoRA adapters: SFT, KTO and DPO."""
