"""One file a report format. Nothing to edit here: `verifier.ingest.catalogue` finds them."""
