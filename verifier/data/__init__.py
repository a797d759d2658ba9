"""Tables that ship with the package: shapes, parts, scanners' rule names, canary accounts, published example keys."""
