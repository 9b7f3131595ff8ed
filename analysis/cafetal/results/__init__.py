"""What lies in a run's folder, and can be read by any process later: journal, record, partials, output, account."""
