"""Where bytes lie: local folders, remote stores, locks, checksums."""
