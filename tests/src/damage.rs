//! Damage to archives, on purpose.
