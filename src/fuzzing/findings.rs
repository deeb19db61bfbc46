//! What fuzzing has found: the bytes, as small as they could be made, and what they did.
