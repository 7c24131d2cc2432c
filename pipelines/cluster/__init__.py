"""The Ray that jobs run on: a running cluster, or one that is started on this machine."""
