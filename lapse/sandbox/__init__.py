"""A world on loopback to try Lapse in: a simulator of the SaaS providers, real servers, made-up keys."""
