"""Guarded training: a session around `model.fit`, checkpoints that hold, exact resume. No loop of its own."""
