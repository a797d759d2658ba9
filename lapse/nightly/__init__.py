"""The nightly job: sources in, what is due asked about, policy, news, figures."""
