//! What the engine promises, one sentence at a time.
