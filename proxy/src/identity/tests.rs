//! A real issuer, and every way in which a token can be wrong.
