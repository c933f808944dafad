"""What tells the source beside a fingerprint."""
