"""What the issuers, stores and session killers of one cloud share: the admin's login and the meaning of its errors."""
