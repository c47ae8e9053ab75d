"""Runs as other tools show them: written from the ledger, and read by nothing here."""
